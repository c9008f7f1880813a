"""What of one answer is to be spoken: numbered pieces of its text, and always a last one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pipeline.messages import Delta, Done, FinishReason, Message, Voice
from pipeline.voice import Sentence
from stages.postprocess.sentences import Cut, Cutter

CUT_SHORT = frozenset({"cancelled", "deadline", "failed"})
"""Ways to end of which nobody wants to hear what was not yet said."""


class Script:
    """The pieces of one answer, if there is a `voice` to speak it; `clock` tells the seconds since 1970."""

    def __init__(self, voice: Voice | None, clock: Callable[[], float]) -> None:
        self._voice = voice
        self._clock = clock
        self._cutter = Cutter()
        self._said = 0
        self._length = 0

    def add(self, delta: Delta) -> Iterator[Sentence]:
        """The pieces that are complete with `delta`."""
        if self._voice is not None:
            self._length += len(delta.text)
            yield from self._sentences(delta, self._cutter.feed(delta.text))

    def end(self, done: Done, reason: FinishReason) -> Iterator[Sentence]:
        """The last piece: what is left to be spoken, or nothing."""
        if self._voice is not None:
            cuts = [] if reason in CUT_SHORT else self._cutter.finish()
            yield from self._sentences(done, cuts or [Cut(self._length, "")], last=True)

    def _sentences(self, message: Message, cuts: Sequence[Cut], *, last: bool = False) -> Iterator[Sentence]:
        assert self._voice is not None
        for cut in cuts:
            number, self._said = self._said, self._said + 1
            since = self._clock()
            yield Sentence(message.session, message.turn, number, cut.at, cut.text, self._voice, since, last)
