"""Pictures of the voice page against a running server, to be looked at.

`python -m tests.apps.voice.screenshots http://127.0.0.1:8080 FOLDER`: desktop and phone, light and dark; empty, while
somebody speaks, while the answer is heard, after an interruption, with a button to hold, and without a microphone.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.async_api import Browser, async_playwright, expect

from stages.postprocess.speak.espeak import SAMPLE_RATE, espeak
from tests import programs
from tests.apps.chat.conftest import ARGS
from tests.apps.chat.screenshots import SCHEMES, SCREENS
from tests.apps.voice.conftest import FAKE_DEVICES, Talker, speech_of
from tests.apps.voice.sounds import silence, wav
from tests.apps.voice.test_voice_page import HEARD, refusing

PATIENCE_MS = 60_000


def spoken(folder: Path) -> Path:
    """Return a file in which somebody asks something, and something else over the answer."""
    first, second = (espeak().say(text).pcm for text in ("when are you open on saturday", "how do i return boots"))
    quiet = {seconds: silence(seconds, rate=SAMPLE_RATE) for seconds in (2, 4, 60)}
    return wav(folder / "questions.wav", quiet[2] + first + quiet[4] + second + quiet[60], rate=SAMPLE_RATE)


async def conversation(talker: Talker, name: str) -> None:
    """Take a conversation by voice, as it goes on."""
    page = talker.page
    await page.screenshot(path=f"{name}-empty.png")
    await talker.start()
    await expect(talker.turns.first.locator(".coming")).not_to_have_text("")
    await page.screenshot(path=f"{name}-hearing.png")
    await expect(talker.answers.first.locator(HEARD)).to_contain_text("we")
    await page.screenshot(path=f"{name}-speaking.png")
    await expect(talker.answers.nth(1).locator(HEARD)).to_contain_text("open")
    await page.screenshot(path=f"{name}-interrupted.png")
    await page.screenshot(path=f"{name}-whole.png", full_page=True)


async def button(talker: Talker, name: str) -> None:
    """Take the button while it is held, and the settings."""
    await talker.push()
    await talker.start()
    await expect(talker.mic).to_have_text("Hold to talk")
    await talker.page.keyboard.down("Space")
    await talker.page.wait_for_timeout(500)
    await talker.page.screenshot(path=f"{name}-push.png")
    await talker.page.keyboard.press("Escape")
    await talker.page.get_by_label("Settings").click()
    await talker.page.screenshot(path=f"{name}-settings.png")


async def denied(talker: Talker, name: str) -> None:
    """Take the page without a microphone."""
    await talker.start()
    await expect(talker.banner).to_be_visible()
    await talker.page.screenshot(path=f"{name}-denied.png")


async def take(browser: Browser, url: str, folder: Path) -> None:
    """Take them all."""
    for screen, options in SCREENS.items():
        for scheme in SCHEMES:
            for scene, script in ((conversation, ""), (button, ""), (denied, refusing("NotAllowedError"))):
                context = await browser.new_context(color_scheme=scheme, **options)
                await context.add_init_script(script)
                talker = Talker(await context.new_page())
                await talker.page.goto(f"{url}/voice/")
                await scene(talker, f"{folder}/{screen}-{scheme}")
                await context.close()


async def main(url: str, folder: Path) -> None:
    """Take the pictures of the page at `url` into `folder`."""
    expect.set_options(timeout=PATIENCE_MS)
    with TemporaryDirectory() as scratch:
        args = [*ARGS, *FAKE_DEVICES, speech_of(spoken(Path(scratch)))]
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=programs.chromium_path(), args=args)
            await take(browser, url.rstrip("/"), folder)
            await browser.close()


if __name__ == "__main__":
    pictures = Path(sys.argv[2])
    pictures.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(sys.argv[1], pictures))
