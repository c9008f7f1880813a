"""Which values the sampling parameters can have. Knows no model: ids are checked where the vocabulary is known."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from types import MappingProxyType
from typing import NamedTuple

from pipeline.errors import InvalidParameter
from pipeline.messages import Grammar, Sampling

LONGEST_STOP = 256
"""Characters in a stop string."""
MOST_STOP_IDS = 64
MOST_BIASES = 300
LARGEST_BIAS = 100.0
"""Enough to rule a token out, or to have nothing else."""
LONGEST_GRAMMAR = 65536
"""Characters in a schema or an expression."""


class Range(NamedTuple):
    """Numbers from `least` to `most`; where `open_below`, `least` itself is none of them."""

    least: float
    most: float
    open_below: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` is one of them."""
        return isfinite(value) and self.least <= value <= self.most and not (self.open_below and value == self.least)

    def __str__(self) -> str:
        least = f"more than {self.least:g}" if self.open_below else f"at least {self.least:g}"
        return least if self.most == inf else f"{least} and at most {self.most:g}"


RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "max_output_tokens": Range(1, inf),
        "temperature": Range(0, inf),
        "top_p": Range(0, 1, open_below=True),
        "top_k": Range(0, 1_000_000),
        "min_p": Range(0, 1),
        "repetition_penalty": Range(0, 10, open_below=True),
        "presence_penalty": Range(-2, 2),
        "frequency_penalty": Range(-2, 2),
        "logprobs": Range(0, 20),
        "speculation": Range(0, 16),
        "priority": Range(0, 9),
    }
)
"""Numbers that a request can say, by their names in `Sampling`."""


def check(sampling: Sampling) -> None:
    """Refuse what cannot be honoured.

    Raises:
        InvalidParameter: names the parameter, and says which values it can have.
    """
    for name, numbers in RANGES.items():
        value = getattr(sampling, name)
        if value is not None and not numbers.holds(value):
            raise InvalidParameter(name, f"must be a number, {numbers}")
    if any(not 0 < len(stop) <= LONGEST_STOP for stop in sampling.stop):
        raise InvalidParameter("stop", f"each stop string must have 1 to {LONGEST_STOP} characters")
    if len(sampling.stop_ids) > MOST_STOP_IDS:
        raise InvalidParameter("stop_ids", f"at most {MOST_STOP_IDS} token ids")
    _check_bias(sampling.logit_bias)
    if sampling.grammar is not None:
        _check_grammar(sampling.grammar)


def check_ids(sampling: Sampling, vocabulary: int, model: str) -> None:
    """Refuse token ids that a `model` with a `vocabulary` of so many does not have.

    Raises:
        InvalidParameter: names the parameter.
    """
    for name, ids in (("logit_bias", [token for token, _ in sampling.logit_bias]), ("stop_ids", sampling.stop_ids)):
        if wrong := [token for token in ids if not 0 <= token < vocabulary]:
            raise InvalidParameter(name, f"{model!r} has no token {wrong[0]}; its ids are 0 to {vocabulary - 1}")


def _check_bias(pairs: tuple[tuple[int, float], ...]) -> None:
    if len(pairs) > MOST_BIASES or len({token for token, _ in pairs}) < len(pairs):
        raise InvalidParameter("logit_bias", f"at most {MOST_BIASES} token ids, each once")
    if any(not abs(bias) <= LARGEST_BIAS for _, bias in pairs):
        raise InvalidParameter("logit_bias", f"each bias must be a number from -{LARGEST_BIAS:g} to {LARGEST_BIAS:g}")


def _check_grammar(grammar: Grammar) -> None:
    if not 0 < len(grammar.text) <= LONGEST_GRAMMAR:
        raise InvalidParameter("grammar", f"must have 1 to {LONGEST_GRAMMAR} characters")
