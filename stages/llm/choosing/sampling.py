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

from pipeline.messages import Likelihood
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
    def cut(self) -> bool:
        """Whether only some of the likeliest tokens may be drawn."""
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0


def sample(logits: Tensor, choices: Sequence[Choice]) -> list[int]:
    """One token id for each row of `logits` ([rows, vocabulary]); rows beyond `choices` are padding."""
    if not choices:
        return []
    logits = _steered(logits[: len(choices)], choices)
    drawn = [row for row, choice in enumerate(choices) if choice.temperature > 0]
    if len(drawn) == len(choices):
        return _draw(logits, choices)
    tokens: list[int] = logits.argmax(-1).tolist()
    if drawn:
        for row, token in zip(drawn, _draw(logits[drawn], [choices[row] for row in drawn]), strict=True):
            tokens[row] = token
    return tokens


def _steered(logits: Tensor, choices: Sequence[Choice]) -> Tensor:
    """`logits` with the penalties, biases and masks of `choices`."""
    shifts = {row: choice.shift for row, choice in enumerate(choices) if choice.shift is not None}
    masks = {row: choice.mask for row, choice in enumerate(choices) if choice.mask is not None}
    if shifts or masks:
        logits = logits.clone()
    if rows := list(shifts):
        logits[rows] = shifted(logits[rows], list(shifts.values()), [choices[row].drafts for row in rows])
    if rows := list(masks):
        some = logits[rows]
        logits[rows] = some.masked_fill_(~allowed(list(masks.values()), some), float("-inf"))
    return logits


def allowed(masks: Sequence[Tensor], logits: Tensor) -> Tensor:
    """`masks`, one for each row, as truth values of the shape of `logits` ([rows, vocabulary])."""
    words = torch.stack(list(masks)).to(logits.device)
    bits = (words[:, :, None] >> torch.arange(32, dtype=torch.int32, device=logits.device)) & 1
    known = bits.flatten(1)[:, : logits.shape[1]].bool()
    whole = logits.new_zeros(logits.shape, dtype=torch.bool)
    whole[:, : known.shape[1]] = known
    return whole


def _draw(logits: Tensor, choices: Sequence[Choice]) -> list[int]:
    """A token for each row, by its temperature above 0."""
    scores = logits.double()
    scores -= scores.amax(-1, keepdim=True)  # so no temperature, however low, makes all of them infinite
    scores /= scores.new_tensor([[choice.temperature] for choice in choices])
    tokens: dict[int, int] = {}
    if rows := [row for row, choice in enumerate(choices) if not choice.cut]:
        every = torch.arange(scores.shape[1], device=scores.device)
        tokens |= zip(rows, _noisiest(_of(scores, rows), every, [choices[row] for row in rows]), strict=True)
    for size in (SHORT, scores.shape[1]):
        if rows := [row for row in range(len(choices)) if row not in tokens]:
            found = _draw_few(_of(scores, rows), [choices[row] for row in rows], size)
            tokens |= {row: token for row, token in zip(rows, found, strict=True) if token is not None}
    return [tokens[row] for row in range(len(choices))]


def _of(values: Tensor, rows: Sequence[int]) -> Tensor:
    """Those `rows`, in rising order, of `values`: no copy where they are all."""
    return values if len(rows) == len(values) else values[rows]


def _draw_few(scores: Tensor, choices: Sequence[Choice], size: int) -> list[int | None]:
    """A token of the `size` likeliest for each row, or None where others could be chosen, too."""
    most = scores.shape[1]
    size = min(size, most)
    best, ids = scores.topk(size)
    least = _least(scores, best, ids, choices)[:, None]
    beyond = (best[:, -1] >= least[:, 0]).tolist()
    tokens = _noisiest(best.masked_fill_(best < least, -math.inf), ids, choices)
    return [
        None if size < most and (more or size < choice.top_k < most) else token
        for token, more, choice in zip(tokens, beyond, choices, strict=True)
    ]


def _least(scores: Tensor, best: Tensor, ids: Tensor, choices: Sequence[Choice]) -> Tensor:
    """The score below which top-k, top-p and min-p let nothing be chosen, [rows]. Of equal scores all stay, or none.

    `best` are the highest of `scores` ([rows, vocabulary]), in their order, and those of the tokens `ids`. Where they
    are too few for top-p, the last one is not below the result.
    """
    least = best.new_full((len(best),), torch.finfo(best.dtype).min)
    if any(choice.top_k for choice in choices):
        counts = [choice.top_k or scores.shape[1] for choice in choices]
        least = torch.where(best.new_tensor(counts) < scores.shape[1], _at(best, torch.tensor(counts) - 1), least)
        scores = scores.masked_fill(scores < least[:, None], -math.inf)
    if any(choice.top_p < 1 for choice in choices):
        masses = best.new_tensor([choice.top_p if choice.top_p < 1 else math.inf for choice in choices])
        shares = scores.softmax(-1).gather(1, ids)
        before = shares.cumsum(-1) - shares
        least = torch.maximum(least, _at(best, (before < masses[:, None]).sum(-1) - 1))
    if any(choice.min_p for choice in choices):
        ratios = best.new_tensor([math.log(choice.min_p) if choice.min_p else -math.inf for choice in choices])
        least = torch.maximum(least, best[:, 0] + ratios)
    return least


def _at(ordered: Tensor, places: Tensor) -> Tensor:
    """What stands there in each row, or the nearest to it."""
    return ordered.gather(1, places.to(ordered.device).clamp(0, ordered.shape[1] - 1)[:, None])[:, 0]


def _noisiest(scores: Tensor, ids: Tensor, choices: Sequence[Choice]) -> list[int]:
    """Of the tokens `ids` ([tokens] or [rows, tokens]) each row's with the highest of `scores` after noise."""
    noise = gumbel([(choice.seed, choice.position) for choice in choices], ids)
    winners = noise.add_(scores).argmax(-1)
    tokens: list[int] = (winners if ids.dim() == 1 else ids.gather(1, winners[:, None])[:, 0]).tolist()
    return tokens


def with_likelihoods(run: Run, logits: Tensor, top: int) -> Run:
    """`run` with the likelihoods of its ids, if it has any; `logits` are those it was chosen by, and further ones."""
    return replace(run, likelihoods=likelihoods(logits, run.ids, top)) if run.ids else run


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
