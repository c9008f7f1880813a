"""Cuts an answer, as it grows, into the pieces in which it is spoken.

The first piece comes as early as it is worth speaking: a clause of some words, or a sentence, or what there is when
that grows long. After it come whole sentences, for they sound better. Where a cut is made depends on the text before it
and one letter after it, never on the portions in which the text comes: the same answer is cut the same way again.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from stages.postprocess.spoken import speakable, words

CLAUSE_WORDS = 3
"""Words that a first clause has at least: it takes a second to say, in which the next piece can come."""

FIRST_MOST = 90
"""Letters after which the first piece is cut at the next space, clause or not."""

MOST = 280
"""The same for the others: some twenty seconds."""

UNBROKEN = 1_000
"""Letters without a space, like those of an address, that are not cut."""

WIDE = 3
"""Letters that a character counts that is a syllable or a word: of Chinese, Japanese and Korean."""

_NEVER_LAST = """
mr mrs ms mx dr prof st sr jr mt ft gen col sgt capt lt cmdr rev hon vs cf ca al fig eq vol ed eds nos approx dept est
jan feb mar apr jun jul aug sep sept oct nov dec tel ext bzw bspw ggf inkl evtl nr str mme mlle e.g i.e z.b d.h u.a
"""

NEVER_LAST = frozenset(_NEVER_LAST.split())
"""Abbreviations that do not end a sentence."""

SOMETIMES_LAST = frozenset(["etc", "inc", "ltd", "co", "corp", "bros", "usw", "pp", "min", "max", "no"])
"""Those that do, if the next word begins with a capital letter."""

_CLOSERS = "\"'”’»)]}*_`~」』）】》〉"
_TERMINAL = re.compile(rf"[.!?…][.!?…{re.escape(_CLOSERS)}]*$")
_WIDE_TERMINAL = re.compile(rf"[。！？｡][。！？｡…{re.escape(_CLOSERS)}]*$")
_BEFORE_PERIOD = re.compile(r"([^\s(\[\"“‘*_]+)\.[\"'”’»)\]*_]*$")
_ITEM = re.compile(r"\s*(?:\d{1,3}|[A-Za-z])[.)]$")
_CLAUSE = re.compile(rf"(?:[,;:][{re.escape(_CLOSERS)}]*|[–—]| -)$")
_SPACE = re.compile(r"(?<!\d)\s+|\s+(?=\D)")  # not the one within a number
_FENCES = ("```", "~~~")
_WIDE_CLAUSE = "，、；："


class Cut(NamedTuple):
    """A piece of the answer, which begins after `at` characters of it."""

    at: int
    text: str


class Cutter:
    """Cuts one answer. What is not to be spoken, like a block of code, is in no piece."""

    def __init__(self) -> None:
        self._at = 0
        self._text = ""
        self._first = True
        self._at_line = True
        self._in_code = False

    def feed(self, text: str) -> list[Cut]:
        """The pieces that are complete with `text`."""
        cuts: list[Cut] = []
        for character in text:
            if self._text and self._ends_before(character):
                cuts += self._cut(len(self._text))
            self._text += character
            if character == "\n":
                cuts += self._line()
            elif character.isspace() and self._ends_with(character):
                cuts += self._cut(len(self._text))
            elif place := self._too_long():
                cuts += self._cut(place)
        return cuts

    def finish(self) -> list[Cut]:
        """The piece that is left at the answer's end, if it can be spoken."""
        return [] if self._is_code() else self._cut(len(self._text))

    def _cut(self, end: int) -> list[Cut]:
        """The piece up to `end`, unless there is nothing to be said in it."""
        cut = Cut(self._at, self._text[:end])
        self._at += end
        self._text = self._text[end:]
        self._at_line = cut.text.endswith("\n")
        if not speakable(cut.text):
            return []
        self._first = False
        return [cut]

    def _line(self) -> list[Cut]:
        """A line has ended: that ends a piece, too; a fence begins a block of code, or ends it."""
        if not self._is_code():
            return self._cut(len(self._text))
        if self._is_fence():
            self._in_code = not self._in_code
        self._at += len(self._text)
        self._text, self._at_line = "", True
        return []

    def _is_fence(self) -> bool:
        return self._at_line and self._text.lstrip().startswith(_FENCES)

    def _is_code(self) -> bool:
        return self._in_code or self._is_fence()

    def _ends_before(self, character: str) -> bool:
        """Whether a piece has ended, as can be told now that `character` follows."""
        text = self._text
        if self._is_code():
            return False
        if _WIDE_TERMINAL.search(text[-8:]):
            return character not in "。！？｡…" + _CLOSERS
        if self._first and (text[-1] in _WIDE_CLAUSE or (text[-1] == "—" and not character.isspace())):
            return character not in _CLOSERS and self._is_worth_it()
        if not text[-1].isspace() or not (character.isupper() or character in "\"'“‘«("):
            return False
        return _may_end(text.rstrip()) and not self._is_item(text.rstrip())

    def _ends_with(self, space: str) -> bool:
        """Whether the piece ends with the `space` that has just come."""
        if self._is_code():
            return False
        text = self._text[: -len(space)]
        if _TERMINAL.search(text[-8:]):
            return not _may_go_on(text)
        return self._first and _CLAUSE.search(text[-4:]) is not None and self._is_worth_it()

    def _is_item(self, text: str) -> bool:
        """Whether `text` is the number of an item of a list."""
        return self._at_line and _ITEM.match(text) is not None

    def _is_worth_it(self) -> bool:
        """Whether there is enough in the first clause to speak it alone."""
        text = self._text
        return text.count("[") <= text.count("]") and words(text) + _wide(text) // 2 >= CLAUSE_WORDS

    def _too_long(self) -> int | None:
        """Where to cut what has grown too long, if it has."""
        text = self._text
        most = FIRST_MOST if self._first else MOST
        if len(text) * WIDE < most or self._is_code() or len(text) + (WIDE - 1) * _wide(text) < most:
            return None
        if is_wide(text[-1]):
            return len(text)
        spaces = [match.end() for match in _SPACE.finditer(text) if match.start()]
        clauses = [end for end in spaces if _CLAUSE.search(text[:end].rstrip())]
        if good := [end for end in clauses if end > most // 2] or spaces:
            return good[-1]
        return len(text) if len(text) >= UNBROKEN else None


def is_wide(character: str) -> bool:
    """Whether it is a letter of Chinese, Japanese or Korean."""
    return "\u3040" <= character <= "\u30ff" or "\u3400" <= character <= "\u9fff" or "\uac00" <= character <= "\ud7af"


def _wide(text: str) -> int:
    return 0 if text.isascii() else sum(map(is_wide, text))


def _may_go_on(text: str) -> bool:
    """Whether the period at the end of `text` may belong to its last word alone."""
    if text.endswith("..."):
        return True
    match = _BEFORE_PERIOD.search(text)
    if match is None:
        return False
    word = match[1].lstrip("'").lower()
    initial = len(word) == 1 and word.isalpha()
    return initial or "." in word or word.isdecimal() or word in NEVER_LAST or word in SOMETIMES_LAST


def _may_end(text: str) -> bool:
    """Whether a period of which that may be so ends the sentence, if a capital letter follows it."""
    if text.endswith("..."):
        return True
    match = _BEFORE_PERIOD.search(text)
    if match is None:
        return False
    word = match[1].lstrip("'").lower()
    return word not in NEVER_LAST and ("." in word or word.isdecimal() or word in SOMETIMES_LAST)
