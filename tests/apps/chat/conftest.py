"""A real browser, a fake gateway, and a visitor who talks to the chat."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.apps.chat.fake_gateway import FakeGateway

ARGS = [
    "--no-sandbox",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PLAIN = "/plain"
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}

expect.set_options(timeout=8_000)


@dataclass
class Visitor:
    """Somebody in front of one page, by what they can see and reach."""

    page: Page
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Follow what the page says, and whom it asks."""
        self.input = self.page.get_by_role("textbox", name="Your message")
        self.launcher = self.page.locator(".launcher")
        self.panel = self.page.locator(".panel")
        self.stop = self.page.get_by_role("button", name="Stop the answer")
        self.retry = self.page.get_by_role("button", name="Retry")
        self.answers = self.page.locator(".message.assistant:not(.greeting) .bubble")
        self.questions = self.page.locator(".message.user .bubble")
        self.page.on("console", lambda message: self.console.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.on("websocket", lambda socket: self.hosts.add(urlsplit(socket.url).netloc))

    async def ask(self, text: str) -> None:
        """Type a question and press Enter."""
        await self.input.fill(text)
        await self.input.press("Enter")

    async def sees_state(self, words: str) -> None:
        """Wait until the chat's header says `words`."""
        await expect(self.page.locator("p.state")).to_have_text(words)


Visit = Callable[..., Awaitable[Visitor]]


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """Give a browser that the tests of this package share; each visitor has a profile of its own in it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="package")
async def gateway() -> AsyncIterator[FakeGateway]:
    """Give a running fake gateway."""
    async with FakeGateway().run() as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="package")
async def browse(browser: Browser) -> AsyncIterator[Visit]:
    """Give a function that opens an address as a new visitor; no page may fail, or ask any other host for anything."""
    visitors: list[tuple[str, Visitor]] = []
    async with AsyncExitStack() as stack:

        async def browse(url: str, **settings: Any) -> Visitor:
            context = await browser.new_context(viewport=settings.pop("viewport", DESKTOP), **settings)
            stack.push_async_callback(context.close)
            visitor = Visitor(await context.new_page())
            visitors.append((url, visitor))
            await visitor.page.goto(url)
            return visitor

        yield browse
        for url, visitor in visitors:
            assert visitor.errors == []
            assert visitor.hosts <= {f"{name}:{urlsplit(url).port}" for name in ("127.0.0.1", "localhost")}
            assert not [line for line in visitor.console if "Content Security Policy" in line]


@pytest_asyncio.fixture(loop_scope="package")
async def visit(browse: Visit, gateway: FakeGateway) -> Visit:
    """Give a function that opens a page of the fake gateway as a new visitor, by default one with just a chat."""
    gateway.pages[PLAIN] = (
        "<!doctype html><title>A page</title><meta name=viewport content='width=device-width'>"
        "<main id=chat></main><script src=/widget.js data-target='#chat'></script>"
    )

    async def visit(path: str = PLAIN, **settings: Any) -> Visitor:
        return await browse(path if "://" in path else gateway.url + path, **settings)

    return visit
