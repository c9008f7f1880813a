"""What goes out of a command: into files, which are looked at before it begins, or to somebody who may stop reading."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

import typer

PIPE_GONE = 141
"""What shells report of a program that had nobody to write to."""


@contextmanager
def readers_may_go() -> Generator[None, None, None]:
    """End without a word where nobody reads the output any more: `| head`, say."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, BaseExceptionGroup) as error:
        if isinstance(error, BaseExceptionGroup) and error.split(BrokenPipeError)[1] is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed there
        raise typer.Exit(PIPE_GONE) from None


def unwritable(paths: Iterable[Path | None]) -> tuple[Path, str] | None:
    """The first of these files that could not be written at the end, and why."""
    for path in paths:
        if path is not None and (why := _fault(path)):
            return path, why
    return None


def _fault(path: Path) -> str:
    if path.is_dir():
        return "it is a folder"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    return "" if os.access(path if path.exists() else path.parent, os.W_OK) else "permission denied"
