"""How long after `penstock up` the first token of the first chat comes: the command started anew, several times.

The client knocks from the start and asks as soon as it is let in, so loading, warm-up and the answer all count.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from websockets.exceptions import InvalidHandshake

from apps.bench.client import Asker, Unanswered
from apps.bench.report import spread, table, told

QUESTION = "What are your opening hours?"
PATIENCE_S = 120.0
KNOCK_S = 0.05


async def startup(n: int, options: list[str], *, path: Path | None) -> None:
    """Start it `n` times with `options`, and tell.

    Raises:
        Unanswered: it ended, or did not answer within two minutes.
    """
    seconds = [await first_token(options) for _ in range(n)]
    told(
        {"bench": "startup", "first_token_s": spread(seconds)._asdict()},
        [table("from the command to the first token of the first chat", {"penstock up": spread(seconds)}, unit="s")],
        ["each time a new process with an empty cache; the files are in the system's memory after the first"],
        path,
    )


async def first_token(options: list[str]) -> float:
    """Seconds from the command to the first token."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    begun = time.perf_counter()
    command = [sys.executable, "-m", "apps.cli", "up", "--port", str(port), *options]
    silent = asyncio.subprocess.DEVNULL
    program = await asyncio.create_subprocess_exec(*command, stdout=silent, stderr=silent)
    try:
        async with asyncio.timeout(PATIENCE_S):
            asker = await _let_in(f"ws://127.0.0.1:{port}", program)
            asked = time.perf_counter()
            first = (await asker.ask(QUESTION, tokens=8)).first
            await asker.close()
            return asked - begun + first
    except TimeoutError as error:
        raise Unanswered(f"no answer within {PATIENCE_S:g} s of the command") from error
    finally:
        if program.returncode is None:
            program.terminate()
        await program.wait()


async def _let_in(url: str, program: asyncio.subprocess.Process) -> Asker:
    while program.returncode is None:
        with suppress(OSError, InvalidHandshake):
            return await Asker.connected(url)
        await asyncio.sleep(KNOCK_S)
    raise Unanswered(f"`penstock up` ended with status {program.returncode}")
