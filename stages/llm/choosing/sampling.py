"""From logits to a token, as a pure function of the logits, the request, and the tokens before.

    token(position) = argmax(processed logits / T + g(seed, position)),   g Gumbel noise, see `noise.py`

The argmax of logits plus independent Gumbel noise is distributed as softmax(logits / T) (Gumbel, 1954). Since the noise
is a function of (seed, position), an answer does not depend on the batch, on where it was taken up again, or on what a
draft proposed. T = 0 drops the noise. Processing, in this order: penalties and bias, the grammar's mask, temperature,
top-k, top-p of what is left, min-p. Each row's bits are its own, whatever other rows ask for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.messages import Likelihood, Sampling
from stages.llm.choosing.noise import gumbel
from stages.llm.choosing.penalties import Shift, shifted
from stages.llm.stage import Run

SHORT = 256
"""So many of the likeliest tokens are looked at first; all of them only where more may be chosen."""

LEAST_LOGPROB = -9999.0
"""Stands for the logarithm of nothing, which JSON cannot say."""


class Choice(NamedTuple):
    """How to choose the token at `position` of a sequence (the prompt counted).

    `shift` are penalties and biases, which also count the `drafts` before the position in this step. `mask` says which
    tokens may be chosen: one bit each, the lowest of the first word first, int32 [words]; none beyond it.
    """

    seed: int
    position: int
    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    shift: Shift | None = None
    drafts: tuple[int, ...] = ()
    mask: Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether it is the model's likeliest token."""
        return self.temperature == 0 and self.shift is None and self.mask is None


def sample(logits: Tensor, choices: Sequence[Choice]) -> list[int]:
    """One token id for each row of `logits` ([rows, vocabulary]); rows beyond `choices` are padding."""
    if not choices:
        return []
    tokens = logits[: len(choices)].argmax(-1)
    asking = [row for row, choice in enumerate(choices) if not choice.plain]
    if asking:
        tokens[asking] = _choose(logits[asking], [choices[row] for row in asking])
    return [int(token) for token in tokens.tolist()]


def _choose(logits: Tensor, choices: Sequence[Choice]) -> Tensor:
    if rows := [row for row, choice in enumerate(choices) if choice.shift is not None]:
        shifts = [shift for choice in choices if (shift := choice.shift) is not None]
        logits[rows] = shifted(logits[rows], shifts, [choices[row].drafts for row in rows])
    if rows := [row for row, choice in enumerate(choices) if choice.mask is not None]:
        masks = [mask for choice in choices if (mask := choice.mask) is not None]
        logits[rows] = logits[rows].masked_fill(~allowed(masks, logits[rows]), float("-inf"))
    tokens = logits.argmax(-1)
    if rows := [row for row, choice in enumerate(choices) if choice.temperature > 0]:
        tokens[rows] = _draw(logits[rows], [choices[row] for row in rows])
    return tokens


def allowed(masks: Sequence[Tensor], logits: Tensor) -> Tensor:
    """`masks`, one for each row, as truth values of the shape of `logits` ([rows, vocabulary])."""
    words = torch.stack(list(masks)).to(logits.device)
    bits = (words[:, :, None] >> torch.arange(32, dtype=torch.int32, device=logits.device)) & 1
    known = bits.flatten(1)[:, : logits.shape[1]].bool()
    whole = logits.new_zeros(logits.shape, dtype=torch.bool)
    whole[:, : known.shape[1]] = known
    return whole


def _draw(logits: Tensor, choices: Sequence[Choice]) -> Tensor:
    temperatures = logits.new_tensor([choice.temperature for choice in choices], dtype=torch.float64)
    exact = logits.double()
    differences = (
        exact - exact.max(-1, keepdim=True).values
    )  # which no temperature, however low, makes infinite for all
    scores = _truncated(differences / temperatures[:, None], choices)
    possible = (scores != float("-inf")).sum(-1).tolist()
    tokens = torch.empty(len(choices), dtype=torch.int64, device=logits.device)
    if rows := [row for row, count in enumerate(possible) if count > SHORT]:
        tokens[rows] = _noisiest(scores[rows], [choices[row] for row in rows], logits.shape[1])
    if rows := [row for row, count in enumerate(possible) if count <= SHORT]:
        tokens[rows] = _noisiest(scores[rows], [choices[row] for row in rows], min(SHORT, logits.shape[1]))
    return tokens


