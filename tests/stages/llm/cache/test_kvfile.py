"""Keys and values in a file: the same bits come back, or nothing does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.llm.cache import kvfile
from stages.llm.cache.kv import BLOCK, Kept, blocks_for
from stages.llm.cache.kvfile import CHECK, HEADER, ROW, Damaged, Stored

OURS, OTHERS = kvfile.fingerprint(["model", ""]), kvfile.fingerprint(["model", "draft"])


def computed(tokens: int, *, layers: int = 2, dtype: torch.dtype = torch.float32, drafted: int = 0) -> Kept:
    """What a sequence of so many tokens leaves; more positions are stored than count."""
    blocks = random_blocks(tokens, (layers, 2, 3, BLOCK, 4), dtype)
    draft = random_blocks(drafted, (1, 2, 2, BLOCK, 8), dtype)
    return Kept(tuple(range(7, 7 + tokens)), blocks, draft, drafted)


def random_blocks(tokens: int, shape: tuple[int, ...], dtype: torch.dtype) -> list[torch.Tensor]:
    """As many blocks as so many tokens need."""
    return [torch.randn(shape).to(dtype) for _ in range(blocks_for(tokens))]


def written(path: Path, kept: Kept) -> Path:
    """The file of `kept`."""
    with path.open("wb") as file:
        kvfile.write(file, OURS, kept)
    return path


def load(path: Path) -> Kept:
    """What is in the file."""
    with path.open("rb") as file:
        return Stored(file, OURS).load()


def counted(blocks: list[torch.Tensor], positions: int) -> list[int]:
    """The bits at the positions that count."""
    if not blocks:
        return []
    bits: list[int] = kvfile.raw(torch.cat(blocks, 3)[:, :, :, :positions]).flatten().tolist()
    return bits


@pytest.mark.parametrize("dtype", kvfile.DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [1, BLOCK, BLOCK + 1])
def test_the_same_bits_come_back(tmp_path: Path, tokens: int, dtype: torch.dtype) -> None:
    """Ids, keys and values are as they were in any precision."""
    kept = computed(tokens, dtype=dtype)
    back = load(written(tmp_path / "f", kept))

    assert back.ids == kept.ids
    assert counted(back.blocks, tokens) == counted(kept.blocks, tokens)
    assert all((block.dtype, block.shape) == (dtype, kept.blocks[0].shape) for block in back.blocks)


@pytest.mark.parametrize("drafted", [0, 3, 20, 70])
def test_the_draft_comes_back_as_far_as_it_counts(tmp_path: Path, drafted: int) -> None:
    """The draft's keys and values are kept as well, as far as it had followed."""
    kept = computed(70, drafted=drafted)
    again = load(written(tmp_path / "f", kept))

    assert again.drafted == drafted
    assert counted(again.draft, drafted) == counted(kept.draft, drafted)


def test_no_more_is_written_than_counts(tmp_path: Path) -> None:
    """A file has its header, the blocks in which something counts, and two checksums."""
    size = written(tmp_path / "f", computed(20)).stat().st_size

    assert size == HEADER.size + 4 * 20 + ROW.size + CHECK + 2 * 2 * 3 * BLOCK * 4 * 4 + CHECK


def test_the_order_within_a_block_is_the_models(tmp_path: Path) -> None:
    """A last block with few positions comes back whole, as its numbers need not lie position by position."""
    kept = computed(3)

    assert torch.equal(load(written(tmp_path / "f", kept)).blocks[0], kept.blocks[0])


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
    "number of drafted ids": 48,
    "number of stores": 52,
    "number of stores, far too many": 55,
    "ids": HEADER.size,
    "rows": HEADER.size + 4 * TOKENS + 3,
    "checksum of the header": HEADER.size + 4 * TOKENS + ROW.size,
    "first block": HEADER.size + 4 * TOKENS + ROW.size + CHECK,
    "last block": -CHECK - 1,
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
