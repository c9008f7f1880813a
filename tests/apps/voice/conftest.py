"""A real browser whose microphone is a file, and a visitor who talks to the voice page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.apps.chat.conftest import ARGS, DESKTOP
from tests.apps.gateway.checks import validated
from tests.apps.voice.fake_realtime import FakeRealtime
from tests.apps.voice.sounds import silence, tone, wav

FAKE_DEVICES = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
PAGE_TIMEOUT_MS = 25_000


def speech_of(file: Path) -> str:
    """Return the argument that makes `file` what the microphone hears, from its beginning whenever it is opened."""
    return f"--use-file-for-fake-audio-capture={file}%noloop"


@dataclass
class Talker:
    """Somebody in front of the voice page, by what they can see and reach."""

    page: Page
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Follow what the page says, and whom it asks."""
        self.mic = self.page.locator("#mic")
        self.state = self.page.locator("#state-words")
        self.turns = self.page.locator(".turn.user")
        self.answers = self.page.locator(".turn.assistant")
        self.banner = self.page.get_by_role("alert")
        self.said = self.page.get_by_role("status")
        self.page.set_default_timeout(PAGE_TIMEOUT_MS)
        self.page.on("console", lambda message: self.console.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    async def start(self) -> None:
        """Turn the microphone on."""
        await self.page.get_by_role("button", name="Start").click()

    async def type(self, text: str) -> None:
        """Type a line, and press Enter."""
        await self.page.get_by_role("textbox", name="Your message").fill(text)
        await self.page.keyboard.press("Enter")

    async def until(self, expression: str) -> None:
        """Wait until that is true in the page, whose policy lets no `wait_for_function` work."""
        async with asyncio.timeout(PAGE_TIMEOUT_MS / 1000):
            while not await self.page.evaluate(expression):  # noqa: ASYNC110 - it is the page that changes
                await asyncio.sleep(0.02)

    async def push(self) -> None:
        """Choose push to talk."""
        await self.page.get_by_role("radio", name="Push to talk").check()


Visit = Callable[..., Awaitable[Talker]]


@pytest.fixture(scope="session")
def two_turns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file in which somebody speaks for 1.2 s, and for 0.65 s three seconds after that."""
    sound = silence(0.8) + tone(1.2) + silence(3.0) + tone(0.65) + silence(30)
    return wav(tmp_path_factory.mktemp("voice") / "microphone.wav", sound)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser(chromium: str, two_turns: Path) -> AsyncIterator[Browser]:
    """Give a browser with that file for a microphone, and with a profile of its own."""
    async with async_playwright() as playwright:
        args = [*ARGS, *FAKE_DEVICES, speech_of(two_turns)]
        browser = await playwright.chromium.launch(executable_path=chromium, args=args)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="package")
async def browse(browser: Browser) -> AsyncIterator[Visit]:
    """Give a function that opens an address as a new visitor; no page may fail, or ask any other host for anything."""
    visitors: list[tuple[str, Talker]] = []
    async with AsyncExitStack() as stack:

        async def browse(url: str, script: str = "", **settings: Any) -> Talker:
            context = await browser.new_context(viewport=settings.pop("viewport", DESKTOP), **settings)
            stack.push_async_callback(context.close)
            await context.add_init_script(script)
            talker = Talker(await context.new_page())
            visitors.append((url, talker))
            await talker.page.goto(url)
            return talker

        yield browse
        for url, talker in visitors:
            assert talker.errors == []
            assert talker.hosts <= {urlsplit(url).netloc}
            assert not [line for line in talker.console if "Content Security Policy" in line]


@pytest_asyncio.fixture(loop_scope="package")
async def server() -> AsyncIterator[FakeRealtime]:
    """Give a running fake server, all of whose events are the protocol's."""
    expect.set_options(timeout=PAGE_TIMEOUT_MS)
    async with FakeRealtime().run() as server:
        yield server
    for session in server.sessions:
        for event in session.told:
            validated(event)


@pytest_asyncio.fixture(loop_scope="package")
async def visit(browse: Visit, server: FakeRealtime) -> Visit:
    """Give a function that opens the voice page of the fake server as a new visitor."""

    async def visit(script: str = "", **settings: Any) -> Talker:
        return await browse(f"{server.url}/voice/", script, **settings)

    return visit
