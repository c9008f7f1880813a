"""The voice page in a real browser: a microphone that is a file, a server whose words are known."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from tests.apps.voice.conftest import Visit
from tests.apps.voice.fake_realtime import FakeRealtime
from tests.apps.voice.sounds import RATE, tone, wav

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.slow, pytest.mark.timeout(60)]

ANSWER = "We are open Monday to Friday from nine to six."
HEARD = ".said .heard"
COMING = ".said .coming"

WATCH = """() => {
    window.seen = [];
    window.announced = [];
    const say = document.querySelector("#say");
    new MutationObserver(() => window.announced.push(say.textContent)).observe(say, { childList: true });
    new MutationObserver(() => {
        const row = document.querySelector(".turn.user");
        if (!row) return;
        const now = `${row.dataset.state}: ${row.querySelector(".said").innerText.replace("You:", "").trim()}`;
        if (now !== window.seen.at(-1)) window.seen.push(now);
    }).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
}"""
STRICT_RATES = """
const join = AudioContext.prototype.createMediaStreamSource;
AudioContext.prototype.createMediaStreamSource = function (stream) {
    if (this.sampleRate === 24000) throw new DOMException("another rate", "NotSupportedError");
    return join.call(this, stream);
};
"""
TAP = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
    if (this instanceof AudioWorkletNode && !this.numberOfInputs && target instanceof AudioDestinationNode) {
        const tap = this.context.createAnalyser();
        connect.call(this, tap);
        window.loudness = () => {
            const samples = new Float32Array(tap.fftSize);
            tap.getFloatTimeDomainData(samples);
            return Math.max(...samples.map(Math.abs));
        };
    }
    return connect.call(this, target, ...rest);
};
"""
LOUDEST_AFTER = """async (ms) => {
    const pause = (ms) => new Promise((done) => setTimeout(done, ms));
    await pause(ms);
    let loudest = 0;
    for (let n = 0; n < 25; n += 1) {
        loudest = Math.max(loudest, window.loudness());
        await pause(20);
    }
    return loudest;
}"""


def refusing(name: str) -> str:
    """Return a script after which there is no microphone, for the reason `name`."""
    return f"navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', '{name}'));"


