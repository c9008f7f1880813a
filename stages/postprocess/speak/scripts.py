"""In which language a text is spoken, as far as its script tells: an English voice only names Chinese characters."""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType

SCRIPTS = (
    ("\u0370", "\u03ff", "el"),
    ("\u0400", "\u04ff", "ru"),
    ("\u0530", "\u058f", "hy"),
    ("\u0590", "\u05ff", "he"),
    ("\u0600", "\u06ff", "ar"),
    ("\u0900", "\u097f", "hi"),
    ("\u0980", "\u09ff", "bn"),
    ("\u0b80", "\u0bff", "ta"),
    ("\u0e00", "\u0e7f", "th"),
    ("\u10a0", "\u10ff", "ka"),
    ("\u3040", "\u30ff", "ja"),
    ("\u4e00", "\u9fff", "cmn"),
    ("\uac00", "\ud7af", "ko"),
)
"""First and last character of a script, and a language that is written in it."""

SHARED = MappingProxyType(
    {
        "ru": ("uk", "be", "bg", "mk", "sr", "kk", "ky", "tt", "ba", "cv", "uz"),
        "ar": ("fa", "ur", "sd", "ug"),
        "hi": ("mr", "ne", "kok"),
        "cmn": ("zh", "yue", "hak", "ja"),
        "bn": ("as", "bpy"),
    }
)
"""Other languages that are written in the same script: a voice for one of them is kept."""

JAPANESE_SHARE = 0.15
"""Of Chinese characters and kana together the share of kana from which on a text is Japanese."""


def language_of(text: str, usual: str) -> str:
    """The language by which `text` is spoken: `usual`, unless most letters are of a script that it has not."""
    if text.isascii():
        return usual
    counts: Counter[str] = Counter(_script(letter) for letter in text if letter.isalpha())
    if counts["ja"] > JAPANESE_SHARE * (counts["ja"] + counts["cmn"]):
        counts["ja"] += counts.pop("cmn", 0)
    language, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    own = usual.split("-", maxsplit=1)[0]
    if not language or own == language or own in SHARED.get(language, ()) or count * 2 <= counts.total():
        return usual
    return language


def _script(letter: str) -> str:
    """A language that `letter` is written in; "" for Latin letters, and where none is known."""
    for first, last, language in SCRIPTS:
        if first <= letter <= last:
            return language
    return ""
