"""What people write first: a server that transcribes the whole buffer anew every second with faster-whisper.

A client sends PCM16 at 16 kHz as binary frames and `end` as text; it gets `{"text": …}` each time, and at the end
`{"text": …, "final": true}`. Run as a program: `python -m apps.bench.voice_plain FOLDER PORT`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from websockets.asyncio.server import ServerConnection, serve

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

EVERY_S = 1.0
POLL_S = 0.02


async def transcribe(model: WhisperModel, lock: asyncio.Lock, buffer: bytes) -> str:
    """All of `buffer`, one after another: the model is one."""
    async with lock:
        return await asyncio.to_thread(_transcribe, model, buffer)


def _transcribe(model: WhisperModel, buffer: bytes) -> str:
    sound = np.frombuffer(buffer, np.int16).astype(np.float32) / 32768
    segments, _ = model.transcribe(sound, language="en")
    return "".join(segment.text for segment in segments).strip()


async def handle(model: WhisperModel, lock: asyncio.Lock, socket: ServerConnection) -> None:
    """Serve one client."""
    buffer = bytearray()
    again = asyncio.create_task(_again_and_again(model, lock, buffer, socket))
    try:
        async for frame in socket:
            if isinstance(frame, bytes):
                buffer += frame
                continue
            again.cancel()
            await asyncio.wait([again])
            text = await transcribe(model, lock, bytes(buffer))
            await socket.send(json.dumps({"text": text, "final": True}))
            return
    finally:
        again.cancel()
        await asyncio.wait([again])


async def _again_and_again(
    model: WhisperModel, lock: asyncio.Lock, buffer: bytearray, socket: ServerConnection
) -> None:
    due = time.perf_counter() + EVERY_S
    while True:
        await asyncio.sleep(max(POLL_S, due - time.perf_counter()))
        due = time.perf_counter() + EVERY_S
        if buffer:
            await socket.send(json.dumps({"text": await transcribe(model, lock, bytes(buffer))}))


async def main(folder: str, port: int, threads: int) -> None:
    """Serve until the program is ended."""
    from faster_whisper import WhisperModel

    model = WhisperModel(folder, device="cpu", compute_type="auto", cpu_threads=threads)
    lock = asyncio.Lock()
    async with serve(partial(handle, model, lock), "127.0.0.1", port, compression=None, max_size=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
