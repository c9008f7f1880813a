"""One sequence's keys and values in a file: raw numbers behind a header that says whose they are.

    header: magic, version, fingerprint, number of ids, number of stores | ids | a row for each store | its checksum
    data:   the stores one after the other, only the positions that count | checksum of everything before

Little-endian, no pickle. A row is a layer's keys or values, of the model or of its draft. Nothing is believed before
its checksum was right; whatever is not as it was written is `Damaged`. Knows no folder.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from stages.llm.kv import Kept, SequenceKV, rounded

MAGIC, VERSION = b"PENSTKV\n", 1
HEADER = struct.Struct("<8sI32sII")
ROW = struct.Struct("<BBBIIII")
CHECK = 16
"""Bytes of a checksum."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Damaged(Exception):
    """The file is not what was written, or not for us; the text says why."""


class Row(NamedTuple):
    """A store: whether it is the draft's, whether it holds values, its `DTYPES` number, and its extent."""

    draft: int
    values: int
    dtype: int
    layer: int
    heads: int
    positions: int
    size: int

    @property
    def bytes(self) -> int:
        """What it takes in the file."""
        return self.heads * self.positions * self.size * DTYPES[self.dtype].itemsize


def write(file: BinaryIO, fingerprint: bytes, kept: Kept) -> None:
    """Write `kept` for whoever has the same `fingerprint` (32 bytes)."""
    check = _checksum()

    def say(data: Any) -> None:
        file.write(data)
        check.update(data)

    stores = list(_stores(kept))
    say(HEADER.pack(MAGIC, VERSION, fingerprint, len(kept.ids), len(stores)))
    say(struct.pack(f"<{len(kept.ids)}I", *kept.ids))
    say(b"".join(ROW.pack(*row) for row, _ in stores))
    say(check.digest())
    for row, store in stores:
        for head in raw(store):
            say(head[: row.positions].reshape(-1).data)
    file.write(check.digest())


class Stored:
    """An open file: its `ids` and `size` at once, the rest when it is asked for.

    Raises:
        Damaged: it is another's, of another version, cut off or altered.
    """

    def __init__(self, file: BinaryIO, fingerprint: bytes) -> None:
        self._file, self._check = file, _checksum()
        self.size = os.fstat(file.fileno()).st_size
        magic, version, whose, ids, rows = HEADER.unpack(self._read(HEADER.size))
        if (magic, version, whose) != (MAGIC, VERSION, fingerprint):
            raise Damaged("it is of another model, machine or version")
        numbers = self._read(4 * ids)
        table = self._read(ROW.size * rows)
        self._verify()
        self.ids: tuple[int, ...] = struct.unpack(f"<{ids}I", numbers)
        self._rows = [Row(*row) for row in ROW.iter_unpack(table)]
        if self.size != file.tell() + sum(row.bytes for row in self._rows) + CHECK:
            raise Damaged("it is cut off or has more than it should")

    def load(self, device: torch.device) -> SequenceKV:
        """The keys and values of all `ids`.

        Raises:
            Damaged: they are not what was written.
        """
        kv = SequenceKV()
        draft = SequenceKV()
        for keys, values in zip(self._rows[::2], self._rows[1::2], strict=True):
            into = draft if keys.draft else kv
            into.adopt(keys.layer, self._store(keys).to(device), self._store(values).to(device))
            if keys.draft:
                kv.draft, kv.drafted = draft, keys.positions
        self._verify()
        return kv

    def _store(self, row: Row) -> Tensor:
        """The next store; zeros where it has no positions, as when it was computed."""
        store = torch.zeros(row.heads, rounded(row.positions), row.size, dtype=DTYPES[row.dtype])
        for head in raw(store):
            part = head[: row.positions].reshape(-1).data
            if self._file.readinto(part) != part.nbytes:  # type: ignore[attr-defined] # BinaryIO lacks it, files have it
                raise Damaged("it is cut off")
            self._check.update(part)
        return store

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


def raw(store: Tensor) -> Any:
    """The bytes of `store`, a numpy array [heads, positions, bytes]; of the same memory if that is the processor's."""
    return store.detach().cpu().view(torch.uint8).numpy()


def _checksum() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=CHECK)


def _stores(kept: Kept) -> Iterator[tuple[Row, Tensor]]:
    """Keys and values in turn, layer by layer: the model's, then the draft's as far as it has come."""
    yield from _rows(kept.kv, len(kept.ids), draft=0)
    drafted = min(kept.kv.drafted, len(kept.ids))
    if kept.kv.draft is not None and drafted:
        yield from _rows(kept.kv.draft, drafted, draft=1)


def _rows(kv: SequenceKV, positions: int, *, draft: int) -> Iterator[tuple[Row, Tensor]]:
    for layer, pair in kv.stores():
        for values, store in enumerate(pair):
            heads, _, size = store.shape
            yield Row(draft, values, DTYPES.index(store.dtype), layer, heads, positions, size), store


def digest(kv: SequenceKV) -> str:
    """What tells the bits of one sequence's keys and values from any others."""
    check = _checksum()
    for _, pair in kv.stores():
        for store in pair:
            check.update(raw(store).reshape(-1).data)
    return check.hexdigest()


def fingerprint(revisions: Sequence[str]) -> bytes:
    """Who may read a file: the models with these revisions."""
    return hashlib.sha256("\0".join(revisions).encode()).digest()
