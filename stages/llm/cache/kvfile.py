"""The keys and values of a text in a file: raw numbers behind a header that says whose they are.

    header: magic, version, fingerprint, number of ids, of which drafted, number of stores | ids | a row for each store
            | checksum
    data:   block after block of the model's store, then of the draft's | checksum of everything before

Little-endian, no pickle. A block is [layers, 2, heads, BLOCK, size], in whatever order the model keeps its numbers
there; the last one is whole, too. Nothing is believed before its checksum was right; what is not as it was written is
`Damaged`. Knows no folder.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from stages.llm.cache.kv import BLOCK, Kept, blocks_for

MAGIC, VERSION = b"PENSTKV\n", 3
HEADER = struct.Struct("<8sI32sIII")
ROW = struct.Struct("<BIIII")
CHECK = 16
"""Bytes of a checksum."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Damaged(Exception):
    """The file is not what was written, or not for us; the text says why."""


class Row(NamedTuple):
    """A store, the model's or its draft's: the number of its type in `DTYPES`, and how many positions of what shape."""

    dtype: int
    layers: int
    heads: int
    positions: int
    size: int

    @property
    def bytes(self) -> int:
        """What it takes in the file."""
        return self.blocks * self.layers * 2 * self.heads * BLOCK * self.size * DTYPES[self.dtype].itemsize

    @property
    def blocks(self) -> int:
        """How many blocks it has."""
        return blocks_for(self.positions)


def write(file: BinaryIO, fingerprint: bytes, kept: Kept) -> None:
    """Write `kept` for whoever has the same `fingerprint` (32 bytes)."""
    check = _checksum()

    def say(data: Any) -> None:
        file.write(data)
        check.update(data)

    stores = [_row(kept.blocks, len(kept.ids))]
    if kept.drafted:
        stores.append(_row(kept.draft, kept.drafted))
    say(HEADER.pack(MAGIC, VERSION, fingerprint, len(kept.ids), kept.drafted, len(stores)))
    say(struct.pack(f"<{len(kept.ids)}I", *kept.ids))
    say(b"".join(ROW.pack(*row) for row in stores))
    say(check.digest())
    for row, blocks in zip(stores, (kept.blocks, kept.draft), strict=False):
        for block in blocks[: row.blocks]:
            say(raw(block.contiguous()).reshape(-1).data)
    file.write(check.digest())


class Stored:
    """An open file: its `ids` and `size` at once, the rest when it is asked for.

    Raises:
        Damaged: it is another's, of another version, cut off or altered.
    """

    def __init__(self, file: BinaryIO, fingerprint: bytes) -> None:
        self._file, self._check = file, _checksum()
        self.size = os.fstat(file.fileno()).st_size
        magic, version, whose, ids, self._drafted, rows = HEADER.unpack(self._read(HEADER.size))
        if (magic, version, whose) != (MAGIC, VERSION, fingerprint):
            raise Damaged("it is of another model, machine or version")
        numbers = self._read(4 * ids)
        table = self._read(ROW.size * rows)
        self._verify()
        self.ids: tuple[int, ...] = struct.unpack(f"<{ids}I", numbers)
        self._rows = [Row(*row) for row in ROW.iter_unpack(table)]
        if self.size != file.tell() + sum(row.bytes for row in self._rows) + CHECK:
            raise Damaged("it is cut off or has more than it should")

    def load(self) -> Kept:
        """The keys and values of all `ids`, in the host's memory.

        Raises:
            Damaged: they are not what was written.
        """
        stores = [[self._block(row) for _ in range(row.blocks)] for row in self._rows]
        self._verify()
        return Kept(self.ids, stores[0], stores[1] if len(stores) > 1 else [], self._drafted)

    def _block(self, row: Row) -> Tensor:
        """The next block."""
        block = torch.empty(row.layers, 2, row.heads, BLOCK, row.size, dtype=DTYPES[row.dtype])
        data = raw(block).reshape(-1).data
        if self._file.readinto(data) != data.nbytes:  # type: ignore[attr-defined] # BinaryIO lacks it, files have it
            raise Damaged("it is cut off")
        self._check.update(data)
        return block

    def _read(self, count: int) -> bytes:
        if count > self.size:
            raise Damaged("it is cut off")
        data = self._file.read(count)
        if len(data) != count:
            raise Damaged("it is cut off")
        self._check.update(data)
        return data

    def _verify(self) -> None:
        expected = self._check.digest()
        if self._read(CHECK) != expected:
            raise Damaged("its checksum is wrong")


def raw(block: Tensor) -> Any:
    """The bytes of `block`, a numpy array; of the same memory if that is the processor's."""
    return block.detach().cpu().view(torch.uint8).numpy()


def _checksum() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=CHECK)


def _row(blocks: Sequence[Tensor], positions: int) -> Row:
    layers, _, heads, _, size = blocks[0].shape
    return Row(DTYPES.index(blocks[0].dtype), layers, heads, positions, size)


def digest(kept: Kept) -> str:
    """What tells the bits of a text's keys and values from any others."""
    check = _checksum()
    for block in kept.blocks:
        check.update(raw(block).reshape(-1).data)
    return check.hexdigest()


def fingerprint(revisions: Sequence[str]) -> bytes:
    """Who may read a file: the models with these revisions."""
    return hashlib.sha256("\0".join(revisions).encode()).digest()
