"""The voice page against the whole of Penstock: espeak-ng talks into the microphone, our own models hear and answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from apps.speech import BUNDLED
from stages.postprocess.speak.espeak import SAMPLE_RATE, espeak
from tests.apps.chat.conftest import ARGS
from tests.apps.processes import Penstock, started
from tests.apps.voice.conftest import FAKE_DEVICES, Visit, speech_of
from tests.apps.voice.sounds import silence, wav
from tests.apps.voice.test_voice_page import COMING, HEARD, WATCH
from tests.servers import unused_port

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not BUNDLED.is_dir(), reason=f"the demo's recogniser is not there: {BUNDLED}"),
]

FIRST, SECOND = "when are you open on saturday", "how do i return boots"
ANSWER_MS = 30_000


@pytest.fixture(scope="module")
def two_questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file in which somebody asks, and asks something else before the answer can be over."""
    quiet = (silence(seconds, rate=SAMPLE_RATE) for seconds in (1.5, 3.2, 60))
    sound = next(quiet) + espeak().say(FIRST).pcm + next(quiet) + espeak().say(SECOND).pcm + next(quiet)
    return wav(tmp_path_factory.mktemp("voice") / "questions.wav", sound, rate=SAMPLE_RATE)


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def browser(chromium: str, two_questions: Path) -> AsyncIterator[Browser]:
    """Give a browser that hears the questions."""
    async with async_playwright() as playwright:
        args = [*ARGS, *FAKE_DEVICES, speech_of(two_questions)]
        browser = await playwright.chromium.launch(executable_path=chromium, args=args)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def shop(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Penstock]:
    """Give `penstock up` as a user starts it."""
    port = unused_port()
    async with AsyncExitStack() as stack:
        folder = tmp_path_factory.mktemp("shop")
        program = stack.enter_context(started("up", "--port", str(port), folder=folder, port=port))
        await program.ready()
        yield program


async def test_a_spoken_exchange(shop: Penstock, browse: Visit) -> None:
    """A question is understood word by word and answered aloud; another one, asked over the answer, ends that."""
    talker = await browse(f"http://127.0.0.1:{shop.port}/voice/")
    await talker.page.evaluate(WATCH)
    await talker.start()

    await expect(talker.turns.first.locator(HEARD)).to_have_text(FIRST, timeout=ANSWER_MS)
    seen = await talker.page.evaluate("window.seen")
    partials = [text.removeprefix("speaking: ") for text in seen if text.startswith("speaking: ")]
    assert any(text and FIRST.startswith(text) for text in partials), seen
    first, second = talker.answers.first, talker.answers.nth(1)
    await expect(first.locator(HEARD)).to_contain_text("open", timeout=ANSWER_MS)

    await expect(first).to_have_attribute("data-state", "cut", timeout=ANSWER_MS)
    await expect(first.locator(COMING)).not_to_have_text("")
    await expect(first.locator(".note")).to_contain_text("Interrupted after")
    await expect(talker.turns.nth(1).locator(HEARD)).to_have_text(SECOND, timeout=ANSWER_MS)
    await expect(second.locator(HEARD)).not_to_have_text("", timeout=ANSWER_MS)
    assert int(await talker.page.locator("#silenced").inner_text()) >= 0
    await expect(talker.banner).to_be_hidden()
    await talker.page.get_by_role("button", name="Stop the answer").click()
    await expect(second).to_have_attribute("data-state", "cut")
