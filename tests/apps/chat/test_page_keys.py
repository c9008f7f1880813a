"""The chat in a real browser where the server wants a key: without one, or with a wrong one, it says so."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import expect

from apps.gateway.asgi import StaticMount
from apps.gateway.keyfile import add, revoke
from apps.local import PAGES
from tests.apps.chat.conftest import Visit
from tests.apps.gateway.harness import gateway
from tests.servers import unused_port

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.slow]

DEADLINE_S = 40.0
NOT_SET_UP = "This chat is not set up correctly: the server "


async def test_the_bundled_page_says_that_it_has_no_key(browse: Visit, tmp_path: Path) -> None:
    """Where keys are on, it says so and how a page gets one, and dials no more until it is told to."""
    path = tmp_path / "keys.json"
    add(path, "acme")
    async with asyncio.timeout(DEADLINE_S), gateway(keys_file=path, static=(StaticMount(PAGES),)) as running:
        visitor = await browse(running.http)
        await visitor.sees_state("Not available")
        text = f"{NOT_SET_UP}wants an API key, and this page has none (data-key)."
        await expect(visitor.page.get_by_text(text)).to_be_visible()

        await visitor.page.get_by_role("button", name="Try again").click()
        await expect(visitor.page.get_by_text(text)).to_be_visible()
        await visitor.sees_state("Not available")

    assert [line for line in visitor.console if "wants a valid API key: give the widget one with data-key" in line]


async def test_a_key_that_a_page_has(browse: Visit, tmp_path: Path) -> None:
    """A page's key lets it in; once it is revoked, a page that is opened says that it is not accepted."""
    path = tmp_path / "keys.json"
    made = add(path, "page")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text(
        "<!doctype html><title>A page</title><main id=chat></main>"
        f"<script src=/widget.js data-target='#chat' data-key='{made.key}'></script>"
    )
    pages = (StaticMount(tmp_path / "mine", "/mine"), StaticMount(PAGES))
    async with asyncio.timeout(DEADLINE_S), gateway(keys_file=path, static=pages) as running:
        visitor = await browse(f"{running.http}/mine/")
        await visitor.ask("hi")
        await expect(visitor.answers).to_have_text("You said: hi")

        revoke(path, made.entry.id)
        await visitor.sees_state("Not available")
        await visitor.page.reload()
        await expect(visitor.page.get_by_text(f"{NOT_SET_UP}does not accept its key.")).to_be_visible()

    assert not [line for line in visitor.console if made.key in line]


async def test_a_server_that_is_down_is_not_taken_for_one_that_wants_a_key(browse: Visit) -> None:
    """A page goes on dialling while its server is away."""
    port, pages = unused_port(), (StaticMount(PAGES),)
    async with asyncio.timeout(DEADLINE_S):
        async with gateway(port=port, static=pages) as running:
            visitor = await browse(running.http)
            await visitor.sees_state("Online")
        await visitor.sees_state("Reconnecting…")
        async with gateway(port=port, static=pages):
            await visitor.page.evaluate("dispatchEvent(new Event('online'))")
            await visitor.sees_state("Online")
