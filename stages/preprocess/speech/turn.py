"""A turn: its pieces in order, what has been told of them, and how it ends."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

from pipeline.messages import Message, Problem
from pipeline.voice import RATE, Transcribed, Transcript, Word
from stages.preprocess.speech.piece import Answer, Piece
from stages.preprocess.speech.recogniser import Heard


def item_of(stream: Message, start: int) -> str:
    """The name of the turn of `stream` that begins at `start`: the same, whoever finds it."""
    place = f"{stream.session}\n{stream.turn}\n{start}"
    return f"item_{hashlib.blake2b(place.encode(), digest_size=12).hexdigest()}"


class Turn:
    """Turn `item` from position `start` on; one that has no name yet tells nothing before its end."""

    def __init__(self, stream: Message, item: str, start: int, *, partials: bool) -> None:
        self.item = item
        self.start = start
        self.end: int | None = None
        self.pieces: list[Piece] = []
        self._stream = stream
        self._partials = partials and bool(item)
        self._told = 0

    @property
    def over(self) -> bool:
        """Whether it has ended and all is known of it."""
        return self.end is not None and all(piece.said is not None for piece in self.pieces)

    @property
    def text(self) -> str | None:
        """What was said so far; None while that is not known."""
        known = [piece.preview() for piece in self.pieces]
        if any(one is None for one in known):
            return None
        return "".join(word.text for one in known if one is not None for word in one.words).strip()

    @property
    def language(self) -> str:
        """That of the first piece in which there are words; "" while that is not known."""
        return next((piece.said.language for piece in self.pieces if piece.said and piece.said.words), "")

    @property
    def unanswered(self) -> list[Answer]:
        """What was asked of it and is not answered."""
        return [answer for piece in self.pieces for answer in piece.unanswered]

    def name(self, item: str, *, partials: bool) -> None:
        """It is called `item`, whatever it was called before: all of it is told under that name."""
        if item != self.item:
            self.item, self._partials, self._told = item, partials, 0
            for piece in self.pieces:
                piece.told = 0

    def give_up(self) -> None:
        """Nobody wants to know any more."""
        for piece in self.pieces:
            piece.give_up()

    def collect(self, explain: Callable[[BaseException], Problem]) -> Iterator[Transcript | Transcribed]:
        """Take in what has been answered since, and tell what became certain by it."""
        for piece in self.pieces:
            piece.collect(explain)
        if self._partials:
            yield from self._news()
        if self.over:
            yield self._whole()

    def _news(self) -> Iterator[Transcript]:
        """The words that nobody was told of: of the first piece that is not known yet what is agreed upon."""
        for piece in self.pieces:
            fresh = piece.agreement.agreed[piece.told :]
            piece.told += len(fresh)
            if words := self._words(piece, fresh, first=not self._told):
                text = "".join(word.text for word in words)
                yield Transcript(self._stream.session, self._stream.turn, self.item, self._told, text, words)
                self._told += len(text)
            if piece.said is None:
                return

    def _whole(self) -> Transcribed:
        """The last word."""
        assert self.end is not None
        words: tuple[Word, ...] = ()
        for piece in self.pieces:
            assert piece.said is not None
            words += self._words(piece, piece.said.words, first=not words)
        problem = next((piece.problem for piece in self.pieces if piece.problem), None)
        if problem is not None:
            words = ()
        text = "".join(word.text for word in words)
        return Transcribed(
            self._stream.session,
            self._stream.turn,
            self.item,
            text.rstrip(),
            words,
            samples=self.end - self.start,
            language=self.language,
            problem=problem,
        )

    def _words(self, piece: Piece, heard: Sequence[Heard], *, first: bool) -> tuple[Word, ...]:
        """`heard` with the positions of the session; the `first` one of a turn has no space before it.

        A model takes the silence before its first word for a part of that word; the VAD knows better.
        """
        words = []
        for number, word in enumerate(heard):
            text = word.text.lstrip() if first and not number else word.text
            start = max(piece.start + round(word.start * RATE), piece.speech)
            words.append(Word(text, start, max(piece.start + round(word.end * RATE), start)))
        return tuple(words)
