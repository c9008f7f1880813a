"""Who guesses, and how far, in a made-up world: what is right is known, and so is what things cost."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import ModelLoadError
from stages.llm.cache.blocks import BlockPool
from stages.llm.costs import Costs
from stages.llm.guessing import speculation as module
from stages.llm.guessing.drafter import NEAR, Wish
from stages.llm.guessing.guesses import Beliefs
from stages.llm.guessing.speculation import Mode, Speculation
from stages.llm.models.forward import Work
from stages.llm.models.model import LoadedModel
from stages.llm.sequence import Sequence
from tests.stages.llm.running import make_prompt, some_ids

LONG = 100_000
DRAFT = Costs.line(base=0.2, sequence=0.0, token=0.005)
Oracle = Callable[[int], int]
"""The token at a position."""


class FakeDraft:
    """Reads and guesses as the draft model does, right as often as `right` says at a position; takes no time."""

    def __init__(self, _model: Any, draft: Any) -> None:
        self.draft = draft
        self.read_tokens: list[int] = []
        self._drawn = random.Random(0)

    @staticmethod
    def oracle(_position: int) -> int:
        """What is right."""
        return 7

    @staticmethod
    def right(_position: int) -> float:
        """How often it says that."""
        return 1.0

    def most(self, sequence: Sequence) -> int:
        """All that is asked for."""
        return LONG

    def lag(self, sequence: Sequence) -> int:
        """What it has not read."""
        return sequence.computed - sequence.table.drafted

    def read(self, sequences: list[Sequence], tokens: int) -> None:
        """Read so many tokens, or what there is."""
        for sequence in sequences:
            count = min(tokens, self.lag(sequence))
            self.read_tokens.append(count)
            sequence.table.drafted += count

    def guess(self, wishes: list[Wish], costs: Costs | None = None) -> None:
        """Guess right or wrong."""
        for sequence, count in wishes:
            for position in range(len(sequence.ids), len(sequence.ids) + count):
                right = self._drawn.random() < self.right(position)
                sequence.drafts.append(self.oracle(position) + (0 if right else 1))
            sequence.table.drafted = len(sequence.ids) + count - 1


def placed(model: LoadedModel, sequence: Sequence, computed: int = 0) -> Sequence:
    """`sequence` with a place, as if so many of its tokens were computed."""
    sequence.place(BlockPool(1, model.kv).table()[0], computed)
    return sequence


class World:
    """Sequences that say what `oracle` says, in steps that take what `costs` say and drafting what `DRAFT` says."""

    def __init__(
        self,
        model: LoadedModel,
        speculation: Speculation,
        oracle: Oracle,
        costs: Costs,
        *,
        count: int = 1,
        most: int = LONG,
        asked: int | None = None,
    ) -> None:
        prompt = make_prompt([1, 2], max_output_tokens=most + 1, speculation=asked)
        self.sequences = [Sequence(n, prompt, model.vocabulary, context=LONG) for n in range(count)]
        for sequence in self.sequences:
            placed(model, sequence, computed=2)
            sequence.ids.append(3)  # the first token is out
        self.speculation, self.oracle, self.costs = speculation, oracle, costs
        self.seconds = 0.0
        self.lengths: list[int] = []

    def step(self) -> None:
        """Guess, compute, accept."""
        self.speculation.follow(self.sequences)
        self.speculation.propose(self.sequences)
        works = [Work(sequence, sequence.pending) for sequence in self.sequences]
        seconds = self.costs.step(len(works), sum(work.count for work in works))
        self.seconds += seconds
        self.lengths.append(len(self.sequences[0].drafts))
        guesses = self.speculation._guesses
        for work in works:
            made = guesses[work.sequence.number].made if work.sequence.number in guesses else None
            if made and made.by == "draft":
                self.seconds += len(made.tokens) * DRAFT.step(1, 1)
            start = len(work.sequence.ids)
            work.sequence.accept([self.oracle(start + ahead) for ahead in range(work.count)], frozenset({4}))
        self.speculation.saw(works, seconds)

    def until(self, position: int) -> float:
        """Go on to there; seconds for a token on the way."""
        begun, before = self.seconds, len(self.sequences[0].ids)
        self.lengths.clear()
        while len(self.sequences[0].ids) < position:
            self.step()
        return (self.seconds - begun) / (len(self.sequences[0].ids) - before)


def prepared(model: LoadedModel, costs: Costs, draft: LoadedModel | None = None, mode: Mode = "auto") -> Speculation:
    """A speculation that has measured such costs."""
    speculation = Speculation(model, draft, mode=mode)
    speculation.prepare(costs)
    return speculation


@pytest.fixture
def draft(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """A draft model whose guesses are made up."""
    monkeypatch.setattr(module, "DraftModel", FakeDraft)
    monkeypatch.setattr(module, "measure", lambda _: DRAFT)
    return model


def costs(token: float = 0.02) -> Costs:
    """What the model's steps cost."""
    return Costs.line(base=1.0, sequence=0.0, token=token)


