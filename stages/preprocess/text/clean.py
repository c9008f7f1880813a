"""Clean text of what nobody typed on purpose: broken Unicode and invisible characters. Knows no model."""

from __future__ import annotations

import re
import unicodedata

_RUBBISH = re.compile(
    "["
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # controls, but for tab and the line's end
    "\u00ad\u200b\u2060-\u2064\ufeff"  # soft hyphen, zero-width blanks and joiners without effect, byte order mark
    "\u202a-\u202e\u2066-\u206f"  # overrides of the writing direction
    "\ufff9-\ufffc"  # annotation anchors, object replacement
    "\ud800-\udfff"  # lone surrogates
    "\ufdd0-\ufdef\ufffe\uffff"  # no characters at all
    "]"
    # Invisible tags carry hidden instructions; a flag (England's, say) is spelt with them.
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0001-\U000e007f]+"
)
_LINE_END = re.compile("\r\n?|[\x85\u2028\u2029]")

MOST_MARKS = 30
"""Marks that a character may carry, as in UAX #15's stream-safe text: what has a use carries a handful.

To normalise a run of marks takes time with the square of its length, and nothing else runs meanwhile.
"""

_NO_LETTERS = re.compile(rf"[^\w\x00-\u02ff]{{{MOST_MARKS + 1},}}")
"""Where there may be too many marks: none of them is a letter."""


def clean(text: str) -> str:
    """`text` in NFC, with newlines for line ends, without control and invisible characters and heaps of marks.

    What has a use stays: tab, newline, the joiners of emoji and of Indic and Persian script, marks of direction.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _thinned(_RUBBISH.sub("", _LINE_END.sub("\n", text)))
    if unicodedata.is_normalized("NFC", text):
        return text
    return _thinned(unicodedata.normalize("NFC", text))  # again, as a letter may have lost a mark of its own to the run


def _thinned(text: str) -> str:
    """`text` with at most `MOST_MARKS` marks in a row; what is in NFC stays so."""
    return _NO_LETTERS.sub(_without_heaps, text)


def _without_heaps(run: re.Match[str]) -> str:
    kept: list[str] = []
    marks = 0
    for character in run[0]:
        marks = marks + 1 if _is_mark(character) else 0
        if marks <= MOST_MARKS:
            kept.append(character)
    return "".join(kept)


def _is_mark(character: str) -> bool:
    """Whether normalising may move `character` past its neighbours; some do only once they are taken apart."""
    return unicodedata.combining(unicodedata.normalize("NFD", character)[0]) > 0
