"""The pool of blocks: nothing is lost, nothing is shared by two texts, and what is found is what was computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stages.llm.cache.blocks import BlockPool, BlockTable
from stages.llm.cache.kv import BLOCK, Kept, Shape, blocks_for

SHAPE = Shape(2, 1, 1, torch.float32, torch.device("cpu"))
DRAFT = Shape(1, 1, 1, torch.float32, torch.device("cpu"))


def pool_of(count: int, *, keep: bool = True, below: Below | None = None, draft: bool = True) -> BlockPool:
    """A pool whose numbers are the tokens themselves."""
    return BlockPool(count, SHAPE, draft=DRAFT if draft else None, fingerprint="model", keep=keep, below=below)


def compute(table: BlockTable, ids: Sequence[int], start: int, *, drafted: bool = True) -> None:
    """Write what stands for the keys and values of `ids` from `start` on."""
    for position in range(start, len(ids)):
        table.pool.store[table.blocks[position // BLOCK], ..., position % BLOCK, :] = ids[position]
        if drafted:
            table.pool.draft[table.blocks[position // BLOCK], ..., position % BLOCK, :] = -ids[position]
    table.drafted = len(ids) if drafted else table.drafted


def held(table: BlockTable, count: int, *, draft: bool = False) -> list[int]:
    """The tokens whose keys and values are at the first `count` positions, the same in all layers."""
    store = table.pool.draft if draft else table.pool.store
    blocks = store[table.blocks[: blocks_for(count)]].movedim(4, 1).flatten(0, 1)[:count].flatten(1)
    assert (blocks == blocks[:, :1]).all()
    return [int(abs(number)) for number in blocks[:, 0].tolist()]


def lived(pool: BlockPool, ids: Sequence[int], *, tenant: str = "t", session: str = "s") -> int:
    """A sequence that computes `ids` and ends; how many it found."""
    table, known = pool.table(tenant, ids, session)
    assert pool.extend(table, len(ids))
    compute(table, ids, known)
    pool.release(table, ids, tenant, session)
    pool.check()
    return known


def text(length: int, seed: int = 0) -> list[int]:
    """Tokens of a text of its own."""
    return [1000 * seed + number + 1 for number in range(length)]


def test_the_next_turn_starts_after_the_last() -> None:
    """All that a finished sequence computed is found by who goes on after it, the draft's numbers too."""
    pool = pool_of(8)
    lived(pool, text(150))
    table, known = pool.table("t", [*text(150), 7, 8])

    assert (known, table.drafted) == (150, 150)
    assert held(table, known) == held(table, known, draft=True) == text(150)


def test_the_last_token_is_always_computed_and_never_in_a_shared_block() -> None:
    """Logits are needed after the last token; where its block is another's, it goes on in a copy."""
    pool = pool_of(8)
    ids = text(2 * BLOCK)
    one, _ = pool.table("t", ids)
    pool.extend(one, len(ids))
    compute(one, ids, 0)
    pool.confirm(one, ids, len(ids))
    other, known = pool.table("t", ids)

    assert known == len(ids) - 1
    assert other.blocks[0] == one.blocks[0]
    assert other.blocks[1] != one.blocks[1]
    assert held(other, known) == ids[:-1]
    pool.check()


def test_who_goes_another_way_goes_on_in_a_copy() -> None:
    """Inside a block two texts part: what is common is found, and neither sees the other's."""
    pool = pool_of(8)
    ids = text(100)
    lived(pool, ids)
    one, known = pool.table("t", [*ids[:80], 5, 6, 7])
    pool.extend(one, 83)
    compute(one, [*ids[:80], 5, 6, 7], known)
    other, found = pool.table("t", [*ids, 9])

    assert (known, found) == (80, 100)
    assert held(one, 83) == [*ids[:80], 5, 6, 7]
    assert held(other, 100) == ids


def test_tenants_find_nothing_of_each_other() -> None:
    """Not even the same text in the same session."""
    pool = pool_of(8)
    lived(pool, text(150))

    assert pool.known("other", text(150)) == 0
    assert pool.table("other", text(150), "s")[1] == 0


def test_guesses_that_were_wrong_are_not_found() -> None:
    """Only what is certain is listed: positions beyond it hold what was guessed wrong."""
    pool = pool_of(8)
    table, _ = pool.table("t")
    pool.extend(table, 70)
    compute(table, text(70), 0)
    pool.confirm(table, text(70), 60)
    assert pool.known("t", text(70)) == 0
    pool.release(table, text(60), "t")

    assert pool.known("t", text(70)) == 60


