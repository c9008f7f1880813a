"""A transcript on a terminal while it grows: what is final as lines, below it what may still change, and how far it is.

Where the output is no terminal, only the final lines are written, as plain text.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from apps.voice.transcript import Transcript, Utterance

FRAMES_PER_S = 8
LONG_S = 10.0
"""A shorter recording has no bar."""


class Output(Console):
    """A console that says so where nobody reads it any more."""

    def on_broken_pipe(self) -> None:
        """Leave the BrokenPipeError that is being handled to the command."""
        raise  # noqa: PLE0704 - rich calls this where it handles one


class Display:
    """Shows a transcript; `text` says whether the final lines are written, too."""

    def __init__(self, transcript: Transcript, *, seconds: float | None, text: bool) -> None:
        self._transcript = transcript
        self._seconds, self._text = seconds, text
        self._written = 0
        self._on_terminal = sys.stdout.isatty() and text
        self._console = Output(stderr=not self._on_terminal)
        self._live: Live | None = None
        self._bar = Progress(
            TextColumn("[dim]{task.fields[at]}"), BarColumn(32), TimeElapsedColumn(), console=self._console
        )
        self._task: TaskID | None = None

    def changed(self, _utterance: Utterance) -> None:
        """Write what has become final, as far as all before it is, and draw the rest anew."""
        for one in list(self._transcript)[self._written :]:
            if not one.final:
                break
            self._written += 1
            self._write(one)
        self._draw()

    def sent(self, seconds: float) -> None:
        """So many seconds have been sent."""
        if self._task is None:
            return
        told = self._transcript.heard_until
        of = f" of {clock(self._seconds)}" if self._seconds else ""
        self._bar.update(self._task, completed=max(seconds, told), at=f"{clock(seconds)}{of}")
        self._draw()

    def _write(self, one: Utterance) -> None:
        if one.problem:
            Console(stderr=True).print(f"(not transcribed: {one.problem})", style="red", markup=False, highlight=False)
        elif one.text.strip() and self._text:
            if self._on_terminal:
                self._console.print(one.text.strip(), markup=False, highlight=False, soft_wrap=True)
            else:
                sys.stdout.write(one.text.strip() + "\n")
                sys.stdout.flush()

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(self._drawn())

    def _drawn(self) -> RenderableType:
        shown = [Text(one.text.strip() or "…", style="dim") for one in _growing(self._transcript)]
        return Group(*shown, *([self._bar] if self._task is not None else []))

    @contextmanager
    def live(self) -> Generator[None, None, None]:
        """Draw meanwhile, if there is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        if self._seconds is None or self._seconds >= LONG_S:
            self._task = self._bar.add_task("", total=self._seconds, at="")
        with Live(console=self._console, refresh_per_second=FRAMES_PER_S, transient=True) as self._live:
            yield
        self._live = None


def _growing(transcript: Transcript) -> Iterable[Utterance]:
    return [one for one in transcript if not one.final]


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
