"""The way into the log: what is given up, and what is not."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from apps.gateway.outbox import Outbox
from apps.gateway.outgoing import Outgoing
from pipeline.bus import Headers
from pipeline.memory import MemoryBus
from pipeline.messages import Claimed
from pipeline.topics import AUDIO, REPLIES
from pipeline.voice import Sound
from tests.apps.gateway.harness import DEADLINE_S

TIMEOUT_S = 5.0


class Slow(MemoryBus):
    """A bus that acknowledges what the test acknowledges."""

    def __init__(self) -> None:
        super().__init__()
        self.handed_over: asyncio.Queue[Future[int]] = asyncio.Queue()

    async def publish(
        self, topic: str, value: bytes, *, key: str, headers: Headers, partition: int | None = None
    ) -> Future[int]:
        """Take a record."""
        delivery: Future[int] = asyncio.get_running_loop().create_future()
        self.handed_over.put_nowait(delivery)
        return delivery


@asynccontextmanager
async def on_its_way(failed: list[Exception]) -> AsyncGenerator[tuple[Outbox, Future[int]], None]:
    """A record that is not acknowledged yet."""
    bus = Slow()
    outbox = Outbox(bus, lambda record, why: failed.append(why), timeout_s=TIMEOUT_S)
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(outbox.run())
        outbox.post([Outgoing(REPLIES, Claimed("s", "", "o"), "s", partition=0)])
        yield outbox, await bus.handed_over.get()
        running.cancel()


async def test_who_has_slept_hears_first_what_has_arrived() -> None:
    """A record that was acknowledged while the process slept is not given up when it wakes."""
    failed: list[Exception] = []
    async with on_its_way(failed) as (outbox, delivery):
        awake = asyncio.get_running_loop().time() + 2 * TIMEOUT_S
        outbox.tick(awake)
        delivery.set_result(7)
        await asyncio.sleep(0)
        outbox.tick(awake + 0.25)

        assert (failed, len(outbox)) == ([], 0)


async def test_what_nobody_acknowledges_is_given_up() -> None:
    """A record that is on its way for too long is undelivered once, by words that blame no bus."""
    failed: list[Exception] = []
    async with on_its_way(failed) as (outbox, delivery):
        now = asyncio.get_running_loop().time()
        for later in (0.0, TIMEOUT_S + 1.0, TIMEOUT_S + 1.25):
            assert not failed
            outbox.tick(now + later)
        delivery.set_result(7)
        await asyncio.sleep(0)

        assert ([str(why) for why in failed], len(outbox)) == (["no acknowledgement in time"], 0)


async def test_there_is_no_hole_in_what_stands_behind_a_lost_record() -> None:
    """What waits of the same stream is not sent any more; what waits of others is."""
    outbox = Outbox(MemoryBus(), lambda record, why: None, timeout_s=TIMEOUT_S)
    lost, behind, *others = (
        Outgoing(AUDIO, Sound(key, stream, 0), key) for key, stream in (("s", "a"), ("s", "a"), ("s", "b"), ("t", "a"))
    )
    outbox.post([behind, *others, behind])
    outbox.withdraw(lost)

    assert [record for record, _ in outbox._waiting] == others
