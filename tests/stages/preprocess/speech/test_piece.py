from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.errors import Overloaded
from pipeline.voice import RATE
from stages.preprocess.speech.ear import FRAME
from stages.preprocess.speech.piece import Answer, Piece
from stages.preprocess.speech.recogniser import Heard, Transcription, Urgency
from stages.preprocess.speech.resample import Samples


class Asked:
    """Notes what is asked: how many frames, how urgently, and the answers, which the test gives."""

    def __init__(self) -> None:
        self.what: list[tuple[int, Urgency]] = []
        self.answers: list[Answer] = []

    def __call__(self, frames: Sequence[Samples], urgency: Urgency) -> Answer:
        """See `Ask`."""
        self.what.append((len(frames), urgency))
        self.answers.append(Answer())
        return self.answers[-1]


def _piece(frames: int = 10, *, voiced: bool = True) -> Piece:
    piece = Piece(0)
    _add(piece, frames, voiced=voiced)
    return piece


def _add(piece: Piece, frames: int, *, voiced: bool = True) -> None:
    for _ in range(frames):
        piece.add(np.zeros(512, np.float32), voiced=voiced)


def _said(text: str) -> Transcription:
    return Transcription(tuple(Heard(f" {word}", n / 10, n / 10 + 0.1) for n, word in enumerate(text.split())))


def _explain(error: BaseException) -> None:
    raise AssertionError(error)


async def test_what_was_asked_in_the_pause_stands() -> None:
    """Who goes on saying nothing is not recognised again at the end."""
    asked, piece = Asked(), _piece()
    piece.ask_to_close(asked, "eager")
    asked.answers[0].begun = True
    _add(piece, 7, voiced=False)
    piece.close(asked)
    asked.answers[0].set_result(_said("go home"))
    piece.collect(_explain)  # type: ignore[arg-type]
    assert asked.what == [(10, "eager")]
    assert piece.said == _said("go home")


@pytest.mark.parametrize("way", ["need", "close"])
async def test_what_nobody_has_begun_with_becomes_urgent(way: str) -> None:
    """When it is needed: the same sound, so that the text is the same; what waits is called off."""
    asked, piece = Asked(), _piece()
    piece.ask_to_close(asked, "eager")
    _add(piece, 7, voiced=False)
    getattr(piece, way)(asked)
    assert asked.what == [(10, "eager"), (10, "final")]
    assert asked.answers[0].cancelled()
    assert piece.unanswered == [asked.answers[1]]


async def test_what_was_refused_is_asked_again_at_the_end() -> None:
    """Of the same sound."""
    asked, piece = Asked(), _piece()
    piece.ask_to_close(asked, "eager")
    asked.answers[0].set_exception(Overloaded("too much", retry_after=1.0))
    asked.answers[0].exception()
    _add(piece, 7, voiced=False)
    piece.close(asked)
    assert asked.what == [(10, "eager"), (10, "final")]


async def test_who_speaks_on_calls_off_what_waits() -> None:
    """What was asked in the pause is not recognised, if nobody has begun with it; the next words are asked as ever."""
    asked, piece = Asked(), _piece()
    piece.ask_to_close(asked, "eager")
    piece.go_on(FRAME)
    assert asked.answers[0].cancelled()
    assert piece.asked == 0
    piece.close(asked)
    assert asked.what[1:] == [(10, "final")]


async def test_what_was_begun_in_a_pause_counts_as_words_on_the_way() -> None:
    """It is agreed upon with others, and the next step is counted from it."""
    asked, piece = Asked(), _piece()
    piece.ask(asked)
    _add(piece, 2)
    piece.ask_to_close(asked, "eager")
    asked.answers[1].begun = True
    _add(piece, 3, voiced=False)
    piece.go_on(2 * FRAME)
    assert piece.asked == 12 * FRAME
    asked.answers[1].set_result(_said("go home"))
    piece.ask(asked)
    asked.answers[2].set_result(_said("go home now"))
    piece.collect(_explain)  # type: ignore[arg-type]
    assert [word.text for word in piece.agreement.agreed] == [" go", " home"]


async def test_a_pause_calls_off_the_words_that_wait() -> None:
    """What hears more is asked already; what is at work goes on."""
    asked, piece = Asked(), _piece()
    piece.ask(asked)
    piece.ask(asked)
    asked.answers[0].begun = True
    piece.ask_to_close(asked, "eager")
    assert [answer.cancelled() for answer in asked.answers] == [False, True, False]


async def test_what_is_too_short_for_a_word_is_not_asked() -> None:
    """It has none, at once."""
    asked, piece = Asked(), _piece(2)
    piece.ask_to_close(asked, "eager")
    piece.need(asked)
    piece.close(asked)
    piece.collect(_explain)  # type: ignore[arg-type]
    assert asked.what == []
    assert piece.said == Transcription()


async def test_what_hears_hardly_more_than_the_one_before_agrees_with_nothing() -> None:
    """Two transcripts of nearly the same sound have the same mistakes."""
    asked, piece = Asked(), _piece()
    piece.ask(asked)
    asked.answers[0].begun = True
    _add(piece, 2)
    piece.ask_to_close(asked, "eager")
    asked.answers[1].begun = True
    piece.go_on(3 * FRAME)
    asked.answers[0].set_result(_said("go home"))
    piece.collect(_explain)  # type: ignore[arg-type]
    assert asked.answers[1].cancelled()
    assert piece.asked == 10 * FRAME
    assert piece.agreement.agreed == []


async def test_words_that_were_told_and_stand_behind_a_cut_are_not_told_again() -> None:
    """They are the first ones of the rest."""
    frames = [np.full(512, 0.5, np.float32)] * 80 + [np.zeros(512, np.float32)] + [np.ones(512, np.float32)] * 69
    asked, piece = Asked(), Piece(0, frames, len(frames))
    words = [Heard(f" {word}", n, n + 0.5) for n, word in enumerate("abcde")]
    for _ in range(2):
        piece.agreement.hear(words[:4])
    piece.told = 4
    piece.ask_to_close(asked, "final")
    asked.answers[0].set_result(Transcription(tuple(words)))

    rest = piece.cut()

    assert rest.start == 80 * FRAME
    assert piece.said == Transcription(tuple(words[:3]))
    assert (piece.agreement.agreed, piece.told) == (words[:3], 3)
    behind = [word.earlier(rest.start / RATE) for word in words[3:]]
    assert (rest.agreement.agreed, rest.told) == (behind[:1], 1)
    assert rest.agreement.after(behind) == behind[1:]
