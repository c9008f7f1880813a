"""A job's time: a stop ends its work, another's cancel stays a cancel, and neither is left over in the task."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from pipeline.bus import Part, Record
from pipeline.headers import DEADLINE, TURN
from pipeline.job import Job, Stopped
from tests.pipeline.fakes import make_turn


def make_job(**headers: str) -> Job:
    """A job that may take ten seconds."""
    record = Record(Part("turns", 0), 0, 0, "s", b"", headers)
    return Job(record, make_turn("t"), patience=10.0, grace=0.0)


async def for_ever() -> None:
    """Work without an end."""
    await asyncio.sleep(60)


async def test_a_stop_ends_the_work_and_leaves_the_task_as_it_was() -> None:
    """The task that worked on a stopped job can go on with the next."""
    job = make_job()
    asyncio.get_running_loop().call_later(0.01, job.stop, "cancelled")
    with pytest.raises(Stopped, match="cancelled"):
        await job.within_time(for_ever())

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
    with pytest.raises(Stopped):
        await job.within_time(for_ever())


async def test_a_deadline_that_is_over_stops_the_work_at_the_next_look() -> None:
    """`watch` stops what is late, once, and leaves alone what is in time."""
    job = make_job()
    working = asyncio.create_task(job.within_time(for_ever()))
    await asyncio.sleep(0)
    job.watch(time.time() + 5)
    await asyncio.sleep(0.01)
    assert not working.done()
    job.watch(time.time() + 11)
    job.watch(time.time() + 11)
    with pytest.raises(Stopped, match="deadline"):
        await working
    assert working.cancelling() == 0


async def test_a_cancel_from_outside_stays_one() -> None:
    """Also when the job is stopped in the same moment."""
    for stopped in (False, True):
        job = make_job()
        working = asyncio.create_task(job.within_time(for_ever()))
        await asyncio.sleep(0)
        if stopped:
            job.stop("cancelled")
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working


async def test_work_that_ends_although_it_is_stopped_has_ended() -> None:
    """A stage may swallow the stop and come to its end; what follows in the task is not stopped for it."""
    job = make_job()

    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    asyncio.get_running_loop().call_later(0.01, job.stop, "cancelled")
    await job.within_time(stubborn())
    await asyncio.sleep(0)


async def test_a_timeout_of_the_works_own_is_its_own() -> None:
    """Only a stop is told as one."""
    job = make_job()

    async def late() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await job.within_time(late())


@pytest.mark.parametrize(
    ("headers", "expected"), [({TURN: "t"}, {TURN: "t"}), ({TURN: "t", "other": "x"}, {TURN: "t"}), ({}, {})]
)
def test_only_known_headers_are_passed_on(headers: dict[str, str], expected: dict[str, str]) -> None:
    """What the route does not know stays behind."""
    assert make_job(**headers).passed_on == expected


@pytest.mark.parametrize("text", ["nan", "soon", "inf", ""])
async def test_a_deadline_that_makes_no_sense_is_none(text: str) -> None:
    """The job then has the time that any has."""
    done = []

    async def work() -> None:
        done.append(text)

    await make_job(**{DEADLINE: text}).within_time(work())
    assert done == [text]
