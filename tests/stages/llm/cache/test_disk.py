"""The tier on disk: what the pool dropped is found again, by the next process too, where that pays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stages.llm.cache.disk import LEAST
from stages.llm.models.model import LoadedModel
from tests.stages.llm.cache.test_kvfile import computed, counted
from tests.stages.llm.disks import IDS, NEVER, TOKENS, Make, files, put


def test_what_was_put_is_found_after_a_restart(make: Make) -> None:
    """The next process finds the same ids and the same bits, and counts what it loaded."""
    first = make()
    kept = put(first, "s", computed(TOKENS, drafted=9))
    first.close()
    again = make()
    found = again.take("s", IDS)

    assert found is not None
    assert found.ids == kept.ids
    assert counted(found.blocks, TOKENS) == counted(kept.blocks, TOKENS)
    assert found.drafted == 9
    assert (again.counts.hits, again.counts.loaded_tokens) == (1, TOKENS)
    assert again.counts.loaded_bytes == first.counts.written_bytes


def test_scopes_do_not_see_each_other(make: Make, folder: Path) -> None:
    """Another scope finds nothing, and the file does not tell whose it is."""
    tier = make()
    put(tier, "secret-session")

    assert tier.take("other", IDS) is None
    assert all(b"secret" not in path.name.encode() + path.read_bytes() for path in folder.iterdir())


def test_only_what_is_shared_is_worth_a_file(make: Make) -> None:
    """Less than `LEAST` tokens are neither written nor read, and the file stays for whoever has more use for it."""
    tier = make()
    put(tier, "s")
    tier.put("short", computed(LEAST - 1))

    assert not tier._waiting
    assert tier.take("s", [*IDS[: LEAST - 1], 1, 2]) is None
    assert tier.take("s", [*IDS[:LEAST], 1, 2]) is not None


def test_where_reading_takes_longer_nothing_is_read_or_written(make: Make) -> None:
    """If computing is cheaper, the file is left alone; a slow reading is forgotten in time."""
    put(make(), "s")
    tier = make(token_s=NEVER)
    tier.put("t", computed(TOKENS))

    assert not tier._waiting
    assert tier.take("s", IDS) is None

    slow = make(token_s=1e-4)
    slow._byte_s = 1e-6
    assert slow.take("s", IDS) is None
    tries = next(n for n in range(1000) if slow.take("s", IDS) is not None)
    assert tries > 10


def test_a_newer_turn_takes_the_place_of_the_older(make: Make, folder: Path) -> None:
    """There is one file for a scope."""
    tier = make()
    put(tier, "s")
    newer = put(tier, "s", computed(TOKENS + 30))
    found = tier.take("s", [*newer.ids, 1])

    assert len(files(folder)) == 1
    assert found is not None
    assert found.ids == newer.ids


def test_other_models_have_other_files(make: Make, folder: Path, model: LoadedModel) -> None:
    """Another model or draft does not see the file and leaves it; under its own name it is stale and goes."""
    put(make(), "s")
    (ours,) = files(folder)
    other = make(draft=replace(model, revision="draft"))

    assert other.take("s", IDS) is None
    put(other, "s")
    assert len(files(folder)) == 2
    (theirs,) = set(files(folder)) - {ours}
    ours.rename(theirs)
    assert other.take("s", IDS) is None
    assert other.counts.damaged == 1
    assert not files(folder)


def test_the_least_recently_used_goes_first_also_after_a_restart(make: Make) -> None:
    """The bound holds, and who was read counts as used, in the next process too."""
    one = make()
    for scope in "abc":
        put(one, scope)
    size = one.counts.written_bytes // 3
    assert one.take("a", IDS) is not None
    one.close()
    other = make(limit=3 * size)
    put(other, "d")

    assert [scope for scope in "abcd" if other.take(scope, IDS)] == ["a", "c", "d"]