def dice(seed: int, faces: int) -> Oracle:
    """A text without any order."""
    drawn = random.Random(seed)
    text = [10 + drawn.randrange(faces) for _ in range(4000)]
    return text.__getitem__


def in_turns(chaos: Oracle) -> Oracle:
    """Without any order, but from 500 to 1,000 the same over and over."""
    return lambda position: 20 + position % 7 if 500 <= position < 1000 else chaos(position)


def mean(lengths: list[int]) -> float:
    """The mean of the later half."""
    half = lengths[len(lengths) // 2 :]
    return sum(half) / len(half)


def test_text_guesses_while_it_repeats_itself(model: LoadedModel) -> None:
    """Guesses stop where nothing repeats itself, begin where it does, and stop again."""
    world = World(model, prepared(model, costs(0.4)), in_turns(dice(1, 3)), costs(0.4))
    means = []

    for end in (500, 1000, 1500):
        world.until(end)
        means.append(mean(world.lengths))

    assert means[0] < 0.4
    assert means[1] > 4
    assert means[2] < 0.4


def test_draft_is_asked_while_it_is_right(
    model: LoadedModel, draft: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draft model that is wrong is soon asked no more, and soon again when it is right."""
    monkeypatch.setattr(FakeDraft, "right", staticmethod(lambda position: 0.95 if 500 <= position < 1000 else 0.05))
    world = World(model, prepared(model, costs(), draft, "draft"), lambda _: 7, costs())
    means = []

    for end in (500, 1000, 1500):
        world.until(end)
        means.append(mean(world.lengths))

    assert means[0] < 0.3
    assert means[1] > 3
    assert means[2] < 0.3


@pytest.mark.parametrize("count", [1, 4, 16])
@pytest.mark.parametrize("token", [0.0, 0.1, 0.5])
def test_what_is_never_right_costs_little(
    model: LoadedModel, draft: LoadedModel, monkeypatch: pytest.MonkeyPatch, count: int, token: float
) -> None:
    """Where no guess is right, it takes at most a thirtieth longer than without any, once that is known."""
    monkeypatch.setattr(FakeDraft, "right", staticmethod(lambda position: 0.0))
    world = World(model, prepared(model, costs(token), draft), dice(2, 400), costs(token), count=count)
    world.until(60)

    assert world.until(600) < costs(token).step(count, count) / 0.97


def test_whoever_is_right_guesses(model: LoadedModel, draft: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the text is repeated it guesses, for it costs nothing; where it is not, the draft model that is right."""
    oracle = in_turns(dice(3, 400))
    monkeypatch.setattr(FakeDraft, "oracle", staticmethod(oracle))
    monkeypatch.setattr(FakeDraft, "right", staticmethod(lambda position: 0.9))
    speculation = prepared(model, costs(), draft)
    world = World(model, speculation, oracle, costs())
    made = []

    for end in (500, 1000):
        before = {name: each.accepted_tokens for name, each in speculation.counts.drafters.items()}
        world.until(end)
        made.append(
            {name: each.accepted_tokens - before.get(name, 0) for name, each in speculation.counts.drafters.items()}
        )

    assert made[0]["draft"] > 300
    assert made[0].get("ngram", 0) < 30
    assert made[1]["ngram"] > 350


def test_slow_machine_is_learned(model: LoadedModel) -> None:
    """Where rows cost far more than was measured, guesses that paid by the measurement are given up."""
    speculation = prepared(model, Costs([(rows, 1.0) for rows in (1, 2, 4, 8)]))
    world = World(model, speculation, dice(4, 4), costs(1.0))

    world.until(400)
    world.until(800)

    assert mean(world.lengths) < 0.5


@pytest.mark.parametrize("asked", [0, 1, 3, 100])
@pytest.mark.parametrize("mode", ["draft", "ngram", "both"])
def test_request_says_how_far_at_most(model: LoadedModel, draft: LoadedModel, mode: Mode, asked: int) -> None:
    """A request may ask for no guesses, or for few; never for more than the server makes."""
    speculation = Speculation(model, draft, mode=mode, most=5, always=True)
    world = World(model, speculation, lambda _: 7, costs(), asked=asked)

    world.until(60)

    assert max(world.lengths) == min(asked, 5)


def test_counts(model: LoadedModel, draft: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, tokens, lengths, and how many guesses were right by their place."""
    monkeypatch.setattr(FakeDraft, "right", staticmethod(lambda position: float(position % 4 != 0)))
    speculation = Speculation(model, draft, mode="draft", most=3, always=True)
    world = World(model, speculation, lambda _: 7, costs(), most=9)

    for _ in range(3):
        world.step()

    counts, guessed = speculation.counts, speculation.counts.drafters["draft"]
    # Position 3 is guessed right, 4 wrong; then 5 to 7; then 9 and 10, with the last token not guessed.
    assert (counts.steps, counts.tokens, counts.lengths) == (3, 9, [0, 0, 1, 2])
    assert (guessed.drafts, guessed.draft_tokens, guessed.accepted_tokens) == (3, 8, 6)
    assert guessed.accepted_tokens_per_position == [3, 2, 1]


def test_end_of_the_answer_is_a_right_guess(
    model: LoadedModel, draft: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token that ends an answer counts as guessed right, and what was guessed after it as nothing."""
    speculation = Speculation(model, draft, mode="draft", most=3, always=True)
    end = min(model.eos)
    monkeypatch.setattr(FakeDraft, "oracle", staticmethod(lambda position: end if position == 4 else 7))
    world = World(model, speculation, lambda position: 4 if position == 4 else 7, costs())
    world.speculation.follow(world.sequences)
    world.speculation.propose(world.sequences)
    (sequence,) = world.sequences
    work = Work(sequence, sequence.pending)
    sequence.accept([7, end, 7, 7], model.eos)

    speculation.saw([work], 1.0)

    assert sequence.finish == "stop"
    assert speculation.counts.drafters["draft"].accepted_tokens == 2
    assert speculation._beliefs.draft.value > Beliefs().draft.value


def test_no_prompt_waits_for_the_draft(model: LoadedModel, draft: LoadedModel) -> None:
    """The draft reads nothing before the first token is out, and nothing while another one's prompt is computed."""
    speculation = Speculation(model, draft, mode="draft", always=True)
    drafter: Any = speculation._drafter
    first, other = (
        placed(
            model, Sequence(n, make_prompt(some_ids(4 * NEAR, n), max_output_tokens=9), model.vocabulary, context=LONG)
        )
        for n in range(2)
    )

    def step(running: list[Sequence], streams: list[Sequence]) -> None:
        speculation.follow(running)
        speculation.propose(streams)

    step([first], [])
    first.advance(first.pending - 1)
    step([first], [first])
    first.accept([7], frozenset())
    step([first, other], [first])
    assert drafter.read_tokens == []
    assert not first.drafts
    other.advance(other.pending - 1)
    step([first, other], [first, other])
    step([first, other], [first])
    assert sum(drafter.read_tokens) >= 3 * NEAR
    assert first.drafts


def test_reading_on_does_not_stall_the_stream(model: LoadedModel, draft: LoadedModel) -> None:
    """A long text is read in pieces that take no longer than half a step, and only while it pays."""
    speculation = prepared(model, costs(), draft, "draft")
    drafter: Any = speculation._drafter
    world = World(model, speculation, lambda _: 7, costs())
    (sequence,) = world.sequences
    sequence.ids += [7] * 400
    sequence.advance(400)

    world.until(480)

    assert sum(drafter.read_tokens) > 300
    assert max(drafter.read_tokens) * DRAFT.token <= module.READING * costs().step(1, 1)


def test_reading_for_a_short_answer_does_not_pay(model: LoadedModel, draft: LoadedModel) -> None:
    """A draft that would have to read a long prompt for a few tokens is not asked."""
    speculation = prepared(model, costs(), draft, "draft")
    drafter: Any = speculation._drafter
    prompt = make_prompt([7] * 4000, max_output_tokens=9)
    world = World(model, speculation, lambda _: 7, costs())
    world.sequences = [placed(model, Sequence(9, prompt, model.vocabulary, context=LONG), computed=3999)]

    world.until(4007)

    assert not drafter.read_tokens


def test_failing_draft_leaves_the_text(
    model: LoadedModel, draft: LoadedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A draft model that fails is asked no more, and the text goes on guessing."""
    monkeypatch.setattr(FakeDraft, "guess", lambda *_: (_ for _ in ()).throw(RuntimeError("broken")))
    speculation = Speculation(model, draft, mode="both", always=True)
    world = World(model, speculation, lambda position: 7 if position < 50 else 10 + position % 5, costs())

    world.until(200)

    assert caplog.text.count("the draft model has failed") == 1
    assert speculation.counts.drafters["ngram"].accepted_tokens > 50


def test_sequences_that_are_gone_are_forgotten(model: LoadedModel) -> None:
    """What is known of the guessing for a sequence goes when it has gone, soon."""
    speculation = Speculation(model, mode="ngram", always=True)
    prompt = make_prompt([1, 2, 3], max_output_tokens=9)

    for number in range(500):
        speculation.follow([Sequence(number, prompt, model.vocabulary, context=LONG)])

    assert len(speculation._guesses) <= module.SPARE + 2


@pytest.mark.parametrize("mode", ["draft", "both"])
def test_mode_that_needs_a_draft(model: LoadedModel, mode: Mode) -> None:
    """Who asks for guesses of a draft model has to name one."""
    with pytest.raises(ModelLoadError, match=f"{mode!r} needs a draft model"):
        Speculation(model, mode=mode)
