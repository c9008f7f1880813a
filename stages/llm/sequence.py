"""One answer in the making, as the model thread sees it: its tokens, what of them is computed, and when it ends."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from pipeline.messages import FinishReason, Prompt
from stages.detokenize import Vocabulary
from stages.llm.kv import SequenceKV
from stages.llm.sampling import Choice
from stages.llm.stage import Run
from stages.stops import StopFinder


class Sequence:
    """A prompt and its answer so far.

    `ids` are certain, `drafts` follow them by guess; the keys and values of the first `computed` are stored. All else
    can be told from these: a new worker that is given `prompt.emitted` stands where the former one stood.
    """

    def __init__(self, number: int, prompt: Prompt, vocabulary: Vocabulary, *, context: int) -> None:
        self.number = number
        self.scope = prompt.session
        self.sampling = prompt.sampling
        self.ids = [*prompt.ids, *prompt.emitted]
        self.drafts: list[int] = []
        self.kv = SequenceKV()
        self.computed = 0
        self.cached = 0
        self.finish: FinishReason | None = None
        self._most = min(len(prompt.ids) + prompt.sampling.max_output_tokens, context)
        self._stop = _StopWatch(vocabulary, prompt.sampling.stop) if prompt.sampling.stop else None
        if any(self._stops(token) for token in prompt.emitted):
            self.finish = "stop"
        elif len(self.ids) >= self._most:
            self.finish = "length"

    @property
    def pending(self) -> int:
        """Tokens to compute before the next one can be chosen."""
        return len(self.ids) + len(self.drafts) - self.computed

    @property
    def room(self) -> int:
        """Tokens that the answer may still have."""
        return self._most - len(self.ids)

    def tokens(self, count: int) -> list[int]:
        """The next `count` to compute."""
        end = self.computed + count
        known = self.ids[self.computed : end]
        return known + self.drafts[max(0, self.computed - len(self.ids)) : max(0, end - len(self.ids))]

    def choices(self) -> list[Choice]:
        """How to choose the token after the last certain one, and after each draft."""
        ask, first = self.sampling, len(self.ids)
        return [
            Choice(ask.seed, position, ask.temperature, ask.top_p)
            for position in range(first, first + len(self.drafts) + 1)
        ]

    def advance(self, count: int) -> None:
        """`count` more were computed, but the last certain one is not yet among them."""
        self.computed += count

    def accept(self, chosen: Seq[int], eos: frozenset[int]) -> Run:
        """Go on with what the model has `chosen` (see `choices`): all that follows from right guesses.

        The model's own choice counts at every position. A draft saves time if it is equal, and costs nothing but the
        computing if not: what was stored for it is overwritten.
        """
        new: list[int] = []
        drafts, self.drafts = self.drafts, []
        self.computed = len(self.ids)
        for token, guess in zip(chosen, [*drafts, None], strict=True):
            if token in eos:
                self.finish = "stop"
                break
            new.append(token)
            self.ids.append(token)
            self.finish = "stop" if self._stops(token) else "length" if len(self.ids) >= self._most else None
            if self.finish or token != guess:
                break
            self.computed += 1
        return Run(tuple(new), self.finish, self.cached)

    def _stops(self, token: int) -> bool:
        return self._stop is not None and self._stop.feed(token)


class _StopWatch:
    """Whether the text of the tokens so far contains a stop string."""

    def __init__(self, vocabulary: Vocabulary, stops: Seq[str]) -> None:
        self._detokenizer = vocabulary.start()
        self._finder = StopFinder(stops)

    def feed(self, token: int) -> bool:
        self._finder.feed(self._detokenizer.feed(token))
        return self._finder.found