async def told(server: FakeRealtime, kind: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait until the client has said something of a kind so often, and return it all."""
    async with asyncio.timeout(15):
        while not server.sessions or len(server.session.of(kind)) < count:  # noqa: ASYNC110 - it keeps a list, no event
            await asyncio.sleep(0.02)
    return server.session.of(kind)


async def test_a_conversation_with_an_interruption(visit: Visit, server: FakeRealtime) -> None:
    """Words turn final, the answer is heard word by word, and who cuts in silences it and makes it forget the rest."""
    server.script.words = ["when are you open on Saturday", "and on Sunday"]
    server.script.marks = True
    talker = await visit()
    await talker.page.evaluate(WATCH)
    await talker.start()

    first, answer = talker.turns.first, talker.answers.first
    await expect(first).to_have_attribute("data-state", "final")
    seen = await talker.page.evaluate("window.seen")
    partials = [text.removeprefix("speaking: ") for text in seen if text.startswith("speaking: when")]
    assert partials
    assert all("when are you open on Saturday".startswith(text) for text in partials)
    assert seen[-1] == "final: when are you open on Saturday"
    await expect(first.locator(HEARD)).to_have_text("when are you open on Saturday")
    assert "You said: when are you open on Saturday" in await talker.page.evaluate("window.announced")
    await expect(talker.state).to_have_text("Speaking")
    await expect(answer.locator(HEARD)).to_contain_text("We are open")
    await expect(answer.locator(COMING)).to_contain_text("closed")

    await expect(answer).to_have_attribute("data-state", "cut")
    (truncated,) = await told(server, "conversation.item.truncate")
    item = server.session.items[truncated["item_id"]]["content"][0]
    await expect(answer.locator(HEARD)).to_have_text(item["transcript"])
    await expect(answer.locator(".note")).to_contain_text(f"{truncated['audio_end_ms'] / 1000:.1f} s")
    assert 0 < truncated["audio_end_ms"] < server.session.sent[truncated["item_id"]] / RATE * 1000

    await expect(talker.turns.nth(1).locator(HEARD)).to_have_text("and on Sunday")
    await expect(talker.answers.nth(1).locator(HEARD)).to_contain_text("We")
    for step in ("final", "word", "sound"):
        await expect(talker.page.locator(f"[data-step={step}] .ms")).to_contain_text("ms")
    assert 0 <= int(await talker.page.locator("#silenced").inner_text()) < 2000
    assert await talker.page.locator("#bars li").count() == 2


@pytest.mark.parametrize("script", ["", STRICT_RATES], ids=["24 kHz", "resampled"])
async def test_the_pitch_of_a_microphone(visit: Visit, server: FakeRealtime, script: str) -> None:
    """The server gets the samples at 24 kHz, also where the browser records at the device's rate alone."""
    talker = await visit(script)
    await talker.start()

    await expect(talker.turns.first).to_have_attribute("data-state", "speaking")
    async with asyncio.timeout(15):  # the first pieces are too short to count waves in
        while server.session.hertz != pytest.approx(440, rel=0.05):  # noqa: ASYNC110 - it is a fake that counts
            await asyncio.sleep(0.05)


async def test_resampling(visit: Visit) -> None:
    """A tone comes through as it was, whatever the rate; what is above the reach of the new rate does not."""
    talker = await visit()
    loudness = """async ([from, hertz]) => {
        const { Resampler } = await import("/voice/resample.js");
        const resampler = new Resampler(from, 24000);
        const sine = (n, rate) => Math.sin((2 * Math.PI * hertz * n) / rate);
        const made = [];
        for (let at = 0; at < from; at += 441) {
            const length = Math.min(441, from - at);
            made.push(...resampler.push(Float32Array.from({ length }, (_, n) => sine(at + n, from))));
        }
        const error = made.slice(200).map((value, n) => value - sine(n + 200, 24000));
        const rms = (values) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
        return [made.length, rms(made.slice(200)), rms(error)];
    }"""
    for rate in (44_100, 48_000, 16_000, 8_000):
        count, rms, error = await talker.page.evaluate(loudness, [rate, 1000])
        assert abs(count - 24_000) < 60
        assert rms == pytest.approx(0.7071, abs=0.005)
        assert error < 0.01
    _, rms, _ = await talker.page.evaluate(loudness, [48_000, 15_000])
    assert rms < 0.001


async def test_push_to_talk_with_a_key(visit: Visit, server: FakeRealtime) -> None:
    """Space held is a turn; what is said before and after is not sent, and Escape discards."""
    talker = await visit()
    await talker.push()
    await talker.start()
    await expect(talker.mic).to_have_text("Hold to talk")
    assert server.script.samples == 0
    assert server.session.detection is None

    await talker.page.keyboard.down("Space")
    await expect(talker.mic).to_have_text("Release to send")
    await talker.page.wait_for_timeout(600)
    await talker.page.keyboard.up("Space")

    await expect(talker.turns.locator(HEARD)).to_have_text("when are you open on Saturday")
    await expect(talker.state).to_have_text("Speaking")
    sent = server.script.samples
    assert 0.5 * RATE < sent < 2 * RATE
    await talker.page.keyboard.down("Space")
    await expect(talker.answers.first).to_have_attribute("data-state", "cut")
    await expect(talker.turns).to_have_count(2)
    await talker.page.keyboard.press("Escape")
    await talker.page.keyboard.up("Space")
    await expect(talker.turns).to_have_count(1)
    await told(server, "input_audio_buffer.clear")
    assert len(server.session.of("input_audio_buffer.commit")) == 1


async def test_push_to_talk_by_taps(visit: Visit, server: FakeRealtime) -> None:
    """Who cannot hold the button taps it to begin, and taps it again to send; so does a screen reader's click."""
    talker = await visit()
    await talker.start()
    await talker.push()
    await expect(talker.mic).to_have_text("Hold to talk")
    await talker.mic.click()
    await expect(talker.mic).to_have_text("Tap to send")
    await talker.page.wait_for_timeout(400)
    await talker.mic.click()
    await expect(talker.turns.locator(HEARD)).to_have_count(1)
    await talker.mic.evaluate("node => node.click()")
    await expect(talker.mic).to_have_text("Tap to send")
    await talker.page.wait_for_timeout(400)
    await talker.mic.evaluate("node => node.click()")

    await expect(talker.turns).to_have_count(2)
    assert len(await told(server, "input_audio_buffer.commit", 2)) == 2
    assert len(await told(server, "response.create", 2)) == 2


@pytest.mark.parametrize("mode", ["free", "push"])
async def test_a_file_instead_of_a_microphone(visit: Visit, server: FakeRealtime, tmp_path: Path, mode: str) -> None:
    """A file of any rate is streamed at the pace at which it was spoken, and answered; no microphone is asked for."""
    file = wav(tmp_path / "question.wav", tone(1.2, rate=44_100), rate=44_100, channels=2)
    talker = await visit(refusing("NotAllowedError"))
    if mode == "push":
        await talker.push()
    began = time.monotonic()
    await talker.page.locator("#file").set_input_files(file)

    await expect(talker.page.locator("#playing-name")).to_have_text("question.wav")
    await expect(talker.turns.locator(HEARD)).to_have_text("when are you open on Saturday")
    assert time.monotonic() - began > 1.2
    await expect(talker.answers.locator(HEARD)).to_contain_text("We are")
    await expect(talker.page.locator("#playing")).to_be_hidden()
    most = 1.25 if mode == "push" else 3.5
    assert 1.15 * RATE < server.script.samples < most * RATE
    await expect(talker.banner).to_be_hidden()


async def test_a_file_that_is_none(visit: Visit, tmp_path: Path) -> None:
    """What the browser cannot decode is named, and nothing is sent."""
    file = tmp_path / "notes.mp3"
    file.write_text("no sound at all")
    talker = await visit()
    await talker.page.locator("#file").set_input_files(file)

    await expect(talker.banner).to_contain_text("cannot decode")
    await expect(talker.page.locator("#playing")).to_be_hidden()


async def test_a_typed_line_cuts_in(visit: Visit, server: FakeRealtime) -> None:
    """Text and speech mix: a line is answered aloud, and the next one stops that answer first."""
    server.script.answers = [ANSWER, "Boots can be returned for thirty days."]
    talker = await visit()
    await talker.type("When are you open?")
    await expect(talker.answers.first.locator(HEARD)).to_contain_text("We are")
    await talker.type("And returns?")

    await expect(talker.answers.first).to_have_attribute("data-state", "cut")
    await expect(talker.answers.nth(1).locator(HEARD)).to_contain_text("Boots can")
    await expect(talker.turns.locator(HEARD)).to_have_text(["When are you open?", "And returns?"])
    await told(server, "conversation.item.retrieve")
    (cancel,) = server.session.of("response.cancel")
    (truncated,) = await told(server, "conversation.item.truncate")
    assert cancel["response_id"].startswith("resp_")
    assert truncated["audio_end_ms"] > 0
    remembered = server.session.items[truncated["item_id"]]["content"][0]["transcript"]
    await expect(talker.answers.first.locator(HEARD)).to_have_text(remembered)


async def test_silence_is_silence(visit: Visit, server: FakeRealtime) -> None:
    """Once an answer is stopped nothing of it comes out of the loudspeaker any more, though much of it was there."""
    server.script.lead_s = 3.0
    talker = await visit(TAP)
    await talker.type("When are you open?")
    await expect(talker.answers.locator(HEARD)).to_contain_text("We")
    await talker.until("() => window.loudness() > 0.01")
    await talker.page.keyboard.press("Escape")

    await expect(talker.answers).to_have_attribute("data-state", "cut")
    assert await talker.page.evaluate(LOUDEST_AFTER, 150) == 0


async def test_stop_and_an_answer_heard_to_its_end(visit: Visit, server: FakeRealtime) -> None:
    """Stop silences an answer; one that was heard to its end is not cut by what comes after it."""
    server.script.answer_s = 0.5
    talker = await visit()
    stop = talker.page.get_by_role("button", name="Stop the answer")
    await talker.type("When are you open?")
    await expect(talker.answers.first).to_have_attribute("data-state", "done")
    await expect(stop).to_be_hidden()
    await expect(talker.answers.first.locator(COMING)).to_have_text("")
    server.script.answer_s = 6.0
    await talker.type("And on Sunday?")
    await expect(talker.answers.nth(1).locator(HEARD)).to_contain_text("We")
    await stop.click()

    await expect(talker.answers.nth(1)).to_have_attribute("data-state", "cut")
    await expect(stop).to_be_hidden()
    (truncated,) = await told(server, "conversation.item.truncate")
    done = [event["response"]["status"] for event in server.session.told if event["type"] == "response.done"]
    assert done == ["completed", "cancelled"]
    assert truncated["item_id"] in server.session.sent
    await expect(talker.answers.first).to_have_attribute("data-state", "done")
