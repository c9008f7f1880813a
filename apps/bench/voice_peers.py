"""What our transcription is compared with, each a server of its own in real time: a plain loop, and whisperlivekit.

The plain loop transcribes all it has every second, and is told where a clip ends. whisperlivekit finds that by itself,
and has no word for a final transcript: its last change is taken for it. After a second of silence its stream is ended
as its own client does it, and nothing is over before it says that all has been transcribed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from apps.bench.voice_clips import Clip
from apps.bench.voice_ours import PATIENCE_S
from apps.bench.voice_score import Heard, Shown
from apps.broker.ports import unused_port
from apps.chaos.program import NotReady, Program, fetched, plain_environment
from pipeline.voice import RATE
from stages.preprocess.speech.resample import Resampler

THEIR_RATE = 16_000
PIECE_S = 0.02
LEAD_S = 0.5
"""Silence before a clip, which whoever speaks into a microphone leaves, too; times count from after it."""
READY_S, STOP_S, POLL_S = 120.0, 10.0, 0.1
TAIL_S = 1.0
"""Silence after a clip for whisperlivekit, whose VAD wants a tenth of it."""
END = b""
"""What ends a stream of whisperlivekit, and what it says when all of it has been transcribed."""
ENDED = "ready_to_stop"
LEAD = bytes(2 * int(RATE * LEAD_S))
PEER = Path(sys.prefix) / "peer" / "bin" / "python"
"""Where `make peer` puts it."""


class Contestant(Protocol):
    """Hears a clip that is spoken in real time."""

    @property
    def name(self) -> str:
        """What it is called."""

    async def hear(self, clip: Clip) -> Heard:
        """Say `clip` to it, and see what comes."""


def at_16k(sound: bytes) -> bytes:
    """PCM16 at 24 kHz as PCM16 at 16 kHz, by the same filter as our speech stage."""
    block = RATE // 10
    samples = np.frombuffer(sound, np.int16).astype(np.float32)
    padded = np.pad(samples, (0, -len(samples) % block))
    resampler = Resampler(RATE, THEIR_RATE, block)
    turned = [resampler.turn(padded[at : at + block]) for at in range(0, len(padded), block)]
    return np.clip(np.rint(np.concatenate(turned)), -32768, 32767).astype("<i2").tobytes()


async def send_in_real_time(socket: ClientConnection, sound: bytes, begun: float) -> None:
    """Send `sound` at 16 kHz, no piece before it was spoken."""
    size = int(PIECE_S * THEIR_RATE) * 2
    for at in range(0, len(sound), size):
        await asyncio.sleep(begun + (at + size) / 2 / THEIR_RATE - time.perf_counter())
        await socket.send(sound[at : at + size])


class PlainLoop:
    """See `voice_plain.py`."""

    name = "re-transcribing loop"

    def __init__(self, url: str) -> None:
        self._url = url

    async def hear(self, clip: Clip) -> Heard:
        """See `Contestant`; the clip's end is told, as by a button."""
        shown: list[Shown] = []
        async with connect(self._url, compression=None) as socket:
            begun = time.perf_counter() + LEAD_S
            sending = asyncio.create_task(self._send(socket, clip, begun))
            try:
                async for frame in socket:
                    told, at = json.loads(frame), time.perf_counter() - begun
                    if told.get("final"):
                        return Heard(tuple(shown), told["text"], at)
                    shown.append(Shown(at, told["text"]))
            finally:
                sending.cancel()
                await asyncio.wait([sending])
        raise NotReady("the plain loop hung up")

    async def _send(self, socket: ClientConnection, clip: Clip, begun: float) -> None:
        await send_in_real_time(socket, at_16k(LEAD + clip.sound), begun - LEAD_S)
        await socket.send("end")


