"""The supervisor: slots keep so many processes alive, seats are the ids, and whoever is warm takes a free seat.

Every worker starts as a blank, those of the first minute, too; so a standby is nothing but a blank that no seat needs
yet. A dead worker's slot starts another, and its seat is given to the next that is warm, which is at once where there
is a standby.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from apps.supervisor.backoff import Backoff
from apps.supervisor.process import Told, Worker, start
from apps.supervisor.watchdog import Patience
from pipeline.errors import WorkersFailed

log = logging.getLogger(__name__)

HEAD_START_S = 1.0
"""A standby that takes over has the processors for so long before its own successor begins to load."""
TICK_S = 0.25
LATE_S = 1.0
"""A tick that comes so much later found the supervisor itself asleep: what it did not hear is nobody's fault."""
LINGER_S = 10.0
"""What a worker is given beyond its drain's bound: for the last commit, and for leaving."""


@dataclass(frozen=True)
class Plan:
    """What to supervise. Times in seconds.

    `command` starts a worker of `stage`; seat n has the id `base`-n. A worker that is told to stop has `drain_s`.
    """

    stage: str
    base: str
    command: Sequence[str]
    replicas: int
    standby: int
    patience: Patience
    first_s: float
    most_s: float
    settled_s: float
    drain_s: float

    def backoff(self) -> Backoff:
        """A fresh count of failures."""
        return Backoff(self.first_s, self.most_s, self.settled_s)


class Slot:
    """Room for one process. `until` is when the next is started (monotonic), while there is none."""

    def __init__(self, plan: Plan) -> None:
        self.backoff = plan.backoff()
        self.worker: Worker | None = None
        self.until = 0.0
        self.hopeless: str | None = None
        """Why the first of all its workers could not even start, if it was a lasting reason."""
        self.reason = ""


class Seat:
    """An id, and who has it."""

    def __init__(self, plan: Plan, number: int) -> None:
        self.name = f"{plan.stage}-{number}"
        self.identity = f"{plan.base}-{number}"
        self.backoff = plan.backoff()
        self.worker: Worker | None = None
        self.restarts = 0
        self.reason = ""