def _noisiest(scores: Tensor, choices: Sequence[Choice], size: int) -> Tensor:
    """The tokens with the highest scores after noise, of the `size` with the highest before it."""
    keys = [(choice.seed, choice.position) for choice in choices]
    if size == scores.shape[1]:
        return (scores + gumbel(keys, torch.arange(size, device=scores.device))).argmax(-1)
    scores, tokens = scores.topk(size)
    winner = (scores + gumbel(keys, tokens)).argmax(-1)
    return tokens.gather(1, winner[:, None])[:, 0]


def _truncated(scores: Tensor, choices: Sequence[Choice]) -> Tensor:
    """`scores` ([rows, vocabulary]) with minus infinity where top-k, top-p or min-p leave a token out.

    Of tokens that are equally likely, all stay or none does.
    """
    most = scores.shape[1]
    if rows := [row for row, choice in enumerate(choices) if 0 < choice.top_k < most]:
        scores[rows] = _top_k(scores[rows], [choices[row].top_k for row in rows])
    if rows := [row for row, choice in enumerate(choices) if choice.top_p < 1]:
        scores[rows] = nucleus(scores[rows], [choices[row].top_p for row in rows])
    if rows := [row for row, choice in enumerate(choices) if choice.min_p > 0]:
        shares = scores.new_tensor([math.log(choices[row].min_p) for row in rows])
        least = scores[rows].amax(-1) + shares
        scores[rows] = _from(scores[rows], scores[rows], least)
    return scores


def _top_k(scores: Tensor, counts: Sequence[int]) -> Tensor:
    ordered = scores.topk(max(counts)).values
    last = torch.tensor(counts, device=scores.device) - 1
    return _from(scores, scores, ordered.gather(1, last[:, None])[:, 0])


def nucleus(scores: Tensor, top_ps: Sequence[float]) -> Tensor:
    """`scores` ([rows, vocabulary]) without what is outside the least set of tokens that has a row's probability."""
    probabilities = scores.softmax(-1)
    masses = scores.new_tensor(top_ps)
    least, reached = _least(probabilities.topk(min(SHORT, scores.shape[1])).values, masses)
    if not reached.all():
        least[~reached] = _least(probabilities[~reached].sort(descending=True).values, masses[~reached])[0]
    return _from(scores, probabilities, least)


def _least(ordered: Tensor, masses: Tensor) -> tuple[Tensor, Tensor]:
    """The last probability of `ordered` that is within each row's mass, and whether they have more than that mass."""
    before = ordered.cumsum(-1) - ordered
    count = (before < masses[:, None]).sum(-1).clamp(min=1)
    return ordered.gather(1, count[:, None] - 1)[:, 0], count < ordered.shape[1]


def _from(scores: Tensor, values: Tensor, least: Tensor) -> Tensor:
    """`scores` where `values` are not below their row's `least`. What is no number stays, to be found out later."""
    return scores.masked_fill(values < least[:, None], float("-inf"))


def with_likelihoods(run: Run, logits: Tensor, ask: Sampling) -> Run:
    """`run` with the likelihoods of its ids, if they are asked for; `logits` are those it was chosen by."""
    if ask.logprobs is None or not run.ids:
        return run
    return replace(run, likelihoods=likelihoods(logits, run.ids, ask.logprobs))


def likelihoods(logits: Tensor, ids: Sequence[int], top: int) -> tuple[Likelihood, ...]:
    """How likely each of `ids` was, and the `top` likeliest tokens at its place.

    By the model's own distribution, softmax(`logits`) ([ids, vocabulary]): no temperature, penalty or mask.
    """
    logprobs = logits[: len(ids)].double().log_softmax(-1).clamp(min=LEAST_LOGPROB)
    chosen = logprobs[range(len(ids)), list(ids)].tolist()
    best = logprobs.topk(min(top, logits.shape[1]))
    return tuple(
        Likelihood(token, logprob, tuple(map(Likelihood, tokens, values)))
        for token, logprob, tokens, values in zip(ids, chosen, best.indices.tolist(), best.values.tolist(), strict=True)
    )
