"""Keys and values in a file: the same bits come back, or nothing does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.llm import kvfile
from stages.llm.kv import BLOCK, Kept, SequenceKV, rounded
from stages.llm.kvfile import CHECK, HEADER, ROW, Damaged, Stored

CPU = torch.device("cpu")
OURS, OTHERS = kvfile.fingerprint(["model", ""]), kvfile.fingerprint(["model", "draft"])


def computed(tokens: int, *, layers: int = 2, dtype: torch.dtype = torch.float32, drafted: int | None = None) -> Kept:
    """What a sequence of so many tokens leaves; more positions are stored than count."""
    kv = SequenceKV()
    for layer in range(layers):
        shape = (3, tokens + 5, 4)
        kv.write(layer, 0, torch.randn(shape).to(dtype), torch.randn(3, tokens + 5, 8).to(dtype))
    if drafted is not None:
        kv.draft, kv.drafted = computed(drafted, layers=1).kv, drafted
    return Kept(tuple(range(7, 7 + tokens)), kv)


def written(path: Path, kept: Kept) -> Path:
    """The file of `kept`."""
    with path.open("wb") as file:
        kvfile.write(file, OURS, kept)
    return path


def load(path: Path) -> Kept:
    """What is in the file."""
    with path.open("rb") as file:
        stored = Stored(file, OURS)
        return Kept(stored.ids, stored.load(CPU))


def counted(kv: SequenceKV, positions: int) -> list[list[int]]:
    """The bits at the positions that count."""
    return [kvfile.raw(store)[:, :positions].flatten().tolist() for _, pair in kv.stores() for store in pair]


@pytest.mark.parametrize("dtype", kvfile.DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [1, BLOCK, BLOCK + 1])
def test_the_same_bits_come_back(tmp_path: Path, tokens: int, dtype: torch.dtype) -> None:
    """Ids, keys and values are as they were in any precision, and zero where nothing counted."""
    kept = computed(tokens, dtype=dtype)
    back = load(written(tmp_path / "f", kept))

    assert back.ids == kept.ids
    assert counted(back.kv, tokens) == counted(kept.kv, tokens)
    assert all(store.dtype == dtype for _, pair in back.kv.stores() for store in pair)
    assert all(not store[:, tokens:].any() for _, pair in back.kv.stores() for store in pair)
    assert {store.shape[1] for _, pair in back.kv.stores() for store in pair} == {rounded(tokens)}


@pytest.mark.parametrize(("drafted", "back"), [(None, 0), (0, 0), (3, 3), (20, 20), (25, 20)])
def test_the_draft_comes_back_as_far_as_it_counts(tmp_path: Path, drafted: int | None, back: int) -> None:
    """The draft's keys and values are kept as well, as far as it had followed, and what it only guessed is not."""
    kept = computed(20, drafted=drafted)
    again = load(written(tmp_path / "f", kept)).kv

    assert again.drafted == back
    assert (again.draft is None) == (back == 0)
    if again.draft is not None and kept.kv.draft is not None:
        assert counted(again.draft, back) == counted(kept.kv.draft, back)


def test_no_more_is_written_than_counts(tmp_path: Path) -> None:
    """A file has its header, the positions that count, and two checksums."""
    size = written(tmp_path / "f", computed(20)).stat().st_size

    assert size == HEADER.size + 4 * 20 + 4 * ROW.size + CHECK + 2 * 3 * 20 * (4 + 8) * 4 + CHECK


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_is_overlooked(tmp_path_factory: pytest.TempPathFactory, place: float, bit: int) -> None:
    """Wherever one bit is another, the file is refused."""
    path = written(tmp_path_factory.mktemp("flip") / "f", computed(9, drafted=9))
    flip(path, int(place * path.stat().st_size), bit)

    with pytest.raises(Damaged):
        load(path)


TOKENS = 9
REGIONS = {
    "magic": 0,
    "version": 8,
    "fingerprint": 12,
    "number of ids": 44,
    "number of ids, far too many": 47,
    "number of stores": 48,
    "number of stores, far too many": 51,
    "ids": HEADER.size,
    "rows": HEADER.size + 4 * TOKENS + 3,
    "checksum of the header": HEADER.size + 4 * TOKENS + 4 * ROW.size,
    "first store": HEADER.size + 4 * TOKENS + 4 * ROW.size + CHECK,
    "last store": -CHECK - 1,
    "checksum": -1,
}


@pytest.mark.parametrize("place", REGIONS.values(), ids=list(REGIONS))
def test_damage_in_each_region_is_seen(tmp_path: Path, place: int) -> None:
    """Each region is under a checksum, and none is believed before."""
    path = written(tmp_path / "f", computed(TOKENS))
    flip(path, place % path.stat().st_size, 6)

    with pytest.raises(Damaged):
        load(path)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 0.5, 0.99, 1.01])
def test_a_file_of_another_length_is_refused(tmp_path: Path, share: float) -> None:
    """A file that was cut off, or to which something was added, is refused."""
    path = written(tmp_path / "f", computed(40))
    data = path.read_bytes()
    path.write_bytes((data + data)[: int(len(data) * share)])

    with pytest.raises(Damaged):
        load(path)


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    """Another model, or another draft, is another fingerprint."""
    path = written(tmp_path / "f", computed(9))

    with path.open("rb") as file, pytest.raises(Damaged, match="another model"):
        Stored(file, OTHERS)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    """Whatever lies there under our name is no cause for an error of another kind."""
    for data in (b"", b"hello", b"\0" * 10_000, bytes(range(256)) * 40):
        (tmp_path / "f").write_bytes(data)
        with pytest.raises(Damaged):
            load(tmp_path / "f")


def flip(path: Path, place: int, bit: int) -> None:
    """Change one bit of the file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)
