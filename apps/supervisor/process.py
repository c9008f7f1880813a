"""One worker as a process of its own: started, listened to, told its identity, and seen to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence

from apps.supervisor.pipes import Sender, lines
from apps.supervisor.watchdog import Patience, Watchdog
from apps.supervisor.words import Beat, Failed, Measure, Metrics, Phase, Take, line, word_of
from pipeline.errors import UndecodableMessage

log = logging.getLogger(__name__)

WRONG_SETTING = 2
"""The exit status of a program that was told something wrong."""
TAIL = 4
LINGER_S = 5.0
MEASURE_S = 1.0

Told = Callable[["Worker", bytes], None]
"""(a worker, a line of its output)"""


class Worker:
    """A process that was started as a blank: it loads what it needs, and then waits for `take`.

    `name` is what its lines in the log begin with; `warm` is done once it waits, and `gone`, with the reason, once it
    is dead for sure.
    """

    def __init__(self, stage: str, process: asyncio.subprocess.Process, orders: Sender, patience: Patience) -> None:
        self.pid = process.pid
        self.name = f"{stage}[{self.pid}]"
        self.identity = ""
        self.since = time.time()
        self.born = time.monotonic()
        self.watchdog = Watchdog(patience, self.born)
        self.failed: Failed | None = None
        self.served = False
        self.blamed = ""
        self.warm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._process = process
        self._orders = orders
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._measured: asyncio.Future[str] | None = None

    @property
    def beat(self) -> Beat:
        """The last that was heard of it."""
        return self.watchdog.beat

    @property
    def phase(self) -> Phase:
        """What it does."""
        return self.beat.phase

    @property
    def alive(self) -> bool:
        """Whether the process is known to be there."""
        return not self.gone.done()

    def take(self, identity: str, name: str) -> None:
        """Let it join its group as `identity`, which nobody else may have; `name` is what people call that."""
        assert not self.identity
        self.identity = identity
        self.name = f"{name}[{self.pid}]"
        self._orders.send(line(Take(identity)))

    def terminate(self) -> None:
        """Ask it to finish what it has in hand, and to end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self, why: str) -> None:
        """Kill -9, which ends a stopped process, too. It is dead when `gone` is done, and not before."""
        self.blamed = self.blamed or why
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def measure(self) -> str:
        """Its metrics; nothing if it does not tell them in time."""
        if self._measured is None or self._measured.done():
            self._measured = asyncio.get_running_loop().create_future()
            self._orders.send(line(Measure()))
        done, _ = await asyncio.wait([self._measured], timeout=MEASURE_S)
        return self._measured.result() if done else ""

    async def live(self, beats: int, output: int, told: Told) -> None:
        """Listen to it until it is dead and all that it said has been passed on."""
        listening = [asyncio.create_task(self._listen(beats)), asyncio.create_task(self._pass_on(output, told))]
        try:
            code = await self._ended()
            self._orders.close()
            # its last word may say more than its exit status, and is waiting in the pipe
            await asyncio.wait(listening[:1], timeout=LINGER_S / 100)
            self.gone.set_result(self._reason(code))
            await asyncio.wait(listening, timeout=LINGER_S)
        finally:
            for task in listening:
                task.cancel()
            await asyncio.gather(*listening, return_exceptions=True)

    async def _ended(self) -> int:
        """Its exit status. Whoever does not wait for that, ends it."""
        try:
            return await self._process.wait()
        except asyncio.CancelledError:
            self.kill("its supervisor has ended")
            await self._process.wait()
            raise

    def _reason(self, code: int) -> str:
        if self.failed is None and code == WRONG_SETTING and self._tail:
            self.failed = Failed(self._tail[-1].partition("penstock: ")[2] or self._tail[-1], lasting=True)
        if self.blamed:
            return self.blamed
        if self.failed is not None:
            return self.failed.why
        if code < 0:
            return f"it was ended by {signal.Signals(-code).name}"
        return f"it ended with status {code}"

    async def _listen(self, fd: int) -> None:
        async with contextlib.aclosing(lines(fd)) as words:
            async for text in words:
                try:
                    self._hear(text)
                except UndecodableMessage as error:
                    log.warning("%s: %s", self.name, error)

    def _hear(self, text: bytes) -> None:
        match word_of(text):
            case Beat() as beat:
                self.watchdog.hear(beat, time.monotonic())
                self.served = self.served or beat.phase == "serving"
                if beat.phase != "loading" and not self.warm.done():
                    self.warm.set_result(None)
            case Failed() as failed:
                self.failed = failed
            case Metrics(text=metrics):
                if self._measured is not None and not self._measured.done():
                    self._measured.set_result(metrics)

    async def _pass_on(self, fd: int, told: Told) -> None:
        async with contextlib.aclosing(lines(fd, longest=1 << 16)) as said:
            async for one in said:
                if one.strip():
                    self._tail.append(one.decode("utf-8", "replace"))
                told(self, one)


async def start(stage: str, command: Sequence[str], patience: Patience, *, lock: int) -> tuple[Worker, int, int]:
    """Start a worker by `command`, to which the number of its pipe is added; gives its beats and its output, too.

    Its standard input brings orders, and ends with this process. It inherits the descriptor `lock`. A session of its
    own keeps the terminal's Ctrl-C from it: its supervisor says when to stop.
    """
    (orders, orders_in), (beats, beats_in), (output, output_in) = os.pipe(), os.pipe(), os.pipe()
    sender = await Sender.on(orders_in)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            str(beats_in),
            stdin=orders,
            stdout=output_in,
            stderr=output_in,
            pass_fds=(beats_in, lock),
            start_new_session=True,
        )
    except BaseException:  # a cancel, too, must leave no descriptor open
        sender.close()
        os.close(beats)
        os.close(output)
        raise
    finally:
        for fd in (orders, beats_in, output_in):
            os.close(fd)
    return Worker(stage, process, sender, patience), beats, output
