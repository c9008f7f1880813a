"""A key from a real browser, which can set no header of a socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import async_playwright

from apps.gateway.keyfile import add
from tests.apps.chat.conftest import ARGS
from tests.apps.gateway.harness import gateway

DEADLINE_S = 40.0
CONNECT = """([url, protocols, line]) => new Promise((resolve) => {
    const got = [], socket = new WebSocket(url, protocols);
    socket.onopen = () => line && socket.send(line);
    socket.onmessage = ({ data }) => {
        got.push(data);
        if (data === "<END>" || data.includes("session.created")) socket.close(1000);
    };
    socket.onclose = ({ code }) => resolve({ code, protocol: socket.protocol, got });
})"""


@pytest.mark.slow
async def test_a_page_brings_its_key_as_a_subprotocol(chromium: str, tmp_path: Path) -> None:
    """Chromium gets in to both endpoints and is answered the other subprotocol; with one of the two alone it is out."""
    path = tmp_path / "keys.json"
    key = f"openai-insecure-api-key.{add(path, 'acme').key}"
    async with asyncio.timeout(DEADLINE_S), gateway(keys_file=path) as running, async_playwright() as play:
        browser = await play.chromium.launch(executable_path=chromium, args=ARGS)
        page = await browser.new_page()
        await page.goto(f"{running.http}/livez")

        async def connect(where: str, protocols: list[str], line: str = "") -> Any:
            return await page.evaluate(CONNECT, [f"{running.ws}{where}", protocols, line])

        realtime = await connect("/v1/realtime", ["realtime", key])
        chat = await connect("/chat/me", ["chat", key], "hi")
        alone = await connect("/chat/me", [key], "hi")
        stranger = await connect("/chat/me", ["chat"], "hi")
        await browser.close()

    assert (realtime["code"], realtime["protocol"]) == (1000, "realtime")
    assert (chat["code"], chat["protocol"], "".join(chat["got"])) == (1000, "chat", "You said: hi<END>")
    assert (alone["code"], alone["got"]) == (1006, [])
    assert (stranger["code"], stranger["got"]) == (1006, [])
