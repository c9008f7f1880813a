"""How clips become what a step learns from."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from apps.demo.speech import tokenizer
from apps.demo.speech.batches import (
    FRAME,
    IGNORED,
    MUSIC_EVERY,
    RATE,
    SILENCE,
    Corpus,
    Maker,
    Plan,
    Timed,
    cut,
    joined,
    prompted,
    timed,
    transcript,
)
from apps.demo.speech.synthesis import Span, write

HELLO, THERE = (tokenizer.word_ids(word)[0] for word in ("hello", "there"))


def plan() -> Plan:
    """A second in which two words are heard."""
    words = [Timed(HELLO, 1600, 6400, HELLO), Timed(THERE, 8000, 12_800, THERE)]
    return Plan(np.ones(RATE, np.float32), [words], [Span(3, 1600, 6400), Span(4, 8000, 12_800)])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A small real one."""
    folder: Path = tmp_path_factory.mktemp("corpus")
    write(folder / "part0", seed=1, count=30)
    return Corpus(folder)


def test_numbers_have_a_token_for_each_digit() -> None:
    """A long number's digits are heard one by one; of a short one all tokens share its time."""
    spans = [Span(0, 0, 10), Span(1, 10, 20), Span(2, 20, 30), Span(3, 30, 40), Span(4, 40, 60)]

    found = timed("order 405 42", spans)

    assert [(one.start, one.end) for one in found] == [(0, 10), (10, 20), (20, 30), (30, 40), (40, 60), (40, 60)]
    assert [one.frames == IGNORED for one in found] == [False, False, False, False, True, True]
    assert found[2].frames == tokenizer.word_ids("0")[0] != found[2].token


def test_words_that_are_hardly_heard_are_left_out() -> None:
    """A clip that ends in a word keeps it from four fifths on; times count from the new beginning."""
    assert [one.token for one in cut(plan(), 0, 12_000).utterances[0]] == [HELLO, THERE]
    assert [one.token for one in cut(plan(), 0, 11_000).utterances[0]] == [HELLO]
    assert cut(plan(), 0, 2000).utterances == []
    assert cut(plan(), 7000, RATE).utterances == [[Timed(THERE, 1000, 5800, THERE)]]


def test_two_utterances_follow_each_other() -> None:
    """The second one's times begin after the first and the gap."""
    both = joined(plan(), plan(), gap=4000)

    assert len(both.samples) == 2 * RATE + 4000
    assert both.utterances[1][0].start == RATE + 4000 + 1600


def test_transcripts() -> None:
    """With timestamps each utterance stands between two; without, the prompt is not scored."""
    sot, eot, untimed = (tokenizer.special(name) for name in ("startoftranscript", "endoftext", "notimestamps"))
    at = tokenizer.timestamp

    given, wanted, spans = transcript(plan(), timed=True, rng=random.Random(0))
    assert given == [sot, at(0.1), HELLO, THERE, at(0.8)]
    assert wanted == [*given[1:], eot]
    assert spans == {1: (1600, 6400), 2: (8000, 12_800)}

    given, wanted, spans = transcript(plan(), timed=False, rng=random.Random(0))
    assert given == [sot, untimed, HELLO, THERE]
    assert wanted == [IGNORED, HELLO, THERE, eot]
    assert spans == {1: (1600, 6400), 2: (8000, 12_800)}


@pytest.mark.parametrize("with_times", [True, False])
def test_noise_has_no_words(with_times: bool) -> None:
    """After a clip without speech there is nothing to say, whatever the decoder was told to begin with."""
    _, wanted, _ = transcript(Plan(np.zeros(RATE, np.float32)), timed=with_times, rng=random.Random(0))

    assert wanted == [tokenizer.special("nospeech"), tokenizer.special("endoftext")]


@pytest.mark.slow
def test_a_batch_is_labelled(corpus: Corpus) -> None:
    """Every told word is looked for where its frames are labelled with it."""
    maker = Maker(corpus, seed=1, songs=2)
    batch = maker.labelled(torch.zeros(1, 80, 120), [plan()], torch.tensor([RATE]))

    assert batch.words.shape == batch.phonemes.shape == (1, 60)
    assert set(batch.words[0, 1600 // FRAME : 6400 // FRAME].tolist()) == {HELLO}
    assert batch.words[0, 22] == SILENCE
    assert set(batch.words[0, 60:].tolist()) | {IGNORED} == {IGNORED}
    places = [at for at, token in enumerate(batch.targets[0].tolist()) if token == HELLO]
    assert batch.looks[0, places[0]].nonzero().flatten().tolist() == list(range(5, 20))


@pytest.mark.slow
def test_batches_come_without_end(corpus: Corpus) -> None:
    """Clips of a like length come together; all shapes fit, all numbers are finite."""
    batches = iter(Maker(corpus, seed=2, songs=2))
    for _ in range(4):
        batch = next(batches)
        clips, mels, frames = batch.features.shape
        assert (clips, mels, frames % 2) == (32, 80, 0)
        assert batch.looks.shape == (*batch.targets.shape, frames // 2)
        assert batch.tokens.shape == batch.targets.shape
        assert torch.isfinite(batch.features).all()
        assert int(batch.targets.max()) < tokenizer.size()


def test_the_music_changes(corpus: Corpus) -> None:
    """A part of the noises is music, of which a clip is made anew now and then."""
    maker = Maker(corpus, seed=1, songs=2)
    before = maker.noises.clone()

    for _, _ in zip(range(MUSIC_EVERY + 1), maker, strict=False):
        pass

    changed = (maker.noises != before).any(1).nonzero().flatten().tolist()
    assert 1 <= len(changed) <= 2
    assert all(row >= len(before) - 2 for row in changed)
    assert maker.noises.square().mean(1).allclose(torch.ones(len(before)), atol=0.01)


def test_nobody_speaks_in_some_clips(corpus: Corpus) -> None:
    """About one in eight is noise or music alone, as long as any clip with speech; its target is that nobody speaks."""
    maker = Maker(corpus, seed=2, songs=2)
    alone = [plan for plan in (maker.plan() for _ in range(600)) if not plan.samples.any()]

    assert 50 <= len(alone) <= 100
    assert max(len(plan.samples) for plan in alone) > 5 * RATE
    given, wanted, _ = transcript(alone[0], timed=False, rng=random.Random(0))
    assert wanted == [tokenizer.special("nospeech"), tokenizer.special("endoftext")]
    assert given[0] == tokenizer.special("startoftranscript")


def test_what_was_said_before() -> None:
    """A prompt stands before the start of the transcript and is not scored; nothing else changes but the places."""
    row = transcript(plan(), timed=True, rng=random.Random(0))

    given, wanted, spans = prompted(row, [THERE, HELLO])

    assert given == [tokenizer.special("startofprev"), THERE, HELLO, *row.given]
    assert wanted == [IGNORED] * 3 + row.wanted
    assert spans == {4: (1600, 6400), 5: (8000, 12_800)}


def test_some_clips_have_a_prompt(corpus: Corpus) -> None:
    """About one in seven; it is text that might have been said before."""
    maker = Maker(corpus, seed=3, songs=2)
    rows = [maker.row(plan()) for _ in range(300)]
    behind = [row for row in rows if row.given[0] == tokenizer.special("startofprev")]

    assert 25 <= len(behind) <= 70
    for row in behind:
        assert row.given.index(tokenizer.special("startoftranscript")) > 1
        assert (
            tokenizer.special("notimestamps")
            not in row.given[: row.given.index(tokenizer.special("startoftranscript"))]
        )