class WhisperLiveKit:
    """Its own server, with LocalAgreement and faster-whisper."""

    name = "whisperlivekit"

    def __init__(self, url: str) -> None:
        self._url = url

    async def hear(self, clip: Clip) -> Heard:
        """See `Contestant`; after the clip there is silence, by which its speech ends."""
        shown: list[Shown] = []
        async with connect(f"{self._url}/asr?language=en", compression=None) as socket:
            begun = time.perf_counter() + LEAD_S
            sending = asyncio.create_task(self._send(socket, clip, begun))
            try:
                await self._read(socket, shown, begun, begun + clip.seconds + TAIL_S + PATIENCE_S)
            finally:
                sending.cancel()
                await asyncio.wait([sending])
        last = shown[-1] if shown else Shown(clip.seconds + PATIENCE_S, "")
        return Heard(tuple(shown[:-1]), last.text, last.at)

    async def _send(self, socket: ClientConnection, clip: Clip, begun: float) -> None:
        sound = LEAD + clip.sound + bytes(2 * int(RATE * TAIL_S))
        await send_in_real_time(socket, at_16k(sound), begun - LEAD_S)
        await socket.send(END)

    async def _read(self, socket: ClientConnection, shown: list[Shown], begun: float, until: float) -> None:
        """Note every change, until there is none any more."""
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + until - time.perf_counter()):
                async for frame in socket:
                    told = json.loads(frame)
                    if told.get("type") == ENDED:
                        return
                    text = text_of(told)
                    if text is not None and text != (shown[-1].text if shown else ""):
                        shown.append(Shown(time.perf_counter() - begun, text))
        except TimeoutError:
            return


def text_of(told: dict[str, Any]) -> str | None:
    """What stands on its page after a message: lines, and after them what is not sure; None if it is about no text."""
    if "lines" not in told:
        return None
    lines = [line["text"] for line in told["lines"] if line.get("text")]
    return " ".join(" ".join([*lines, told.get("buffer_transcription") or ""]).split())


@asynccontextmanager
async def plain_loop(model: str, threads: int, folder: Path) -> AsyncGenerator[PlainLoop, None]:
    """The plain loop meanwhile, on `model`; its output goes to `folder`."""
    port = unused_port()
    argv = [sys.executable, "-m", "apps.bench.voice_plain", model, str(port), str(threads)]
    async with _started("plain loop", argv, folder, threads) as program:
        await _answers(program, port)
        yield PlainLoop(f"ws://127.0.0.1:{port}")


@asynccontextmanager
async def whisperlivekit(model: str, threads: int, folder: Path) -> AsyncGenerator[WhisperLiveKit, None]:
    """A whisperlivekit server meanwhile, on `model`."""
    port = unused_port()
    options = {
        "host": "127.0.0.1",
        "port": str(port),
        "backend": "faster-whisper",
        "backend-policy": "localagreement",
        "lan": "en",
        "warmup-file": "",
    }
    told = [part for name, value in {**options, **_named(model)}.items() for part in (f"--{name}", value)]
    argv = [str(PEER), "-m", "whisperlivekit.basic_server", "--pcm-input", *told]
    async with _started("whisperlivekit", argv, folder, threads) as program:
        deadline = time.monotonic() + READY_S
        while (page := await fetched(f"http://127.0.0.1:{port}/health")) is None or not json.loads(page)["ready"]:
            await _wait(program, deadline)
        yield WhisperLiveKit(f"ws://127.0.0.1:{port}")


def _named(model: str) -> dict[str, str]:
    return {"model_dir": model} if Path(model).is_dir() else {"model": model}


def installed() -> bool:
    """Whether whisperlivekit can be measured."""
    return PEER.exists()


@asynccontextmanager
async def _started(name: str, argv: Sequence[str], folder: Path, threads: int) -> AsyncGenerator[Program, None]:
    environment = plain_environment() | {"OMP_NUM_THREADS": str(threads)}
    program = Program(name, argv, folder / f"{name.replace(' ', '-')}.log", environment)
    await program.start()
    try:
        yield program
    finally:
        await program.stop(STOP_S)


async def _answers(program: Program, port: int) -> None:
    """Wait until somebody listens there."""
    deadline = time.monotonic() + READY_S
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await _wait(program, deadline)
        else:
            writer.close()
            return


async def _wait(program: Program, deadline: float) -> None:
    program.refuse_dead()
    if time.monotonic() > deadline:
        raise NotReady(f"{program.name} is not ready after {READY_S:g} s:\n{program.tail()}")
    await asyncio.sleep(POLL_S)
