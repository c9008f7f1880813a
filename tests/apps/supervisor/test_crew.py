"""The supervisor keeps its workers alive, whatever befalls them; on fake workers, which are real processes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from itertools import pairwise

import pytest

from pipeline.errors import WorkersFailed
from tests.apps.supervisor.conftest import DEADLINE_S, Started
from tests.apps.supervisor.fake_worker import lives

ID = "test-llm-0"
AT_ONCE_S = 3.0
"""Far more than a hand-over takes on a machine with nothing else to do."""


async def test_each_id_has_a_worker_and_standbys_wait_without_one(crew: Started) -> None:
    """Two replicas and a standby are three processes, of which two have an id."""
    async with crew(replicas=2, standby=1) as it:
        await it.ready(standbys=1)
        assert sorted(worker.identity for worker in it.supervisor.workers) == ["", "test-llm-0", "test-llm-1"]
        assert len({worker.pid for worker in it.supervisor.workers}) == 3


async def test_the_standby_takes_over_at_once_and_is_replaced(crew: Started) -> None:
    """A killed worker's id goes to the standby before another process could have been started."""
    async with crew(replicas=2, standby=1) as it:
        await it.ready(standbys=1)
        standby = next(worker.pid for worker in it.supervisor.workers if not worker.identity)
        killed = time.time()
        os.kill(it.worker(0).pid, signal.SIGKILL)
        await it.until(lambda: len(it.takes(ID)) == 2)
        successor = it.takes(ID)[-1]
        assert successor.pid == standby
        assert successor.at - killed < AT_ONCE_S
        await it.ready(standbys=1)
        assert len(it.supervisor.workers) == 3
        assert len(it.takes("test-llm-1")) == 1, "the other worker was left alone"
        assert it.supervisor.seats[0].restarts == 1
        assert "SIGKILL" in it.supervisor.seats[0].reason


async def test_without_a_standby_the_worker_is_started_again(crew: Started) -> None:
    """The id goes to a new process."""
    async with crew() as it:
        await it.ready()
        os.kill(it.worker(0).pid, signal.SIGKILL)
        await it.until(lambda: len(it.takes(ID)) == 2)
        await it.ready()


@pytest.mark.slow
async def test_what_keeps_dying_waits_longer_each_time_up_to_a_cap(
    crew: Started, caplog: pytest.LogCaptureFixture
) -> None:
    """Restarts back off; the loop is told plainly, with its reason, and the attempts go on."""
    deaths = 8
    with caplog.at_level(logging.INFO):
        async with crew(*[{"dies_taking": 7}] * deaths) as it:
            await it.ready()
    takes = [event.at for event in it.takes(ID)]
    assert len(takes) == deaths + 1
    waits = [after - before for before, after in pairwise(takes)]
    assert all(wait > 0.2 for wait in waits[-3:]), waits
    told = [record.message for record in caplog.records if "again and again" in record.message]
    assert "it ended with status 7" in told[0]
    assert "5 times in a row" in told[0]


async def test_a_standby_is_not_burnt_by_what_kills_every_worker(crew: Started) -> None:
    """Where one after the other dies of taking an id, the id waits, too, though standbys are warm."""
    async with crew(*[{"dies_taking": 7}] * 6, standby=3) as it:
        await it.ready(standbys=3)
    takes = [event.at for event in it.takes(ID)]
    assert takes[-1] - takes[-2] > 0.15


async def test_all_failing_at_their_start_for_one_lasting_reason_ends_the_supervisor(crew: Started) -> None:
    """A wrong setting is the same for all workers, and at each start: it is told, and that is the end."""
    why = "setting 'x': no such thing"
    enough = [{"fails": why}] * 30  # the first may have died more than once before the last is started
    async with crew(*enough, replicas=2, standby=1) as it:
        with pytest.raises(WorkersFailed, match="no worker can start: setting 'x': no such thing"):
            await it.ended()
        assert it.supervisor.workers == []


async def test_a_status_for_wrong_settings_is_a_lasting_reason(crew: Started) -> None:
    """Who ends before it can speak tells by its exit status and its last line."""
    async with crew({"exits": 2, "complaint": "penstock: setting 'y': too much"}) as it:
        with pytest.raises(WorkersFailed, match="no worker can start: setting 'y': too much"):
            await it.ended()