class Supervisor:
    """Keeps the workers of `plan` alive. `told` is given each line of their output."""

    def __init__(self, plan: Plan, told: Told, *, lock: int) -> None:
        self.plan = plan
        self.since = time.time()
        self.seats = [Seat(plan, number) for number in range(plan.replicas)]
        self.slots = [Slot(plan) for _ in range(plan.replicas + plan.standby)]
        self._stopping = asyncio.Event()
        self._told = told
        self._lock = lock
        self._warm: asyncio.Queue[Worker] = asyncio.Queue()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep them alive until `stop`, then let all of them finish what they have in hand.

        Raises:
            WorkersFailed: not one could start, all for the same lasting reason.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                slots = [tasks.create_task(self._keep_slot(slot)) for slot in self.slots]
                others = [tasks.create_task(self._keep_seat(seat)) for seat in self.seats]
                others.append(tasks.create_task(self._watch()))
                await stop.wait()
                await self._drain()
                await asyncio.wait(slots, timeout=LINGER_S)  # for the last lines of their workers' output
                for task in (*slots, *others):
                    task.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group

    @property
    def stopping(self) -> bool:
        """Whether all of them are to end."""
        return self._stopping.is_set()

    @property
    def workers(self) -> list[Worker]:
        """The processes that are there."""
        return [slot.worker for slot in self.slots if slot.worker is not None and slot.worker.alive]

    # ---- slots: processes ----------------------------------------------------------------------------------------

    async def _keep_slot(self, slot: Slot) -> None:
        while not self.stopping:
            worker = await self._started(slot)
            wait = slot.backoff.failed(time.monotonic() - worker.born if worker else 0.0)
            if any(other.phase in ("warm", "joining") for other in self.workers):
                wait = max(wait, HEAD_START_S)
            if not (worker and worker.identity):
                self._tell_of(f"a worker of {self.plan.stage}", slot.reason, slot.backoff, wait)
            slot.until = time.monotonic() + wait
            await self._rest(wait)

    async def _started(self, slot: Slot) -> Worker | None:
        """A worker that lived and died in `slot`; None if it could not be started."""
        try:
            worker, beats, output = await start(self.plan.stage, self.plan.command, self.plan.patience, lock=self._lock)
        except OSError as error:
            slot.reason = f"it cannot be started: {error}"
            return None
        slot.worker = worker
        worker.warm.add_done_callback(lambda _: self._warm.put_nowait(worker))
        log.info("%s: started", worker.name)
        if self.stopping:
            worker.terminate()
        try:
            await worker.live(beats, output, self._told)
        finally:
            slot.worker = None
        slot.reason = worker.gone.result()
        if not self.stopping:
            self._note_hopeless(slot, worker)
        return worker

    def _note_hopeless(self, slot: Slot, worker: Worker) -> None:
        """One that cannot start is a matter for patience; if none ever could, all for one reason, it is not."""
        failed = worker.failed
        if slot.hopeless is None:
            slot.hopeless = failed.why if failed and failed.lasting and not worker.served else ""
        reasons = {slot.hopeless for slot in self.slots}
        if len(reasons) == 1 and (why := reasons.pop()):
            self._stopping.set()
            raise WorkersFailed(why)

    def _tell_of(self, who: str, reason: str, backoff: Backoff, wait: float) -> None:
        if self.stopping:
            return
        if backoff.looping:
            log.error(
                "%s dies again and again, %d times in a row by now; the next attempt in %.1f s. The last reason: %s",
                who, backoff.failures, wait, reason,
            )  # fmt: skip
        else:
            log.error("%s has died: %s", who, reason)

    # ---- seats: ids ----------------------------------------------------------------------------------------------

    async def _keep_seat(self, seat: Seat) -> None:
        died = time.monotonic()
        while True:
            worker = await self._blank()
            if self.stopping:
                return
            seat.worker = worker
            before = worker.name
            worker.take(seat.identity, seat.name)
            taken = time.monotonic()
            log.info("%s: %s takes the id %s after %.3f s", seat.name, before, seat.identity, taken - died)
            seat.reason = await asyncio.shield(worker.gone)
            died = time.monotonic()
            seat.worker = None
            seat.restarts += 1
            wait = seat.backoff.failed(died - taken)
            self._tell_of(worker.name, seat.reason, seat.backoff, wait)
            await self._rest(wait)

    async def _blank(self) -> Worker:
        """The next that is warm."""
        while True:
            worker = await self._warm.get()
            if worker.alive:
                return worker

    async def _rest(self, seconds: float) -> None:
        """Sleep, but not on when it is time to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    # ---- all of them ---------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Kill what is wedged."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            asleep, last = now - last > TICK_S + LATE_S, now
            for worker in self.workers:
                if asleep:
                    worker.watchdog.forgive(now)
                elif not worker.blamed and (why := worker.watchdog.verdict(now)):
                    log.error("%s is wedged: %s; it is killed", worker.name, why)
                    worker.kill(why)

    async def _drain(self) -> None:
        """Let every worker finish, and make an end of those that take too long."""
        self._stopping.set()
        log.info("%s: stopping %d workers", self.plan.stage, len(self.workers))
        for worker in self.workers:
            worker.terminate()
        gone = [worker.gone for worker in self.workers]
        if gone:
            await asyncio.wait(gone, timeout=self.plan.drain_s + LINGER_S)
        for worker in self.workers:
            log.error("%s has not stopped within %.0f s; it is killed", worker.name, self.plan.drain_s)
            worker.kill("it did not stop in time")
        if gone:
            await asyncio.wait(gone, timeout=LINGER_S)
