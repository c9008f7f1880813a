"""How the voice page is got on with, in a real browser: what is in view, what is dropped, where the focus goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.apps.voice.conftest import Talker, Visit
from tests.apps.voice.fake_realtime import FakeRealtime
from tests.apps.voice.sounds import tone, wav
from tests.apps.voice.test_voice_page import ANSWER, COMING, HEARD, told

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.slow, pytest.mark.timeout(60)]

LOW = {"width": 360, "height": 560}
IN_VIEW = """() => {
    const view = document.querySelector("#scroll").getBoundingClientRect();
    const coming = document.querySelector(".turn.assistant .coming").getClientRects()[0];
    return coming.top >= view.top && coming.bottom <= view.bottom;
}"""
SLOWLY = """
const decode = OfflineAudioContext.prototype.decodeAudioData;
OfflineAudioContext.prototype.decodeAudioData = async function (data) {
    await new Promise((done) => { window.decode = done; });
    return decode.call(this, data);
};
"""
DROP = """(where) => {
    const dropped = new DataTransfer();
    dropped.items.add(new File(["no sound at all"], "notes.mp3"));
    const event = new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true });
    document.querySelector(where).dispatchEvent(event);
    return event.defaultPrevented;
}"""

LABELS = ("Start", "Allow it…", "Unmute", "Hold to talk", "Release to send")
APART = """(labels) => {
    for (const id of ["stop", "end"]) document.getElementById(id).hidden = false;
    const parts = [".modes", ".mic", ".tools"].map((name) => document.querySelector(name));
    const wrong = [];
    for (const label of labels) {
        document.getElementById("mic-label").textContent = label;
        document.getElementById("mic").dataset.mic = label.endsWith("e") ? "on" : "ready";
        const boxes = parts.map((part) => part.getBoundingClientRect());
        const out = (part) => part.scrollWidth > part.clientWidth + 1 || part.scrollHeight > part.clientHeight + 1;
        if (boxes.some((box, n) => n && box.left < boxes[n - 1].right) || out(parts[1])) wrong.push(label);
    }
    return wrong;
}"""


async def top(talker: Talker) -> float:
    """Return how far the conversation is scrolled."""
    return float(await talker.page.locator("#scroll").evaluate("node => node.scrollTop"))


async def test_the_spoken_word_is_in_view(visit: Visit, server: FakeRealtime) -> None:
    """Of an answer longer than the view what is being spoken is seen, until somebody scrolls to another place."""
    server.script.answers = [" ".join([ANSWER] * 16)]
    server.script.answer_s = 24
    server.script.marks = True
    talker = await visit(viewport=LOW)
    await talker.type("When are you open?")
    answer = talker.answers.first
    await expect(answer.locator(HEARD)).to_contain_text("We")
    assert await talker.page.evaluate(IN_VIEW)
    await expect(answer.locator(HEARD)).to_contain_text(" ".join([ANSWER] * 3))
    assert await talker.page.evaluate(IN_VIEW)
    assert await top(talker) > 0

    await talker.page.locator("#scroll").evaluate("node => node.scrollTop = 5")
    await expect(answer.locator(HEARD)).to_contain_text(" ".join([ANSWER] * 4))
    assert await top(talker) == 5
    await talker.page.locator("#scroll").evaluate("node => node.scrollTop = node.scrollHeight")
    await talker.type("And on Sunday?")
    await expect(talker.turns.nth(1)).to_be_in_viewport()


async def test_the_controls_are_apart(visit: Visit) -> None:
    """Whatever the width and the label, no control lies over another, and the button holds its label."""
    talker = await visit()
    for width in (320, 360, 390, 480, 600, 761, 820, 900, 1000, 1140, 1180, 1240, 1280, 1920):
        await talker.page.set_viewport_size({"width": width, "height": 800})
        assert await talker.page.evaluate(APART, LABELS) == [], width


async def test_a_file_is_read(visit: Visit, server: FakeRealtime, tmp_path: Path) -> None:
    """While a file is decoded that is shown; whoever stops it then hears no more of it."""
    talker = await visit(SLOWLY)
    playing, clock = talker.page.locator("#playing"), talker.page.locator("#playing-clock")
    for name in ("first.wav", "second.wav"):
        await talker.page.locator("#file").set_input_files(wav(tmp_path / name, tone(1.2)))
        await expect(talker.page.locator("#playing-name")).to_have_text(name)
        await expect(clock).to_have_text("Reading it…")
        await talker.until("() => Boolean(window.decode)")
        if name == "first.wav":
            await playing.get_by_role("button", name="Stop").click()
            await expect(playing).to_be_hidden()
        await talker.page.evaluate("() => { window.decode(); window.decode = null; }")

    await expect(clock).to_have_text("0:01 / 0:01")
    await expect(talker.turns.locator(HEARD)).to_have_text(["when are you open on Saturday"])


async def test_a_file_dropped_beside_the_panel(visit: Visit) -> None:
    """Wherever a file is dropped, the browser does not leave the page for it."""
    talker = await visit()
    assert await talker.page.evaluate(DROP, "footer")
    await expect(talker.banner).to_contain_text("cannot decode")


async def test_escape_closes_the_settings(visit: Visit, server: FakeRealtime) -> None:
    """Escape closes the settings, puts the focus back to their button, and leaves the answer alone."""
    talker = await visit()
    await talker.type("When are you open?")
    await expect(talker.answers.first.locator(HEARD)).to_contain_text("We")
    await talker.page.locator("#settings summary").click()
    await talker.page.get_by_label("Answers are").focus()
    await talker.page.keyboard.press("Escape")

    await expect(talker.page.locator("#settings summary")).to_be_focused()
    await expect(talker.page.get_by_label("Answers are")).to_be_hidden()
    assert not server.session.of("response.cancel")
    await talker.page.keyboard.press("Escape")
    await told(server, "response.cancel")
    await expect(talker.answers.first.locator(COMING)).not_to_have_text("")
