"""What is said of a written text: the words without their markup, addresses by their host, no pictures.

The long numbers of orders and telephones are said digit by digit.

Keeps, for each character that is said, the place in the text where it comes from.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

KEPT_SYMBOLS = frozenset("°©®™№℃℉")
"""Symbols that have a name one says; all others, emoji first of all, are left out."""

ARROWS = frozenset("→⇒⟶➜➔")

_PARTS = re.compile(
    r"""
      (?P<rule>^[ \t]*(?:[-*_=][ \t]*){3,}$)
    | (?P<row>^[ \t]*\|?[ \t]*:?-{2,}[-:| \t]*$)
    | (?P<head>^[ \t]*(?:\#{1,6}[ \t]|>[ \t>]*|[-*+•‣][ \t]+(?:\[[ xX]\][ \t])?))
    | !?\[(?P<label>[^\]\n]*)\]\((?P<target>[^()\s]*(?:\([^()\s]*\)[^()\s]*)*)[^()\n]*\)
    | <(?P<link>(?:https?://|mailto:)[^<>\s]+)>
    | (?P<tag></?[A-Za-z][^<>\n]*>)
    | (?P<mail>\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+)
    | (?P<url>(?:https?://|\bwww\.)[^\s<>"'`]+)
    | (?P<digits>(?<![\d$€£¥])(?<!\d[.,])\d{5,}(?<!00)(?![\d€£¥%]|[.,]\d))
    | (?P<span>(?<=\d)[ ]?[–—][ ]?(?=\d))
    | (?P<times>(?<=\d)[ ]?\*[ ]?(?=\d))
    | (?P<marks>[*`~|\\]+|(?<!\w)_+|_+(?!\w))
    | (?P<under>_+)
    | (?P<dash>[ ]?—[ ]?|[ ]–[ ]|(?<!\d)[ ]-[ ]|[ ]-[ ](?!\d))
    """,
    re.VERBOSE | re.MULTILINE,
)

_HOST = re.compile(r"(?:https?://|mailto:)?(?:[^/@\s]*@)?(?:www\.)?(?P<host>[^/?#:\s]+)")
_END = re.compile(r"[.,;:!?)\]}'\"»”’]+$")
_WORD = re.compile(r"\w+(?:[.,:'’]\w+)*")


class Said(NamedTuple):
    """What is said, and from where in the text each of its characters comes."""

    text: str
    places: tuple[int, ...]


def spoken(text: str) -> Said:
    """What is said of `text`; it is blank if there is nothing to be said."""
    pairs = list(_pairs(text))
    return Said("".join([said for said, _ in pairs]), tuple([place for _, place in pairs]))


def words(text: str) -> int:
    """How many words are said of `text`."""
    return len(_WORD.findall(spoken(text).text))


def speakable(text: str) -> bool:
    """Whether there is a word in `text`, or a number."""
    return any(said.isalnum() for said, _ in _pairs(text))


def _pairs(text: str) -> Iterator[tuple[str, int]]:
    """The characters that are said, each with its place."""
    done = 0
    for match in _PARTS.finditer(text):
        yield from _plain(text, done, match.start())
        yield from _said(text, match)
        done = match.end()
    yield from _plain(text, done, len(text))


def _plain(text: str, start: int, end: int) -> Iterator[tuple[str, int]]:
    for place in range(start, end):
        character = text[place]
        if character in ARROWS:
            yield ",", place
        elif not _is_picture(character):
            yield character, place


def _is_picture(character: str) -> bool:
    """Whether it belongs to an emoji, or is a symbol without a name, or nothing that can be seen."""
    if character.isascii() or character in KEPT_SYMBOLS:
        return False
    return unicodedata.category(character) in ("So", "Sk", "Cf", "Co", "Cn", "Me") or character == "\ufe0f"


def _said(text: str, match: re.Match[str]) -> Iterator[tuple[str, int]]:
    """What is said of a part that is not plain text."""
    kind = match.lastgroup
    if kind == "digits":
        for place in range(match.start(), match.end()):
            yield text[place], place
            yield " ", place
    elif kind in ("label", "target"):
        for said, place in _pairs(match["label"]):
            yield said, place + match.start("label")
    elif kind is not None:
        for said in _SAYING[kind](match[0]):
            yield said, match.start()


def _address(text: str) -> str:
    """The host of an address, as one says it; what ends the sentence behind it is kept."""
    end = _END.search(text)
    host = _HOST.match(text[: end.start()] if end else text)
    return (host["host"].replace(".", " dot ") if host else "") + (end[0] if end else "")


def _mail(text: str) -> str:
    return text.replace("@", " at ").replace(".", " dot ")


def _marks(text: str) -> str:
    """A cell's border is a pause; what makes words bold is nothing, and what joins them a space."""
    return ", " if "|" in text else ""


def _nothing(_: str) -> str:
    return ""


_SAYING: dict[str, Callable[[str], str]] = {
    "rule": _nothing,
    "row": _nothing,
    "head": _nothing,
    "tag": _nothing,
    "link": lambda text: _address(text[1:-1]),
    "url": _address,
    "mail": _mail,
    "span": lambda _: " to ",
    "times": lambda _: " times ",
    "marks": _marks,
    "under": lambda _: " ",
    "dash": lambda _: ", ",
}
