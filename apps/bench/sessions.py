"""Many sessions at once over one gateway with an instant engine, beside a bare `websockets` server in the same run.

The peer sends as many frames of the same size to as many clients, and does nothing else: what is between the two is the
gateway, the stages, the protocol and the memory bus. Clients and servers share this one process.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from apps.bench.client import Asker, Unanswered
from apps.bench.report import told
from apps.local import piped
from apps.parts import loaded
from apps.settings import Settings
from pipeline.memory import MemoryBus

QUESTION = "What are your opening hours?"
PATIENCE_S = 120.0


class Load(NamedTuple):
    """How much to ask: `turns` answers of `tokens` tokens to each of `sessions` sessions, `rounds` times."""

    sessions: int = 200
    turns: int = 5
    tokens: int = 32
    rounds: int = 5


class Round(NamedTuple):
    """What came in one round: `frames` of `size` characters on average, in `seconds`."""

    frames: int
    size: int
    seconds: float

    @property
    def rate(self) -> float:
        """Frames in a second."""
        return self.frames / self.seconds


async def through_the_pipe(askers: list[Asker], load: Load) -> Round:
    """All sessions ask at once, each one question after another.

    Raises:
        Unanswered: an answer is missing, or its text is not what all others say.
    """
    frames, characters = _received(askers)
    begun = time.perf_counter()
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(_ask(asker, load)) for asker in askers]
    seconds = time.perf_counter() - begun
    if len(texts := {text for task in asking for text in task.result()}) != 1:
        raise Unanswered(f"the same question and seed got {len(texts)} different answers")
    now, characters_now = _received(askers)
    return Round(now - frames, (characters_now - characters) // max(1, now - frames), seconds)


async def _ask(asker: Asker, load: Load) -> list[str]:
    return [(await asker.ask(QUESTION, tokens=load.tokens, seed=7)).text for _ in range(load.turns)]


def _received(askers: list[Asker]) -> tuple[int, int]:
    return sum(asker.frames for asker in askers), sum(asker.characters for asker in askers)


@asynccontextmanager
async def bare(load: Load, like: Round) -> AsyncGenerator[str, None]:
    """A bare server that answers a frame with as many frames of the same size as an answer has."""
    per_answer = like.frames // (load.sessions * load.turns)

    async def answer(socket: ServerConnection) -> None:
        async for _ in socket:
            for _ in range(per_answer):
                await socket.send("x" * like.size)
                await asyncio.sleep(0)

    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def without_the_pipe(url: str, load: Load, like: Round) -> Round:
    """The same number of frames from the bare server."""
    per_answer = like.frames // (load.sessions * load.turns)
    sockets = [await connect(url, compression=None) for _ in range(load.sessions)]

    async def ask(number: int) -> None:
        for _ in range(load.turns):
            await sockets[number].send("?")
            for _ in range(per_answer):
                await sockets[number].recv()

    begun = time.perf_counter()
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        for number in range(load.sessions):
            tasks.create_task(ask(number))
    seconds = time.perf_counter() - begun
    for socket in sockets:
        await socket.close()
    return Round(per_answer * load.turns * load.sessions, like.size, seconds)


async def sessions(settings: Settings, load: Load, *, path: Path | None) -> None:
    """Measure in alternating rounds, and tell."""
    roomy = replace(
        settings.gateway,
        max_sessions=2 * load.sessions,
        max_sessions_per_client=2 * load.sessions,
        requests_per_s=1e6,
        requests_burst=1_000_000,
    )
    settings = replace(settings, gateway=roomy)
    ours: list[Round] = []
    theirs: list[Round] = []
    model = replace(settings.model, name="instant")
    async with MemoryBus() as bus, loaded(model) as parts, piped(bus, parts, settings) as url:
        askers = [await Asker.connected(url) for _ in range(load.sessions)]
        sample = await through_the_pipe(askers, load)
        memory = [_resident_mb()]
        async with bare(load, sample) as peer:
            await without_the_pipe(peer, load, sample)
            for _ in range(load.rounds):
                ours.append(await through_the_pipe(askers, load))
                theirs.append(await without_the_pipe(peer, load, sample))
                memory.append(_resident_mb())
        for asker in askers:
            await asker.close()
    _tell(load, ours, theirs, memory, path)


def _tell(load: Load, ours: list[Round], theirs: list[Round], memory: list[float], path: Path | None) -> None:
    ratios = sorted(one.rate / other.rate for one, other in zip(ours, theirs, strict=True))
    result = {
        "bench": "sessions",
        "load": load._asdict(),
        "answers": load.sessions * load.turns * load.rounds,
        "frames": sum(one.frames for one in ours),
        "frames_per_s": median([one.rate for one in ours]),
        "bare_frames_per_s": median([one.rate for one in theirs]),
        "ratio": {"median": median(ratios), "least": ratios[0], "most": ratios[-1]},
        "resident_mb": memory,
    }
    told(
        result,
        [],
        [
            f"{load.sessions} sessions at once: all {result['answers']} answers came, whole and in order",
            (
                f"{result['frames_per_s']:,.0f} frames/s through the pipe, "
                f"{result['bare_frames_per_s']:,.0f} from a bare websockets server in the same run: "
                f"{median(ratios):.2f} of it ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            ),
            f"resident memory after each round: {', '.join(f'{one:.0f}' for one in memory)} MB",
        ],
        path,
    )


def _resident_mb() -> float:
    """Memory of this process that is not swapped out."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
