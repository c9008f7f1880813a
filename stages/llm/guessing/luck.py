"""How often guesses are right: in one sequence, and in all of them.

An exponential average over the tokens that were judged: those up to the first wrong one, of which the model has said
what it would have chosen. A sequence starts with what holds for all, and comes back to it as its own luck grows old.
"""

from __future__ import annotations

from dataclasses import dataclass

COMMON, OWN = 0.02, 0.1
"""How much the latest judged token counts, for all sequences and for its own."""

TRUST = 4.0
"""What holds for all counts as much as so many tokens of one's own."""

AGING = 0.98
"""What remains of one's own evidence from one step to the next."""


@dataclass(slots=True)
class Common:
    """What holds for all sequences; `value` is what is thought before any guess."""

    value: float

    def saw(self, right: bool) -> None:
        """A guess was judged."""
        self.value += COMMON * (right - self.value)


@dataclass(slots=True)
class Luck:
    """What holds for one sequence: of about `judged` guesses of late, `hits` were right."""

    common: Common
    judged: float = 0.0
    hits: float = 0.0

    @property
    def value(self) -> float:
        """The probability that the next guess is right, if those before it were."""
        return (self.hits + TRUST * self.common.value) / (self.judged + TRUST)

    def saw(self, right: int, wrong: bool) -> None:
        """So many guesses in a row were `right`, and perhaps the next one `wrong`."""
        for hit in (*(True,) * right, *(False,) * wrong):
            self.common.saw(hit)
            self.hits += hit - OWN * self.hits
            self.judged += 1 - OWN * self.judged

    def age(self) -> None:
        """Time has passed."""
        self.hits *= AGING
        self.judged *= AGING
