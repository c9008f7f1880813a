"""Whose turn it is: by tenant, then by session, each its share of the model's time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.llm import fair
from stages.llm.fair import AGEING_S, FairQueue
from stages.llm.sequence import Sequence
from tests.stages.llm.running import make_prompt

VOCABULARY: Any = None
MANY = 10_000


def waiting(
    tenant: str,
    session: str = "s",
    *,
    cost: float = 1.0,
    number: int = 0,
    begun: bool = False,
    priority: int = 0,
    waited_s: float = 0.0,
) -> Sequence:
    """A sequence of that tenant and session."""
    prompt = make_prompt([1], session=session, emitted=[2] if begun else [], priority=priority)
    sequence = Sequence(number, prompt, VOCABULARY, context=100, tenant=tenant)
    sequence.cost = cost
    sequence.since = time.monotonic() - waited_s
    return sequence


def queue_of(*sequences: Sequence) -> FairQueue:
    """A queue in which these came, one after the other."""
    queue = FairQueue()
    for sequence in sequences:
        assert queue.add(sequence, MANY) is None
    return queue


def taken(queue: FairQueue, most: int = MANY) -> list[Sequence]:
    """The next of the queue, in their order."""
    order: list[Sequence] = []
    while len(order) < most and queue.heads:
        head = queue.heads[0]
        queue.take(head)
        order.append(head)
    return order


def tenants(sequences: Iterable[Sequence]) -> str:
    """Their tenants, one letter each."""
    return "".join(sequence.tenant for sequence in sequences)


def test_a_quiet_tenant_goes_before_what_a_flooding_one_has_waiting() -> None:
    """Who comes last of all, behind a hundred of another tenant, goes second at the latest."""
    queue = queue_of(*(waiting("f", f"s{n}") for n in range(100)))
    taken(queue, 10)

    queue.add(waiting("q"), MANY)

    assert "q" in tenants(taken(queue, 2))


def test_tenants_share_by_cost_and_not_by_number() -> None:
    """Whose turns cost three times as much gets a third as many."""
    queue = queue_of(*(waiting("d", cost=3.0) for _ in range(50)), *(waiting("c", cost=1.0) for _ in range(50)))

    assert Counter(tenants(taken(queue, 40))) == {"c": 30, "d": 10}


def test_sessions_of_a_tenant_share_likewise() -> None:
    """A session that floods does not hold up its tenant's others, nor do more sessions make a tenant's share larger."""
    loud = [waiting("a", "loud", number=n) for n in range(20)]
    queue = queue_of(*loud, waiting("a", "quiet"), *(waiting("b", f"s{n}") for n in range(20)))

    first = taken(queue, 6)

    assert Counter(tenants(first)) == {"a": 3, "b": 3}
    assert "quiet" in [sequence.scope for sequence in first]


def test_one_session_keeps_its_order() -> None:
    """Turns of one session are begun in the order in which they came."""
    queue = queue_of(*(waiting("a", number=n) for n in range(5)), *(waiting("b", number=n) for n in range(5)))

    order = taken(queue)

    assert [sequence.number for sequence in order if sequence.tenant == "a"] == [0, 1, 2, 3, 4]


def test_nobody_saves_up_in_a_pause() -> None:
    """Who was away while another used the model does not get the model alone for that."""
    queue = queue_of(waiting("a"), waiting("b"))
    taken(queue)
    for _ in range(50):
        queue.add(waiting("a"), MANY)
    taken(queue)

    for tenant in "ab" * 10:
        queue.add(waiting(tenant), MANY)

    assert Counter(tenants(taken(queue, 6)))["b"] <= 4


def test_what_was_more_expensive_than_thought_counts() -> None:
    """A tenant whose answers become longer than expected waits for it."""
    queue = queue_of(*(waiting(tenant) for tenant in "abab"))
    first = taken(queue, 2)
    queue.charge(next(sequence for sequence in first if sequence.tenant == "a"), 5.0)

    assert tenants(taken(queue, 1)) == "b"


def test_what_another_worker_had_begun_goes_first() -> None:
    """After a takeover, answers in the making go on before new ones begin, and never have to go for others."""
    queue = queue_of(*(waiting("a", f"s{n}") for n in range(3)))

    assert queue.add(waiting("b", begun=True), most=0) is None
    assert tenants(taken(queue, 1)) == "b"


def test_who_has_the_most_waiting_makes_room() -> None:
    """In a full queue a newcomer takes the place of the latest of who has the most, and the loud one's newest goes."""
    queue = queue_of(*(waiting("f", f"s{n}", number=n) for n in range(5)))

    gone = queue.add(waiting("q"), 5)
    own = queue.add(newest := waiting("f", "new", number=9), 5)

    assert gone is not None
    assert (gone.tenant, gone.number) == ("f", 4)
    assert own is newest
    assert len(queue) == 5


