"""What is broken and asked follows from the seed, and misses nothing."""

from __future__ import annotations

from itertools import islice

import pytest

from apps.chaos.plan import TEXTS, Kind, Plan, kinds_of, order_of, schedule, scripts, sorts, without_broker
from pipeline.errors import SettingsError


def test_the_same_seed_breaks_and_asks_the_same() -> None:
    """Two runs of one seed have the same faults at the same times, and the same questions; another seed has others."""
    one, again, other = Plan(seed=5, minutes=10), Plan(seed=5, minutes=10), Plan(seed=6, minutes=10)
    assert schedule(one) == schedule(again) != schedule(other)
    assert scripts(one) == scripts(again) != scripts(other)
    assert list(islice(order_of(one, 2), 20)) == list(islice(order_of(again, 2), 20))


def test_a_round_has_every_sort_of_fault() -> None:
    """Each kind strikes each stage before one comes again, and the takeover that has a bound comes twice."""
    everything = sorts(tuple(Kind))
    first = schedule(Plan(minutes=60))[: len(everything)]
    assert sorted((fault.kind, fault.stage) for fault in first) == sorted(everything)
    assert everything.count((Kind.KILL, "llm")) == 2


def test_faults_come_within_the_time_and_in_order() -> None:
    """The first waits for answers to stream, and none comes after the end."""
    faults = schedule(Plan(minutes=2, every=5))
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    assert 2 < faults[0].at < faults[-1].at < 120
    assert [fault.number for fault in faults] == list(range(1, len(faults) + 1))


def test_every_session_asks_for_greedy_and_seeded_answers() -> None:
    """Both kinds of answer meet every fault."""
    for script in scripts(Plan()):
        assert {question.greedy for question in script.questions} == {True, False}
        assert all("seed" in question.sampling for question in script.questions)


def test_kinds_are_chosen_by_name() -> None:
    """A list chooses, nothing is all, and a typo is told with what there is."""
    assert kinds_of("broker, kill") == (Kind.KILL, Kind.BROKER)
    assert kinds_of("") == tuple(Kind)
    with pytest.raises(SettingsError, match=r"no fault 'brocker'; there are kill, pause.*broker"):
        kinds_of("brocker")


def test_a_broker_that_is_given_is_not_broken() -> None:
    """All others are; and if it was the only one, there is nothing to do."""
    assert set(without_broker(Plan()).kinds) == set(Kind) - {Kind.BROKER}
    with pytest.raises(SettingsError, match="nothing else was chosen"):
        without_broker(Plan(kinds=(Kind.BROKER,)))


def test_each_kind_is_explained() -> None:
    """The report has words for all of them."""
    assert set(TEXTS) == set(Kind)
