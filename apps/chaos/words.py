"""What the parts of a verdict say of a guarantee that did not hold."""

from __future__ import annotations

from typing import NamedTuple


class Broken(NamedTuple):
    """A guarantee that did not hold: which, for whom, how, and the faults that may have to do with it."""

    guarantee: str
    who: str
    how: str
    faults: tuple[str, ...]