def test_a_higher_priority_goes_first_and_is_shared_fairly() -> None:
    """All of a higher priority go before any of a lower one, and within one it goes by tenant."""
    low = [waiting("a", f"s{n}") for n in range(3)]
    queue = queue_of(*low, *(waiting(tenant, f"s{n}", priority=2) for n in range(3) for tenant in "ab"))

    order = taken(queue)

    assert [sequence.sampling.priority for sequence in order] == [2] * 6 + [0] * 3
    assert tenants(order)[:6] in ("abababab"[:6], "babababa"[:6])


def test_who_waits_rises() -> None:
    """With each while of waiting a sequence counts as one of the next priority: nobody starves."""
    queue = queue_of(
        waiting("a", priority=2, number=1),
        waiting("b", number=2, waited_s=1.5 * AGEING_S),
        waiting("c", number=3, waited_s=2.5 * AGEING_S),
    )
    queue._shares.charge("a", 1.0)

    assert [sequence.number for sequence in taken(queue)] == [3, 1, 2]


def test_a_full_queue_gives_up_the_least_important() -> None:
    """Of who has the most waiting, the latest of the lowest priority goes."""
    queue = queue_of(waiting("a", "x", number=1), waiting("a", "y", number=2, priority=1))

    gone = queue.add(waiting("a", "z", number=3, priority=1), 2)

    assert gone is not None
    assert gone.number == 1


def test_what_goes_before_knows_priorities() -> None:
    """What has a higher priority goes before all of it, what has a lower one does not."""
    queue = queue_of(waiting("a", cost=5.0, priority=1), waiting("b", cost=3.0))
    queue._shares.charge("c", 99.0)

    assert queue.before(waiting("c")) == 8.0
    assert queue.before(waiting("c", priority=1)) == 5.0
    assert queue.before(waiting("c", priority=2)) == 0.0


def test_who_gave_a_place_up_goes_first_and_pays_once() -> None:
    """It goes before all who have not begun (of its priority), and its tenant is not charged again."""
    queue = queue_of(waiting("a", number=1, cost=4.0), waiting("a", "t", number=2, begun=True))
    (begun, first) = taken(queue)
    had = queue._shares.had("a")
    queue.add(waiting("b", number=3), MANY)
    queue.add(waiting("b", number=4, begun=True), MANY)
    queue.back(first)

    assert len(queue) == 3
    assert [sequence.number for sequence in queue.heads] == [1, 4, 3]
    assert not queue.take(first)
    assert queue._shares.had("a") == had
    assert begun.number == 2


def test_those_who_left_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tenants and sessions come and go, only some are remembered."""
    monkeypatch.setattr(fair, "REMEMBERED", 50)
    queue = FairQueue()
    for n in range(150):
        queue.add(waiting(f"t{n}"), MANY)
        queue.add(waiting("same", f"s{n}"), MANY)
        taken(queue)

    assert len(queue._lines) <= 50
    assert len(queue._lines["same"].shares._had) <= 50
    assert len(queue._shares._had) <= 50


@given(data=st.data())
def test_what_goes_before_is_told_before_it_is_so(data: st.DataObject) -> None:
    """The work that will go before a newcomer is what then goes, give or take one turn of each rival."""
    names = st.sampled_from("abc")
    queue = FairQueue()
    for _ in range(data.draw(st.integers(0, 25))):
        cost = data.draw(st.floats(0.1, 3.0))
        queue.add(waiting(data.draw(names), data.draw(st.sampled_from("xyz")), cost=cost), MANY)
        if data.draw(st.booleans()):
            taken(queue, 1)
    newcomer = waiting(data.draw(names), data.draw(st.sampled_from("xyz")))

    told = queue.before(newcomer)
    queue.add(newcomer, MANY)
    count = len(queue)
    order = taken(queue)

    assert count == len(order)
    went = sum(sequence.cost for sequence in order[: order.index(newcomer)])
    assert abs(told - went) <= 3.0 * 6
    assert len(queue) == 0


def _never(_line: object) -> Any:
    pytest.fail("a tenant without anybody waiting was asked")


def test_while_nobody_waits_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step looks for who is next: that must cost nothing by the number of tenants that were there once."""
    queue = queue_of(*(waiting(f"t{n}") for n in range(50)))
    last = taken(queue)[-1]
    queue.back(last)
    queue.remove(last)
    monkeypatch.setattr(fair._Line, "heads", property(_never))
    monkeypatch.setattr(fair._Line, "__iter__", _never)

    assert (queue.heads, list(queue), len(queue)) == ([], [], 0)


def test_who_had_to_wait_goes_first_of_its_priority_only() -> None:
    """A preempted sequence goes before its like and a begun one, but holds up nobody of a higher priority."""
    resumed, plain, high = waiting("a"), waiting("b", number=1), waiting("c", number=2, priority=3)
    begun = waiting("d", number=3, begun=True)
    queue = queue_of(plain, high, begun)
    queue.back(resumed)

    assert queue.before(waiting("e", priority=3)) < queue.before(waiting("e"))
    assert taken(queue) == [high, resumed, begun, plain]
