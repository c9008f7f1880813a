"""Speech from a server with OpenAI's endpoint, through the official client and a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pipeline.errors import SynthesisFailed
from pipeline.secret import Secret
from pipeline.voice import RATE
from stages.postprocess.speak.server import ServerSynthesizer
from stages.postprocess.speak.synthesizer import Sound

TEXT = "Hello there, how are you?"
SAMPLES = np.arange(RATE, dtype="<i2")


@dataclass
class FakeSpeech:
    """A second of sound in odd chunks, or what goes wrong; remembers what it was asked and who hung up."""

    status: int = 200
    kind: str = "audio/pcm"
    data: bytes = SAMPLES.tobytes()
    stall_after: int = 1 << 30
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    open: int = 0
    url: str = ""

    async def speech(self, request: Request) -> Response:
        """The endpoint."""
        self.asked.append(await request.json())
        self.keys.append(request.headers["authorization"])
        if self.status != 200:
            return JSONResponse({"error": {"message": "the key sk-123 is wrong"}}, self.status)
        return StreamingResponse(self._chunks(), media_type=self.kind)

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        self.open += 1
        try:
            for at in range(0, len(self.data), 4_801):
                if at >= self.stall_after:
                    await asyncio.sleep(60)
                yield self.data[at : at + 4_801]
                await asyncio.sleep(0.002)
        finally:
            self.open -= 1


class _Quiet(uvicorn.Server):
    def capture_signals(self) -> Any:
        return nullcontext()


@asynccontextmanager
async def serving(fake: FakeSpeech) -> AsyncGenerator[FakeSpeech, None]:
    """`fake` on a free port meanwhile."""
    app = Starlette(routes=[Route("/v1/audio/speech", fake.speech, methods=["POST"])])
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    fake.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    server = _Quiet(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield fake
    finally:
        server.should_exit = True
        await asyncio.wait([task], timeout=5)
        listener.close()


async def said(synthesizer: ServerSynthesizer, voice: str = "", speed: float = 1.0) -> list[Sound]:
    """What comes of TEXT."""
    async with asyncio.timeout(10), aclosing(synthesizer.say(TEXT, voice, speed)) as sounds:
        return [sound async for sound in sounds]


async def test_sound_comes_as_it_is_made() -> None:
    """All samples in their order, in several pieces, with marks that rise and lie within the text."""
    async with serving(FakeSpeech()) as fake, ServerSynthesizer(fake.url, key=Secret("sk-1")) as synthesizer:
        sounds = await said(synthesizer, "marin", 1.25)

    assert len(sounds) > 3
    assert np.concatenate([sound.samples for sound in sounds]).tolist() == SAMPLES.tolist()
    marks = [mark for sound in sounds for mark in sound.marks]
    assert [place for place, _ in marks] == [6, 13, 17][: len(marks)]
    assert len(marks) >= 2
    assert fake.keys == ["Bearer sk-1"]
    assert fake.asked == [{"model": "tts-1", "voice": "marin", "input": TEXT, "response_format": "pcm", "speed": 1.25}]


@pytest.mark.parametrize(
    ("own", "asked", "used"),
    [("", "Ash", "ash"), ("", "", "alloy"), ("", "somebody", "alloy"), ("af_heart", "ash", "af_heart")],
)
async def test_whose_voice_is_asked_for(own: str, asked: str, used: str) -> None:
    """The configured one, or else the client's if OpenAI has it, or else the usual one."""
    async with serving(FakeSpeech()) as fake, ServerSynthesizer(fake.url, voice=own, model="kokoro") as synthesizer:
        await said(synthesizer, asked)

    assert (fake.asked[0]["voice"], fake.asked[0]["model"]) == (used, "kokoro")


@pytest.mark.parametrize(
    ("fake", "why"),
    [
        (FakeSpeech(status=401), "401"),
        (FakeSpeech(kind="text/html"), "text/html"),
        (FakeSpeech(kind="application/json"), "application/json"),
        (FakeSpeech(data=b""), "no sound"),
        (FakeSpeech(stall_after=0), "too slow"),
        (FakeSpeech(stall_after=9_000), "too slow"),
    ],
)
async def test_what_a_server_does_wrong(fake: FakeSpeech, why: str) -> None:
    """Each is told as what it is, and without what the server says: that may have the key in it."""
    async with serving(fake), ServerSynthesizer(fake.url, first_s=2.0, next_s=0.5) as synthesizer:
        with pytest.raises(SynthesisFailed, match=why) as failure:
            await said(synthesizer)

    assert "sk-123" not in str(failure.value)


async def test_server_that_is_not_there() -> None:
    """It is told that it cannot be reached."""
    async with ServerSynthesizer("http://127.0.0.1:9/v1") as synthesizer:
        with pytest.raises(SynthesisFailed, match="cannot be reached"):
            await said(synthesizer)


async def test_giving_up_hangs_up() -> None:
    """Who stops listening closes the connection; the server notices."""
    async with serving(FakeSpeech(data=bytes(20_000_000))) as fake, ServerSynthesizer(fake.url) as synthesizer:
        async with aclosing(synthesizer.say(TEXT, "", 1.0)) as sounds:
            await anext(sounds)
        async with asyncio.timeout(5):
            while fake.open:  # noqa: ASYNC110 (the other side of a socket)
                await asyncio.sleep(0.01)
