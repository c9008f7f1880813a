"""Try the kernels on a case, in the interpreter or on a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from stages.llm.gpu import launch, plain
from tests.stages.llm.gpu.cases import Case, Setting, expected, filled, setting

TOLERANCE = {torch.float32: 2e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Of results of order 1: the kernel rounds the weights to the precision of the values, as is usual."""


class Seen(NamedTuple):
    """The largest errors of the kernels and of plain torch; whether bits and stored numbers are what they should be.

    `beside`: splits beside each other give the same bits as one after another. `alone`: so do sequences computed alone
    and in other pieces. `stored`: keys and values are where they belong, and nothing else was written.
    """

    error: float
    plain_error: float
    beside: bool
    alone: bool
    stored: bool


def see(case: Case, device: torch.device) -> Seen:
    """Compute `case` in all ways."""
    given = setting(case, device)
    other = replace(given, store=given.store.clone())
    right = expected(case, given)
    result = attend(case, given, beside=False)
    again = attend(case, given, beside=True)
    by_plain = _plain(case, other)
    parts = torch.cat([_alone(case, given, number) for number in range(len(case.spans))])
    return Seen(
        _error(result, right),
        _error(by_plain, right),
        torch.equal(result, again),
        torch.equal(result[: len(parts)], parts),
        torch.equal(given.store.nan_to_num(9.0), other.store.nan_to_num(9.0)),
    )


def attend(case: Case, given: Setting, *, beside: bool | None = None) -> Tensor:
    """What the kernels say, after they have stored the new keys and values."""
    launch.write(given.store, given.keys, given.values, given.tables.slots)
    return launch.attend(
        given.query,
        given.store,
        given.tables,
        scaling=case.scaling,
        window=case.window,
        softcap=case.softcap,
        beside=beside,
    )


def _plain(case: Case, given: Setting) -> Tensor:
    plain.write(given.store, given.keys, given.values, given.tables)
    return plain.attend(
        given.query, given.store, given.tables, scaling=case.scaling, window=case.window, softcap=case.softcap
    )


def _alone(case: Case, given: Setting, number: int) -> Tensor:
    """The rows of one sequence, with nobody beside it: its first half at once, then one token, then the rest."""
    place = given.tables.places[number]
    half = place.count // 2
    results = []
    for at, count in ((0, half), (half, 1), (half + 1, place.count - half - 1)):
        if count > 0:
            piece = replace(place, row=0, count=count, start=place.start + at)
            rows = slice(place.row + at, place.row + at + count)
            tables = filled([piece], count, given.store)
            part = replace(
                given, query=given.query[rows], keys=given.keys[rows], values=given.values[rows], tables=tables
            )
            results.append(attend(case, part, beside=at > 0))
    return torch.cat(results)


def _error(result: Tensor, right: Tensor) -> float:
    """The largest difference; infinite if there is any that is no number."""
    return float((result.cpu().double() - right).abs().nan_to_num(float("inf")).max())
