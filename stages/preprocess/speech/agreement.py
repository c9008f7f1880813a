"""LocalAgreement-2: of two transcripts in a row of a growing piece, what both begin with will hardly change any more.

From Liu et al., *Low-Latency Sequence-to-Sequence Speech Recognition and Translation by Partial Hypothesis Selection*
(2020), as whisper_streaming uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from stages.preprocess.speech.recogniser import Heard

SLACK_S = 0.1
"""Seconds by which a word's time may differ from one transcript to the next."""


class Agreement:
    """The words of one piece that are agreed upon, `agreed`, in their order."""

    def __init__(self) -> None:
        self.agreed: list[Heard] = []
        self._before: Sequence[Heard] = ()

    def hear(self, words: Sequence[Heard]) -> None:
        """Another transcript, of more of the piece than the one before."""
        fresh = self.after(words)
        pairs = zip(fresh, self._before, strict=False)
        common = [word for word, _ in takewhile(lambda pair: alike(*pair), pairs)]
        self.agreed += common
        self._before = fresh[len(common) :]

    def after(self, words: Sequence[Heard]) -> Sequence[Heard]:
        """Those of `words` that come after what is agreed upon.

        If they do not begin with that, they are told by their times; words at the seam that are the same stay out.
        """
        count = len(self.agreed)
        if len(words) >= count and all(map(alike, words, self.agreed)):
            return words[count:]
        later = [word for word in words if word.start > self.agreed[-1].end - SLACK_S]
        overlap = next((n for n in range(min(count, len(later)), 0, -1) if self._repeats(later[:n])), 0)
        return later[overlap:]

    def _repeats(self, words: Sequence[Heard]) -> bool:
        """Whether what is agreed upon ends with `words`."""
        return all(map(alike, words, self.agreed[-len(words) :]))


def alike(one: Heard, other: Heard) -> bool:
    """Whether they are the same word, however it is written."""
    return plain(one.text) == plain(other.text)


def plain(text: str) -> str:
    """`text` without case, white space and punctuation; what is nothing else stays."""
    return "".join(filter(str.isalnum, text)).casefold() or text.strip()
