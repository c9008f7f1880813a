"""Greedy answers are `generate`'s, whatever happens around them: a random mixture of everything, for kinds of models.

Drafts of every kind and length, prompts in pieces, company that comes and goes, memory that runs out, turns that are
cancelled and turns that another worker takes over, at once.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.messages import FinishReason
from stages.llm import scheduler
from stages.llm.batch import Batch
from stages.llm.cache.blocks import BlockPool
from stages.llm.guessing.speculation import Mode, Speculation
from stages.llm.models.model import LoadedModel, load_model
from stages.llm.pace import Pace
from stages.llm.rates import Rates
from stages.llm.sequence import Sequence
from stages.llm.stage import Run
from tests.stages import models
from tests.stages.llm.running import make_prompt, reference, some_ids

KINDS = ("llama", "qwen3", "mistral", "gpt2", "phi", "gemma")
LENGTHS = (2, 40, 56, 61, 63, 90)
"""Of the prompts: below and beyond a window of 24, and many that need a second block of 64 in the answer."""
TOKENS = 14
FARTHEST = 8
NOISE = 0.1
"""On the draft's weights, as a share of how far they spread: so it is right sometimes."""
STEPS = 3000

Answer = tuple[list[int], FinishReason]
Pair = tuple[LoadedModel, LoadedModel, list[Answer]]


@pytest.fixture(scope="module", params=KINDS)
def pair(
    request: pytest.FixtureRequest, load: Callable[[str], LoadedModel], tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    """A model, a draft for it, and what `generate` says to each prompt."""
    model, folder = load(request.param), tmp_path_factory.mktemp("draft")
    network, noise = AutoModelForCausalLM.from_pretrained(model.name), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() > 1:
                weight.add_(NOISE * weight.std() * torch.randn(weight.shape, generator=noise))
    network.save_pretrained(folder)
    models.byte_level().save_pretrained(folder)
    expected = [reference(model, make_prompt(ids(n), max_output_tokens=TOKENS)) for n in range(len(LENGTHS))]
    return model, load_model(folder, device="cpu"), expected


def ids(number: int) -> list[int]:
    """A prompt; every other one repeats itself, as texts do."""
    length = LENGTHS[number]
    return some_ids(length, number) if number % 2 else (some_ids(9, number) * length)[:length]


class Traffic:
    """Turns that come, are cancelled and are taken over, by chance: `said` is what each has been told in the end."""

    def __init__(self, model: LoadedModel, batch: Batch, chance: random.Random) -> None:
        self._model, self._batch, self._chance = model, batch, chance
        self._turns: dict[int, tuple[int, list[int]]] = {}
        self._number = 0
        self.said: list[tuple[int, list[int], FinishReason | None]] = []

    def come(self, prompt: int, emitted: list[int]) -> None:
        """A turn begins, or goes on where a former owner has left it."""
        ahead = self._chance.choice([None, *range(FARTHEST + 1)])
        asked = make_prompt(
            ids(prompt), session=f"s{prompt}", emitted=emitted, max_output_tokens=TOKENS, speculation=ahead
        )
        self._number += 1
        self._turns[self._number] = prompt, emitted
        self._take(self._batch.add(Sequence(self._number, asked, self._model.vocabulary, context=self._model.context)))

    def disturb(self) -> None:
        """Perhaps a turn is given up: for good, or to be taken over, from what was told of it."""
        if self._turns and self._chance.random() < 0.15:
            number = self._chance.choice(sorted(self._turns))
            prompt, told = self._turns.pop(number)
            self._batch.drop(number)
            if self._chance.random() < 0.5:
                self.said.append((prompt, told, None))
            else:
                self.come(prompt, told)

    def step(self) -> None:
        """A step of the batch."""
        self._take(self._batch.step())

    def _take(self, outcomes: list[tuple[Sequence, Run | Exception]]) -> None:
        for sequence, run in outcomes:
            assert isinstance(run, Run)
            prompt, told = self._turns[sequence.number]
            told = [*told, *run.ids]
            self._turns[sequence.number] = prompt, told
            if run.finish is not None:
                del self._turns[sequence.number]
                self.said.append((prompt, told, run.finish))


def played(pair: Pair, mode: Mode, chance: random.Random, blocks: int) -> tuple[Batch, Traffic, Speculation]:
    """A batch after every prompt has come twice, with memory for so many blocks."""
    model, draft, _ = pair
    chunk = chance.choice([3, 16, 64])
    speculation = Speculation(model, draft, mode=mode, most=FARTHEST, always=True)
    batch = Batch(
        model,
        BlockPool(blocks, model.kv, draft=draft.kv),
        most=5,
        queue=99,
        pace=Pace(least=chunk, most=chunk),
        rates=Rates(5),
        speculation=speculation,
    )
    traffic = Traffic(model, batch, chance)
    coming = [n % len(LENGTHS) for n in range(2 * len(LENGTHS))]
    chance.shuffle(coming)
    for _ in range(STEPS):
        if coming and chance.random() < 0.7:
            traffic.come(coming.pop(), [])
        traffic.step()
        traffic.disturb()
        if not coming and batch.idle:
            break
    return batch, traffic, speculation


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["draft", "ngram", "both"])
def test_answers_are_those_of_generate(pair: Pair, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer is the library's; of one that was cancelled, what was told until then."""
    monkeypatch.setattr(scheduler, "ROOM", 1)  # so that memory runs out
    model, _, expected = pair
    chance = random.Random(f"{model.network.config.model_type} {mode}")
    preemptions, right, guessed = 0, Counter[str](), Counter[str]()

    for blocks in (3, 6):
        batch, traffic, speculation = played(pair, mode, chance, blocks)

        assert batch.idle
        assert len(traffic.said) == 2 * len(LENGTHS)
        for prompt, told, finish in traffic.said:
            whole, end = expected[prompt]
            assert (told, finish) == ((whole, end) if finish else (whole[: len(told)], None))
        preemptions += batch.counts.preemptions
        for by, made in speculation.counts.drafters.items():
            right[by] += made.accepted_tokens
            guessed[by] += made.draft_tokens

    assert preemptions > 0
    assert mode == "ngram" or 0 < right["draft"] < guessed["draft"]
    assert mode != "ngram" or guessed["ngram"]  # a random model seldom repeats itself: they are hardly ever right
