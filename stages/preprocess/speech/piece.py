"""A piece of speech: as much sound as the recogniser is given at once, and what it said of it so far."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.messages import Problem
from pipeline.voice import RATE
from stages.preprocess.speech.agreement import Agreement
from stages.preprocess.speech.ear import FRAME
from stages.preprocess.speech.recogniser import Heard, Transcription, Urgency
from stages.preprocess.speech.resample import Samples


class Answer(Future[Transcription]):
    """What will be said of some sound; `begun` tells that this is being recognised, or was."""

    begun = False

    @property
    def waits(self) -> bool:
        """Whether nobody has begun with it."""
        return not (self.begun or self.done())


Ask = Callable[[Sequence[Samples], Urgency], Answer]
"""(frames, how much it is needed) → what will be said of them."""

LEAST_VOICED = 3
"""Frames with speech, 32 ms each, below which there is no word in a piece."""

SEAM_S = 3.0
"""Seconds at the end of a piece that is too long in which it is cut."""

SEAM_FRAMES = 3
"""Frames on each side of a word's end in which the quietest is looked for, to cut there."""


class Piece:
    """Sound from position `start` on, in frames; `voiced` of them have speech, which begins at `speech`."""

    def __init__(self, start: int, frames: Sequence[Samples] = (), voiced: int = 0, speech: int | None = None) -> None:
        self.start = start
        self.speech = start if speech is None else speech
        self.voiced = voiced
        self.agreement = Agreement()
        self.told = 0
        self.asked = start
        self.closed = False
        self.said: Transcription | None = None
        self.problem: Problem | None = None
        self._frames = list(frames)
        self._closing: Answer | None = None
        self._closes = 0
        self._partials: list[Answer] = []

    @property
    def end(self) -> int:
        """The position after its last frame."""
        return self.start + len(self._frames) * FRAME

    @property
    def closing(self) -> bool:
        """Whether it was asked what it would be closed with."""
        return self._closing is not None

    @property
    def unanswered(self) -> list[Answer]:
        """What was asked and is not answered."""
        asked = [*self._partials, *([self._closing] if self._closing else [])]
        return [one for one in asked if not one.done()]

    @property
    def waits(self) -> bool:
        """Whether it is not yet known what it would be closed with, although that was asked."""
        return self._closing is not None and not self._closing.done()

    @property
    def worded(self) -> bool:
        """Whether there is enough speech in it for a word."""
        return self.voiced >= LEAST_VOICED

    def add(self, frame: Samples, *, voiced: bool) -> None:
        """The next 32 ms."""
        self._frames.append(frame)
        self.voiced += voiced

    def ask(self, ask: Ask) -> None:
        """Ask what is said so far."""
        self.asked = self.end
        self._partials.append(ask(self._frames, "partial"))

    def ask_to_close(self, ask: Ask, urgency: Urgency) -> None:
        """Ask what is said, as if it ended here; of what is asked already, that makes superfluous what still waits."""
        for partial in self._partials:
            if partial.waits:
                partial.cancel()
        self._closes = len(self._frames)
        self._close_with(ask, urgency)

    def _close_with(self, ask: Ask, urgency: Urgency) -> None:
        if self.worded:
            self._closing = ask(self._frames[: self._closes], urgency)
        else:
            self._closing = Answer()
            self._closing.set_result(Transcription())

    def go_on(self, step: int) -> None:
        """There is more speech: the answer as it would have been is as good as any other before the end.

        If nobody has begun with it, one that hears more is better; and one that hears hardly more than the one before,
        by less than `step` positions, agrees with that too easily.
        """
        if self._closing is None:
            return
        asked = self.start + self._closes * FRAME
        if self._closing.waits or asked - self.asked < step:
            self._closing.cancel()
        else:
            self._partials.append(self._closing)
            self.asked = asked
        self._closing = None

    def need(self, ask: Ask) -> None:
        """What it was asked to close with must be known, as soon as can be."""
        if self._closing is not None and self._closing.waits:
            self._closing.cancel()
            self._close_with(ask, "final")

    def close(self, ask: Ask) -> None:
        """It ends here. What it was asked to close with stands; if that was refused it is asked again, the same."""
        self.need(ask)
        if self._closing is None:
            self.ask_to_close(ask, "final")
        elif self._closing.done() and self._closing.exception():
            self._close_with(ask, "final")
        self.closed = True
        for partial in self._partials:
            partial.cancel()

    def give_up(self) -> None:
        """Nobody wants to know any more."""
        for answer in self.unanswered:
            answer.cancel()

    def preview(self) -> Transcription | None:
        """What it would be closed with, as far as it is known."""
        if self.said is None and self._closing is not None and self._closing.done():
            return Transcription() if self._closing.exception() else self._closing.result()
        return self.said

    def collect(self, explain: Callable[[BaseException], Problem]) -> None:
        """Take in what has been answered since; the sound of what is closed is no longer needed."""
        for partial in [one for one in self._partials if one.done()]:
            self._partials.remove(partial)
            if not partial.cancelled() and not partial.exception():
                self.agreement.hear(partial.result().words)
        if self.closed and self.said is None and self._closing is not None and self._closing.done():
            if error := self._closing.exception():
                self.problem = explain(error)
            self._finish(self._closing.result() if not error else Transcription())

    def cut(self) -> Piece:
        """Of a piece that was as long as can be: close it behind a word of its last seconds, and give the rest.

        What it was asked to close with must be known.
        """
        known = self.preview()
        assert known is not None
        place = self._seam(known.words)
        rest = Piece(self.start + place * FRAME, self._frames[place:], LEAST_VOICED)
        self._frames = self._frames[:place]
        if self._closing is not None and not self._closing.exception():
            until = place * FRAME / RATE
            self._hand_on(rest, until)
            self._finish(Transcription(tuple(word for word in known.words if word.middle < until), known.language))
        self.closed = True
        return rest

    def _hand_on(self, rest: Piece, until: float) -> None:
        """Words that are agreed upon and stand behind the cut are those of the `rest`, which tells them no more."""
        agreed = self.agreement.agreed
        kept = next((number for number, word in enumerate(agreed) if word.middle >= until), len(agreed))
        rest.agreement.agreed = [word.earlier(until) for word in agreed[kept:]]
        rest.told = max(self.told - kept, 0)
        self.agreement.agreed, self.told = agreed[:kept], min(self.told, kept)

    def _finish(self, said: Transcription) -> None:
        """This is what was said."""
        self.said = said
        self.agreement.agreed += self.agreement.after(said.words)
        self._frames = []

    def _seam(self, words: Sequence[Heard]) -> int:
        """The number of the frame before which to cut: the quietest one near the end of a late word, but the last."""
        count = len(self._frames)
        ends = [round(word.end * RATE / FRAME) for word in words[:-1]]
        first = count - round(SEAM_S * RATE / FRAME)
        near = {
            frame
            for end in ends
            if end > first
            for frame in range(end - SEAM_FRAMES, end + SEAM_FRAMES + 1)
            if 0 < frame < count
        }
        return min(sorted(near), key=self._loudness, default=count)

    def _loudness(self, number: int) -> float:
        return float(np.mean(np.square(self._frames[number])))
