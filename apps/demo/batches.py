"""Batches of dialogues for training, made on the fly: sorted by length, padded on the right."""

import random
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from apps.demo.grammar import dialogue, system_prompt
from apps.demo.model import CONTEXT
from apps.demo.tokenizer import PAD, Encoder, Message

TOKENS = 4096
POOL = 400


class Recipe(NamedTuple):
    """How hard the data is: typing errors, spelled words, extra names and numbers."""

    noise: float
    spell: float
    copying: float


class Batch(NamedTuple):
    """`ids` is (rows, length); `spoken` marks those that the model is to say."""

    ids: Tensor
    spoken: Tensor


def recipe(progress: float) -> Recipe:
    """Much to copy at first, little noise in the last tenth."""
    if progress > 0.88:
        return Recipe(0.35, 0.015, 0.3)
    return Recipe(0.7, 0.03, max(0.35, 1 - 3 * progress))


def messages(rng: random.Random, how: Recipe) -> list[Message]:
    """One dialogue as chat messages."""
    system = system_prompt(rng)
    made = [Message(role="system", content=system)] if system else []
    for turn in dialogue(rng, noise=how.noise, copying=how.copying):
        made.append(Message(role="user", content=turn.user))
        made.append(Message(role="assistant", content=turn.replies[0]))
    return made


def row(rng: random.Random, encoder: Encoder, how: Recipe) -> tuple[list[int], list[bool]]:
    """The ids of one dialogue, cut at the model's context."""
    ids, spoken = encoder.chat(messages(rng, how), rng, how.spell)
    return ids[:CONTEXT], spoken[:CONTEXT]


def pack(rows: list[tuple[list[int], list[bool]]]) -> Batch:
    """Pad to the longest."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), PAD)
    spoken = torch.zeros(len(rows), longest, dtype=torch.bool)
    for at, (some, mine) in enumerate(rows):
        ids[at, : len(some)] = torch.tensor(some)
        spoken[at, : len(mine)] = torch.tensor(mine)
    return Batch(ids, spoken)


def pool(rng: random.Random, encoder: Encoder, how: Recipe) -> list[Batch]:
    """Some batches of about `TOKENS` each, in random order."""
    rows = sorted((row(rng, encoder, how) for _ in range(POOL)), key=lambda one: len(one[0]))
    batches, start = [], 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or (end + 1 - start) * len(rows[end][0]) > TOKENS:
            batches.append(pack(rows[start:end]))
            start = end
    rng.shuffle(batches)
    return batches


class Stream:
    """Endless batches; `progress` (0 to 1) may be set at any time and shapes the next pool."""

    def __init__(self, encoder: Encoder, seed: int) -> None:
        self._encoder = encoder
        self._rng = random.Random(seed)
        self.progress = 0.0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield from pool(self._rng, self._encoder, recipe(self.progress))