def test_the_least_recently_used_goes_first_and_its_end_before_its_beginning() -> None:
    """When memory is needed, no more is dropped than needed, from the end of what was not used for longest."""
    pool = pool_of(8)
    lived(pool, text(4 * BLOCK, 1))
    lived(pool, text(4 * BLOCK, 2))
    table, _ = pool.table("x")
    assert pool.extend(table, BLOCK + 1)

    assert pool.known("t", [*text(4 * BLOCK, 1), 0]) == 2 * BLOCK
    assert pool.known("t", [*text(4 * BLOCK, 2), 0]) == 4 * BLOCK


def test_what_is_in_use_is_never_taken() -> None:
    """With too few blocks nothing changes."""
    pool = pool_of(4)
    table, _ = pool.table("t", text(3 * BLOCK))
    assert pool.extend(table, 3 * BLOCK)
    other, _ = pool.table("t")

    assert not pool.extend(other, BLOCK + 1)
    assert (other.blocks, pool.available) == ([], 1)
    assert pool.missing("t", text(3 * BLOCK), 3 * BLOCK) == 3


def test_what_is_no_number_is_not_handed_on() -> None:
    """After a computation went wrong its blocks are not found, and are cleared before the next one has them."""
    pool = pool_of(1)
    table, _ = pool.table("t")
    pool.extend(table, 3)
    pool.store.fill_(float("nan"))
    pool.confirm(table, text(3), 3)
    pool.discard(table)
    table, known = pool.table("t", text(9))
    pool.extend(table, 9)

    assert known == 0
    assert pool.store.isfinite().all()


def test_memory_is_not_touched_before_it_is_used() -> None:
    """A large pool takes no more than what is in use."""
    pool = BlockPool(1 << 20, SHAPE)
    table, _ = pool.table("t", text(9))
    pool.extend(table, 9)

    assert pool.store.nbytes == 1 << 30
    assert table.blocks == [0]


def test_the_draft_goes_on_where_it_was() -> None:
    """What the draft had not computed when a text was shared, it computes later, and only that."""
    pool = pool_of(8)
    table, _ = pool.table("t")
    pool.extend(table, 150)
    compute(table, text(150), 0, drafted=False)
    table.drafted = 90
    pool.release(table, text(150), "t")

    table, known = pool.table("t", [*text(150), 7])
    assert (known, table.drafted) == (150, 90)


def test_what_the_draft_computed_of_another_text_does_not_count() -> None:
    """A block that is used again begins anew for the draft, and so does a copy after what it has in common."""
    pool = pool_of(1)
    lived(pool, text(60, 1), tenant="a")
    table, _ = pool.table("b")
    pool.extend(table, 60)
    compute(table, text(60, 2), 0, drafted=False)
    pool.release(table, text(60, 2), "b")
    assert pool.table("b", [*text(60, 2), 7])[0].drafted == 0

    pool = pool_of(4)
    lived(pool, text(60))
    assert pool.table("t", [*text(10), 7, 8])[0].drafted == 10


class Below:
    """A tier that keeps everything."""

    def __init__(self) -> None:
        self.has: dict[str, Kept] = {}

    def put(self, scope: str, kept: Kept) -> None:
        """Have one."""
        self.has[scope] = kept

    def put_last(self, last: Iterable[tuple[str, Kept]]) -> None:
        """Have these."""
        self.has.update(last)

    def take(self, scope: str, ids: Sequence[int], known: int = 0) -> Kept | None:
        """Give it back."""
        return self.has.pop(scope, None)


def test_what_is_dropped_for_room_goes_below_whole_and_comes_back() -> None:
    """Before the first block of a session's last turn goes, all of it goes to the tier below, and is found there."""
    below = Below()
    pool = pool_of(6, below=below)
    lived(pool, text(150, 1), session="a")
    lived(pool, text(150, 2), session="b")
    assert not below.has
    lived(pool, text(10, 3), session="c")

    assert list(below.has) == ["t\0a"]
    assert below.has["t\0a"].ids == tuple(text(150, 1))
    assert lived(pool, [*text(150, 1), 7], session="a") == 150
    assert lived(pool, [*text(150, 1), 7, 8], session="a") == 151


def test_without_keeping_all_goes_below_at_once() -> None:
    """Where nothing may stay in memory, a turn's end is the end of it there."""
    below = Below()
    pool = pool_of(6, keep=False, below=below)
    lived(pool, text(150), session="a")

    assert pool.known("t", text(150)) == 0
    assert pool.available == 6
    assert lived(pool, [*text(150), 7], session="a") == 150
    pool.close()
    assert below.has["t\0a"].ids == (*text(150), 7)


