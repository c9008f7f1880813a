"""The text of one answer as its tokens come in: detokenised, cut at a stop string, counted in characters."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from pipeline.messages import Likelihood
from stages.detokenize import Vocabulary
from stages.stops import StopFinder


class Answer:
    """One answer in the making. `tokens` are known, `length` characters (Unicode code points) were told."""

    def __init__(self, vocabulary: Vocabulary, *, stops: Sequence[str]) -> None:
        self._vocabulary = vocabulary
        self._detokenizer = vocabulary.start()
        self._finder = StopFinder(stops)
        self._decoded = 0
        self._ends: deque[int] = deque()
        self._likelihoods: deque[tuple[int, Likelihood]] = deque()
        self.tokens = 0
        self.length = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string was complete."""
        return self._finder.found

    @property
    def index(self) -> int:
        """The number of the first token that is not yet wholly told."""
        while self._ends and self._ends[0] <= self.length:
            self._ends.popleft()
        return self.tokens - len(self._ends)

    def add(self, ids: Sequence[int], likelihoods: Sequence[Likelihood] = ()) -> str:
        """The text that has become certain with `ids`, of which the `likelihoods` are known or not."""
        self._likelihoods.extend(enumerate(likelihoods, self.tokens))
        told = "".join([self._finder.feed(self._decode(token)) for token in ids])
        self.length += len(told)
        return told

    def finish(self) -> str:
        """The text that was held back as the possible beginning of a stop string."""
        told = self._finder.flush()
        self.length += len(told)
        return told

    def likelihoods(self) -> tuple[Likelihood, ...]:
        """Those of the tokens that are wholly told by now, each once; what a stop string cuts off is not among them."""
        told = []
        while self._likelihoods and self._likelihoods[0][0] < self.index:
            told.append(self._spelt(self._likelihoods.popleft()[1]))
        return tuple(told)

    def _spelt(self, one: Likelihood) -> Likelihood:
        """`one` with the bytes that its tokens stand for."""
        top = tuple(map(self._spelt, one.top))
        return msgspec.structs.replace(one, top=top, data=self._vocabulary.bytes_of(one.id))

    def _decode(self, token: int) -> str:
        """The characters that `token` completes; remembers where its own last one ends."""
        text = self._detokenizer.feed(token)
        self._decoded += len(text)
        self.tokens += 1
        self._ends.append(self._decoded + (1 if self._detokenizer.pending else 0))
        return text
