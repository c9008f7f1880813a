"""What the voice bench compares with: a plain loop, and whisperlivekit's protocol."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from apps.bench import voice_peers, voice_plain
from apps.bench.voice_clips import Clip
from apps.bench.voice_peers import PlainLoop, WhisperLiveKit, at_16k, text_of
from tests.apps.voice.sounds import silence, tone

DEADLINE_S = 20


def clip(seconds: float) -> Clip:
    """A clip in which something is heard, whatever it is."""
    return Clip("x", "x", tone(seconds) + silence(0.1), (), seconds)


async def test_the_plain_loop_transcribes_all_it_has_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every so often, and once more at the end."""
    monkeypatch.setattr(voice_plain, "EVERY_S", 0.1)

    def transcribe(sound: Any, language: str) -> tuple[list[SimpleNamespace], None]:
        return [SimpleNamespace(text=f" {len(sound) // 1600} tenths")], None

    handle = partial(voice_plain.handle, SimpleNamespace(transcribe=transcribe), asyncio.Lock())
    async with asyncio.timeout(DEADLINE_S), serve(handle, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        heard = await PlainLoop(url).hear(clip(0.4))
        async with connect(url) as socket:
            await socket.send(b"\0\0" * 1600)
            assert json.loads(await socket.recv()) == {"text": "1 tenths"}
    assert heard.text == "10 tenths"
    assert heard.final >= 0.5
    assert len(heard.shown) >= 2


def test_what_whisperlivekit_shows() -> None:
    """Lines, and after them what is not sure; silence has no text, and other messages say nothing of it."""
    lines_ = [{"text": " how much"}, {"speaker": -2, "text": None}, {"text": " is it "}]
    assert text_of({"lines": lines_, "buffer_transcription": " now"}) == "how much is it now"
    assert text_of({"lines": [], "buffer_transcription": ""}) == ""
    assert text_of({"type": "config"}) is None


async def test_whisperlivekit_is_waited_for_until_it_has_heard_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stream is ended after the silence, and its last change is its final, however late; what follows is none."""
    monkeypatch.setattr(voice_peers, "TAIL_S", 0.1)
    got: list[str | bytes] = []

    async def handle(socket: ServerConnection) -> None:
        await socket.send(json.dumps({"type": "config"}))
        async for frame in socket:
            got.append(frame)
            if frame == b"":
                break
            if len(got) == 10:
                await socket.send(json.dumps({"lines": [], "buffer_transcription": "how"}))
        for text in ("how much", "how much is it", "how much is it"):
            await socket.send(json.dumps({"lines": [{"text": text}], "buffer_transcription": ""}))
            await asyncio.sleep(0.05)
        await socket.send(json.dumps({"type": "ready_to_stop"}))
        await socket.wait_closed()

    async with asyncio.timeout(DEADLINE_S), serve(handle, "127.0.0.1", 0) as server:
        heard = await WhisperLiveKit(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}").hear(clip(0.4))
    sent = sum(len(frame) for frame in got) / 2 / voice_peers.THEIR_RATE
    assert sent == pytest.approx(voice_peers.LEAD_S + 0.5 + 0.1, abs=0.15)
    assert (heard.text, [shown.text for shown in heard.shown]) == ("how much is it", ["how", "how much"])
    assert heard.final >= 0.6


def test_the_peers_get_the_same_sound() -> None:
    """At 16 kHz, as long and as loud."""
    sound = at_16k(tone(0.5))
    assert len(sound) / 2 / 16_000 == pytest.approx(0.5, abs=0.01)
