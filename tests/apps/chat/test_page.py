"""The demo page in a real browser against the whole of Penstock: `penstock up`, with its own model and pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from apps.local import piped
from apps.parts import BUNDLED_NAME, Parts
from apps.settings import Settings
from pipeline.memory import MemoryBus
from stages.llm.instant import InstantEngine
from stages.tokens import load_tokenizer
from tests.apps.chat.conftest import PHONE, Visit, Visitor
from tests.apps.processes import Penstock, started
from tests.servers import unused_port

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.slow]

up_takes_its_time = pytest.mark.timeout(180)

WATCH = """() => {
    const list = document.querySelector("penstock-chat").shadowRoot.querySelector(".under");
    window.seen = [];
    new MutationObserver(() => {
        const text = list.querySelector(".bubble")?.textContent;
        if (text && text !== window.seen.at(-1)) window.seen.push(text);
    }).observe(list, { subtree: true, childList: true, characterData: true });
}"""


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def shop(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Penstock]:
    """Give `penstock up` as a user starts it, for all tests that leave it alone."""
    with up(tmp_path_factory.mktemp("shop"), unused_port()) as program:
        await program.ready()
        yield program


@pytest_asyncio.fixture(loop_scope="package")
async def slow_engine(demo_model: Path) -> InstantEngine:
    """Give an engine that would write for eight seconds."""
    return InstantEngine(160, each_s=0.05)


@pytest_asyncio.fixture(loop_scope="package")
async def slow_shop(demo_model: Path, slow_engine: InstantEngine) -> AsyncIterator[str]:
    """Give the address of everything in this process, with the slow engine in the model's place."""
    parts = Parts(BUNDLED_NAME, load_tokenizer(str(demo_model)), 2048, slow_engine)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(MemoryBus())
        url = await stack.enter_async_context(piped(bus, parts, Settings()))
        yield url.replace("ws://", "http://")


def up(folder: Path, port: int) -> AbstractContextManager[Penstock]:
    """Run everything with the demo model, whose words come as at a busy hour."""
    return started("up", "--port", str(port), "--set", "model.pace_s=0.05", folder=folder, port=port)


def page_of(shop: Penstock) -> str:
    """Give the address of the demo page."""
    return f"http://127.0.0.1:{shop.port}/"


async def finished(visitor: Visitor, count: int) -> list[str]:
    """Wait for so many finished answers, and give them."""
    await expect(visitor.page.get_by_role("button", name="Copy this answer")).to_have_count(count, timeout=20_000)
    return await visitor.answers.all_inner_texts()


@up_takes_its_time
@pytest.mark.parametrize("screen", [{}, {"viewport": PHONE, "is_mobile": True, "has_touch": True}])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_conversation(shop: Penstock, browse: Visit, screen: dict[str, object], scheme: str) -> None:
    """The model's answers stream in, survive a reload, and the conversation goes on after it."""
    visitor = await browse(page_of(shop), color_scheme=scheme, **screen)
    await visitor.page.evaluate(WATCH)
    await visitor.ask("When are you open?")
    first = await finished(visitor, 1)
    seen = await visitor.page.evaluate("window.seen")
    assert seen, "the answer came all at once"
    assert len(seen[0]) < len(first[0])
    assert all(first[0].startswith(text) for text in seen)

    await visitor.page.reload()
    assert await visitor.answers.all_inner_texts() == first
    await visitor.ask("How do I return boots?")

    both = await finished(visitor, 2)
    assert both[0] == first[0]
    assert len(both[1].split()) > 3


async def test_stop_reaches_the_engine(slow_shop: str, slow_engine: InstantEngine, browse: Visit) -> None:
    """Stop ends the work of the engine; what was written stays, and the next answer begins."""
    visitor = await browse(slow_shop)
    await visitor.ask("Tell me everything")
    await expect(visitor.answers).not_to_have_text("")
    await expect(visitor.page.locator("#rate")).not_to_have_text("–")

    await visitor.stop.click()

    await expect(visitor.page.get_by_text("Stopped.")).to_be_visible()
    assert await visitor.answers.inner_text()
    async with asyncio.timeout(5):
        while slow_engine.open:  # noqa: ASYNC110 - the engine keeps a count, no event
            await asyncio.sleep(0.02)
    await visitor.ask("And again")
    await expect(visitor.answers).to_have_count(2)
    await visitor.stop.click()
    await expect(visitor.stop).to_be_hidden()


async def test_reload_in_mid_answer(slow_shop: str, browse: Visit) -> None:
    """A reload keeps what was written of an answer, and Retry asks for it anew."""
    visitor = await browse(slow_shop)
    await visitor.ask("Tell me everything")
    await expect(visitor.page.locator("#rate")).not_to_have_text("–")
    await visitor.page.reload()
    await expect(visitor.page.get_by_text("The answer was interrupted.")).to_be_visible()

    await visitor.retry.click()

    await expect(visitor.page.locator("#rate")).not_to_have_text("–")
    await expect(visitor.questions).to_have_text(["Tell me everything"])
    await visitor.stop.click()
    await expect(visitor.stop).to_be_hidden()


@up_takes_its_time
async def test_death_of_the_server(browse: Visit, demo_model: Path, tmp_path: Path) -> None:
    """When the server is killed and started again, what was typed meanwhile is sent, and answered."""
    port = unused_port()
    with up(tmp_path, port) as program:
        await program.ready()
        visitor = await browse(page_of(program))
        await visitor.ask("When are you open?")
        first = await finished(visitor, 1)
        program.kill()
        await visitor.sees_state("Reconnecting…")
        await visitor.ask("How much is the rain jacket?")
        await expect(visitor.page.get_by_text("Waiting to be sent")).to_be_visible()

    with up(tmp_path, port) as again:
        await again.ready()
        await visitor.page.evaluate("dispatchEvent(new Event('online'))")  # it need not wait for its next attempt
        both = await finished(visitor, 2)

    assert both[0] == first[0]


@up_takes_its_time
async def test_the_files_of_both_pages(shop: Penstock, browse: Visit) -> None:
    """Both pages and all that they link to are there, under the server's own security policy."""
    for path in ("", "widget-demo.html"):
        visitor = await browse(page_of(shop) + path)
        await expect(visitor.page.locator("penstock-chat")).to_have_count(1)
        links = await visitor.page.locator("a").evaluate_all("nodes => nodes.map((node) => node.href)")
        for link in {link.partition("#")[0] for link in links}:
            assert (await visitor.page.request.get(link)).ok, link
        assert not [line for line in visitor.console if "404" in line]
