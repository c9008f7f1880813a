"""Pictures of both pages against a running server, to be looked at.

`python -m tests.apps.chat.screenshots http://127.0.0.1:8080 FOLDER`: desktop and phone, light and dark; empty, while an
answer streams, after a conversation, with the popup, without a server. The README's is `desktop-light-streaming.png`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Literal

from playwright.async_api import Browser, WebSocketRoute, async_playwright, expect

from tests import programs
from tests.apps.chat.conftest import ARGS, DESKTOP, PHONE, Visitor

SCREENS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": DESKTOP},
    "phone": {"viewport": PHONE, "is_mobile": True, "has_touch": True},
}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
QUESTIONS = ("When are you open?", "What do I need for camping?")
LONG = "How do I return boots?"


async def converse(visitor: Visitor, *questions: str) -> None:
    """Ask, and wait for each answer."""
    for question in questions:
        await visitor.ask(question)
        await expect(visitor.stop).to_be_hidden(timeout=30_000)
        await visitor.page.wait_for_timeout(300)


async def begin(visitor: Visitor, question: str) -> None:
    """Ask, and wait until the answer has begun to stream."""
    await visitor.ask(question)
    await expect(visitor.answers.last).to_contain_text(" ", timeout=30_000)
    await visitor.page.wait_for_timeout(250)


class Wire:
    """The way of a page to the server, which can be cut."""

    def __init__(self) -> None:
        self._sockets: list[WebSocketRoute] = []
        self._cut = False

    async def connect(self, socket: WebSocketRoute) -> None:
        """Lead a page's socket to the server, or nowhere."""
        if self._cut:
            await socket.close(code=1013, reason="try again in 9 s")
            return
        self._sockets.append(socket)
        socket.connect_to_server()

    async def cut(self) -> None:
        """Cut it, for good."""
        self._cut = True
        for socket in self._sockets:
            await socket.close(code=1013, reason="try again in 9 s")


async def demo_page(visitor: Visitor, url: str, name: str) -> None:
    """Take the demo page: empty, streaming, afterwards, whole, and without a server."""
    page, wire = visitor.page, Wire()
    await page.route_web_socket("**/v1/realtime*", wire.connect)
    await page.goto(url)
    await visitor.sees_state("Online")
    await page.screenshot(path=f"{name}-empty.png")
    await converse(visitor, *QUESTIONS)
    await begin(visitor, LONG)
    await page.screenshot(path=f"{name}-streaming.png")
    await expect(visitor.stop).to_be_hidden(timeout=30_000)
    await page.wait_for_timeout(300)
    await page.screenshot(path=f"{name}-conversation.png")
    await page.screenshot(path=f"{name}-whole.png", full_page=True)
    await begin(visitor, LONG)
    await wire.cut()
    await expect(visitor.retry).to_be_visible()
    await visitor.ask("And how much is the rain jacket?")
    await page.wait_for_timeout(300)
    await page.screenshot(path=f"{name}-cut.png")


async def shop_page(visitor: Visitor, url: str, name: str) -> None:
    """Take the third party's page: closed, and with the popup open."""
    await visitor.page.goto(f"{url}/widget-demo.html")
    await visitor.page.wait_for_timeout(500)
    await visitor.page.screenshot(path=f"{name}-shop.png")
    await visitor.launcher.click()
    await visitor.sees_state("Online")
    await converse(visitor, QUESTIONS[0])
    await begin(visitor, LONG)
    await visitor.page.screenshot(path=f"{name}-popup.png")


async def take(browser: Browser, url: str, folder: str) -> None:
    """Take them all."""
    for screen, options in SCREENS.items():
        for scheme in SCHEMES:
            context = await browser.new_context(color_scheme=scheme, **options)
            visitor = Visitor(await context.new_page())
            await demo_page(visitor, url, f"{folder}/{screen}-{scheme}")
            await shop_page(Visitor(await context.new_page()), url, f"{folder}/{screen}-{scheme}")
            await context.close()


async def main(url: str, folder: str) -> None:
    """Take the pictures of the pages at `url` into `folder`, which is made if need be."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=programs.chromium_path(), args=ARGS)
        await take(browser, url.rstrip("/"), folder)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
