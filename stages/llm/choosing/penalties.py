"""Penalties and biases: how the logits of one answer are shifted by what stands in it already.

    x ← x / r if x > 0 else x · r       for tokens of the prompt and the answer        (repetition penalty r)
    x ← x - f · times - p · [times > 0] for tokens of the answer                       (frequency f, presence p)
    x ← x + bias

The counts are kept from step to step and grow with the answer: no step looks through all its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.messages import Sampling


class Shift:
    """What one answer's request and its tokens so far make of logits.

    `ids` are the sequence's certain tokens, the first `prompt` of which are the prompt; the list may only grow.
    """

    def __init__(self, ask: Sampling, ids: list[int], prompt: int) -> None:
        self.ask = ask
        self._ids, self._prompt = ids, prompt
        self._tables: dict[int, Table] = {}

    def table(self, vocabulary: int, device: torch.device) -> Table:
        """The counts of all certain tokens; a draft model with fewer rows for tokens has a table of its own."""
        table = self._tables.get(vocabulary)
        if table is None:
            table = self._tables[vocabulary] = Table(self.ask, vocabulary, device)
        table.follow(self._ids, self._prompt)
        return table


class Table:
    """For each token of the vocabulary: whether it was `seen`, how often it was `said`, and its `bias`."""

    def __init__(self, ask: Sampling, vocabulary: int, device: torch.device) -> None:
        self.seen = torch.zeros(vocabulary, dtype=torch.bool, device=device)
        self.said = torch.zeros(vocabulary, device=device)
        self.bias = torch.zeros(vocabulary, device=device)
        self._counted = 0
        for token, bias in ask.logit_bias:
            if token < vocabulary:
                self.bias[token] = bias

    def follow(self, ids: Sequence[int], prompt: int) -> None:
        """Count those of `ids` that are new."""
        if self._counted == len(ids):
            return
        self.seen[self._known(ids[self._counted :])] = True
        answer = self._known(ids[max(self._counted, prompt) :])
        self.said.index_add_(0, answer, torch.ones(len(answer), device=self.said.device))
        self._counted = len(ids)

    def _known(self, ids: Sequence[int]) -> Tensor:
        known = [token for token in ids if token < len(self.said)]
        return torch.tensor(known, dtype=torch.int64, device=self.said.device)


def shifted(logits: Tensor, shifts: Sequence[Shift], drafts: Sequence[Sequence[int]]) -> Tensor:
    """`logits` ([rows, vocabulary]) as each row's shift has them after its certain tokens and its `drafts`."""
    tables = [shift.table(logits.shape[1], logits.device) for shift in shifts]
    seen = torch.stack([table.seen for table in tables])
    said = torch.stack([table.said for table in tables])
    guessed = [(row, token) for row, tokens in enumerate(drafts) for token in tokens if token < logits.shape[1]]
    if guessed:
        rows, tokens = torch.tensor(guessed, device=logits.device).unbind(1)
        seen[rows, tokens] = True
        said.index_put_((rows, tokens), said.new_ones(len(guessed)), accumulate=True)
    asks = [(s.ask.repetition_penalty, s.ask.frequency_penalty, s.ask.presence_penalty) for s in shifts]
    repetition, frequency, presence = logits.new_tensor(asks).T[:, :, None]
    logits = torch.where(seen, torch.where(logits > 0, logits / repetition, logits * repetition), logits)
    logits = logits - frequency * said - presence * (said > 0)
    return logits + torch.stack([table.bias for table in tables])


def shift_of(ask: Sampling, ids: list[int], prompt: int) -> Shift | None:
    """The shift that `ask` wants, if any."""
    neutral = (ask.repetition_penalty, ask.presence_penalty, ask.frequency_penalty) == (1.0, 0.0, 0.0)
    return None if neutral and not ask.logit_bias else Shift(ask, ids, prompt)
