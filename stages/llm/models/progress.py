"""Hear from transformers how far it has come with loading weights, instead of its own bars on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

STEPS = 100


@contextmanager
def told(what: str, tell: Callable[[str, float | None], None]) -> Generator[None, None, None]:
    """Within, the library's progress goes to `tell`."""
    from transformers.utils import logging

    tell(what, None)
    set_hook = getattr(logging, "set_tqdm_hook", None)
    if set_hook is None:  # an older transformers: told that it began, not how far it is
        yield
        return
    before = set_hook(lambda _factory, args, kwargs: _Bar(what, tell, args, kwargs))
    try:
        yield
    finally:
        set_hook(before)


class _Bar:
    """As much of a tqdm bar as the library uses: it is iterated over, or updated."""

    def __init__(
        self, what: str, tell: Callable[[str, float | None], None], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._what, self._tell = what, tell
        self._items: Iterable[Any] = args[0] if args else kwargs.get("iterable") or ()
        total = kwargs.get("total")
        self._total = total if total is not None else len(self._items) if hasattr(self._items, "__len__") else 0
        self._count = 0

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            yield item
            self.update()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args, **_kwargs: None

    def update(self, count: int = 1) -> None:
        """`count` more are done."""
        before, self._count = self._count, self._count + count
        if self._total and self._count * STEPS // self._total > before * STEPS // self._total:
            self._tell(self._what, min(1.0, self._count / self._total))
