"""What the sessions' last turns left in a pool: as long as it is there whole, it can be handed to a tier below."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Run(NamedTuple):
    """The tokens of a session's last turn, where their chain begins, and when it ended (`time.time`)."""

    chain: bytes
    ids: tuple[int, ...]
    used: float


class Runs:
    """The last run of each scope, at most `most`, and which blocks it lies in; of a block of several, the latest.

    A run whose blocks all came to lie in later ones has none by which it could be missed, so the bound is needed.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._scopes: dict[int, str] = {}

    def remember(self, scope: str, run: Run, blocks: Iterable[int]) -> None:
        """`run` lies in `blocks`, in place of what the scope had before."""
        self._runs.pop(scope, None)
        for block in blocks:
            self._scopes[block] = scope
            self._runs[scope] = run
        if len(self._runs) > self._most:
            self._runs.popitem(last=False)

    def due(self, block: int) -> tuple[str, Run] | None:
        """What goes with `block`."""
        scope = self._scopes.get(block, "")
        return (scope, self._runs[scope]) if scope in self._runs else None

    def drop(self, block: int) -> None:
        """`block` holds nothing any more, so what lay in it is no longer whole."""
        self._runs.pop(self._scopes.pop(block, ""), None)

    def latest_first(self) -> Iterator[tuple[str, Run]]:
        """All, by scope."""
        return reversed(self._runs.items())