@pytest.mark.parametrize(
    "behaviours",
    [
        [{"fails": "one thing"}, {"fails": "another"}],
        [{"fails": "one thing", "lasting": False}] * 2,
        [{"fails": "one thing"}, {}],
    ],
    ids=["different reasons", "a passing reason", "one could start"],
)
async def test_any_other_failure_at_the_start_is_tried_again(
    crew: Started, behaviours: list[dict[str, object]]
) -> None:
    """As long as it may be a matter of time, the supervisor goes on."""
    async with crew(*behaviours, replicas=2) as it:
        await it.ready()


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        ({"silent": True}, "no heartbeat for"),
        ({"beats": {"step_s": 6.5}}, "its model has been in one step for 6.5 s"),
        ({"beats": {"lag": 3}}, "although 3 records wait and nothing is in hand"),
    ],
    ids=["silent", "model stuck", "taking nothing"],
)
async def test_a_wedged_worker_is_killed_and_replaced(
    crew: Started, caplog: pytest.LogCaptureFixture, behaviour: dict[str, object], why: str
) -> None:
    """Each way of being wedged has its own word, and the standby takes over."""
    async with crew(behaviour, behaviour, standby=1) as it:
        await it.until(lambda: len(it.takes(ID)) >= 2)
        assert why in it.supervisor.seats[0].reason
        assert not lives(it.takes(ID)[0].pid)
    assert any("is wedged" in record.message and why in record.message for record in caplog.records)


async def test_a_stopped_worker_is_killed_and_replaced(crew: Started) -> None:
    """SIGSTOP leaves a process that could wake up: it is dead before its id goes on."""
    async with crew(standby=1) as it:
        await it.ready(standbys=1)
        os.kill(it.worker(0).pid, signal.SIGSTOP)
        await it.until(lambda: len(it.takes(ID)) == 2)
        assert "no heartbeat" in it.supervisor.seats[0].reason


@pytest.mark.slow
async def test_loading_is_not_being_wedged(crew: Started) -> None:
    """A worker that says nothing while it loads is left alone for far longer than one that serves."""
    async with crew({"loads_s": 2.5}) as it:
        await it.ready()
        assert len(it.events) == 2


async def test_a_stop_lets_every_worker_finish(crew: Started) -> None:
    """All are asked at once, and waited for."""
    async with crew(*[{"drains_s": 0.5}] * 3, replicas=2, standby=1) as it:
        await it.ready(standbys=1)
        began = time.monotonic()
        it.stop.set()
        await it.ended()
        assert 0.5 < time.monotonic() - began < DEADLINE_S / 2
        assert [event.what for event in it.events].count("drained") == 3
        assert len(it.takes(ID)) == 1, "no id was handed on"


async def test_who_does_not_stop_in_time_is_killed(
    crew: Started, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain has a bound."""
    monkeypatch.setattr("apps.supervisor.crew.LINGER_S", 0.3)
    async with crew({"stubborn": True}, drain_s=0.2) as it:
        await it.ready()
        it.stop.set()
        await it.ended()
        assert "has not stopped within" in caplog.text
        assert not lives(it.takes(ID)[0].pid)


async def test_a_stop_in_the_middle_of_a_wait_ends_at_once(crew: Started) -> None:
    """Nobody waits for the next attempt of something that keeps failing."""
    async with crew(*[{"dies_taking": 7}] * 50, first_s=60.0, most_s=60.0) as it:
        await it.until(lambda: it.supervisor.slots[0].until > time.monotonic())
        began = time.monotonic()
        it.stop.set()
        await it.ended()
        assert time.monotonic() - began < DEADLINE_S / 4


async def test_lines_are_told_with_their_worker_and_whole(crew: Started) -> None:
    """Each line of the output comes in one piece, with the name that its worker has then."""
    lines = [f"{number} " + "x" * 3000 for number in range(40)]
    async with crew(*[{"says": lines}] * 2, replicas=2) as it:
        await it.ready()
        await it.until(lambda: len(it.said) >= 80)
        for pid in {event.pid for event in it.events}:
            mine = [line.decode() for name, line in it.said if str(pid) in name]
            assert mine == lines


async def test_a_program_that_is_not_there_is_told_and_tried_again(
    crew: Started, caplog: pytest.LogCaptureFixture
) -> None:
    """Even a start that fails is not the end."""
    async with crew(command=["/nowhere/penstock"]) as it:
        await it.until(lambda: caplog.text.count("it cannot be started") >= 3)


async def test_many_deaths_never_give_one_id_to_two(crew: Started) -> None:
    """Workers killed and stopped at random moments, in any order: each id has one owner at a time.

    (The fixture looks at that after every test; here it is put under strain.)
    """
    async with crew(replicas=2, standby=2, settled_s=0.0) as it:
        await it.ready(standbys=2)
        for turn in range(12):
            await it.until(lambda: it.supervisor.workers)
            workers = it.supervisor.workers
            os.kill(workers[turn % len(workers)].pid, signal.SIGKILL if turn % 3 else signal.SIGSTOP)
            await asyncio.sleep(0.07)
        await it.ready(standbys=2)