def test_at_the_end_all_goes_below_the_latest_first() -> None:
    """Closing gives each session's last turn away."""
    below = Below()
    pool = pool_of(9, below=below)
    for session in "abc":
        lived(pool, text(70, ord(session)), session=session)
    lived(pool, text(80, ord("a")), session="a")
    lived(pool, text(75, 9), session="b")
    pool.close()

    assert list(below.has) == ["t\0b", "t\0a", "t\0c"]
    assert [len(below.has[f"t\0{session}"].ids) for session in "abc"] == [80, 75, 70]


@given(room=st.integers(1, 6), length=st.integers(1, 6 * BLOCK))
@settings(max_examples=30)
def test_as_much_comes_back_as_there_is_room_for(room: int, length: int) -> None:
    """What is in the tier below may be larger than what is free: its beginning is of use alone."""
    below = Below()
    lived(source := pool_of(6, below=below), text(length))
    source.close()
    pool = pool_of(6, below=below)
    other, _ = pool.table("other")
    pool.extend(other, (6 - room) * BLOCK)
    table, known = pool.table("t", [*text(length), 7], "s")

    assert known == min(length, room * BLOCK)
    assert held(table, known) == text(length)[:known]
    pool.check()


class Machine(RuleBasedStateMachine):
    """Sequences come, share, grow, guess wrong, give up, must wait and end, in a pool that is too small for them."""

    def __init__(self) -> None:
        super().__init__()
        self.below = Below()
        self.pool = pool_of(7, below=self.below)
        self.running: list[tuple[BlockTable, list[int], int, str]] = []

    @rule(
        tenant=st.sampled_from("ab"), parts=st.lists(st.integers(0, 1), min_size=1, max_size=5), cut=st.integers(0, 63)
    )
    def admit(self, tenant: str, parts: list[int], cut: int) -> None:
        """One comes whose text shares blocks, or parts of blocks, with others of its tenant."""
        ids = [1 + part * (position > 40) for part in parts for position in range(BLOCK)]
        ids = ids[: len(ids) - cut]
        if self.pool.missing(tenant, ids, len(ids)) > self.pool.available:
            return
        table, known = self.pool.table(tenant, ids, f"s{len(parts)}")
        assert self.pool.extend(table, len(ids))
        assert held(table, known) == ids[:known]
        assert held(table, min(table.drafted, known), draft=True) == ids[: min(table.drafted, known)]
        self.running.append((table, ids, known, tenant))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 99), count=st.integers(1, 100), drafted=st.booleans())
    def go_on(self, which: int, count: int, drafted: bool) -> None:
        """One computes more of its text."""
        number = which % len(self.running)
        table, ids, computed, tenant = self.running[number]
        end = min(len(ids), computed + count)
        compute(table, ids[:end], computed if not drafted else min(computed, table.drafted), drafted=drafted)
        self.pool.confirm(table, ids, end)
        self.running[number] = table, ids, end, tenant

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 99), count=st.integers(1, 70), right=st.integers(0, 70))
    def guess(self, which: int, count: int, right: int) -> None:
        """One grows by guesses, of which only the first are right."""
        number = which % len(self.running)
        table, ids, computed, tenant = self.running[number]
        if computed < len(ids) or not self.pool.extend(table, len(ids) + count):
            return
        compute(table, [*ids, *[9] * count], computed, drafted=False)
        ids = [*ids, *[9] * min(right, count)]
        self.pool.confirm(table, ids, len(ids))
        self.running[number] = table, ids, len(ids), tenant

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 99), failed=st.booleans())
    def end(self, which: int, failed: bool) -> None:
        """One ends, is given up, or must wait."""
        table, ids, computed, tenant = self.running.pop(which % len(self.running))
        if failed:
            self.pool.discard(table)
        else:
            self.pool.release(table, ids[:computed], tenant, f"s{which % 3}")

    @invariant()
    def nothing_is_lost(self) -> None:
        """Counts agree, and every running sequence still has what it computed."""
        self.pool.check()
        for table, ids, computed, _ in self.running:
            assert held(table, computed) == ids[:computed]

    def teardown(self) -> None:
        """When all have ended, every block can be had again."""
        for table, ids, computed, tenant in self.running:
            self.pool.release(table, ids[:computed], tenant)
        self.pool.check()
        assert self.pool.available == 7


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
