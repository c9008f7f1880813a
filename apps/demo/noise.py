"""Write as people type: lower case, no punctuation, abbreviations, wrong letters.

Values that a reply must echo are hidden behind one-letter marks first, so they stay whole.
"""

import random
import re
from functools import cache

from apps.demo.phrases import values

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
WORD = re.compile(r"[A-Za-z']+")
SMALL = re.compile(r"(?i)\b(?:an?|the|my|your?|is|are|am|do|does|can|could|i|to|of|for|it|have|there|please) ")


def typo(word: str, rng: random.Random) -> str:
    """Swap, drop, double or miss one letter."""
    at = rng.randrange(len(word))
    kind = rng.random()
    if kind < 0.3 and at + 1 < len(word):
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind < 0.6 and len(word) > 2:
        return word[:at] + word[at + 1 :]
    if kind < 0.75:
        return word[: at + 1] + word[at:]
    return word[:at] + neighbour(word[at], rng) + word[at + 1 :]


def neighbour(letter: str, rng: random.Random) -> str:
    """A key beside `letter`."""
    for row in ROWS:
        if (at := row.find(letter.lower())) >= 0:
            return row[max(0, at - 1) if rng.random() < 0.5 else min(len(row) - 1, at + 1)]
    return letter


@cache
def short_forms() -> dict[str, tuple[str, ...]]:
    """What people write instead of a word or two."""
    lines = (line.split(": ") for line in values("short_forms", "\n"))
    return {word: tuple(forms.split(", ")) for word, forms in lines}


def shorten(text: str, rng: random.Random, share: float) -> str:
    """Abbreviate or misspell the words that people do."""
    for word, forms in short_forms().items():
        if word in text.lower() and rng.random() < share:
            text = re.sub(rf"(?i)\b{word}\b", rng.choice(forms), text)
    return text


def misspell(text: str, rng: random.Random, count: int) -> str:
    """Put a typo in `count` of the longer words."""
    for _ in range(count):
        words = [found for found in WORD.finditer(text) if len(found[0]) > 3]
        if words:
            found = rng.choice(words)
            text = text[: found.start()] + typo(found[0], rng) + text[found.end() :]
    return text


def skim(text: str, rng: random.Random) -> str:
    """Leave out half of the small words: `How long is the delivery` becomes `How long delivery`."""
    return SMALL.sub(lambda found: found[0] if rng.random() < 0.5 else "", text)


def roughen(text: str, rng: random.Random, level: float) -> str:
    """`text` as typed by someone; `level` from 0 (tidy) to 1 (half of all messages have errors)."""
    if rng.random() < 0.35 * level:
        text = shorten(text, rng, 0.5)
    if rng.random() < 0.15 * level:
        text = skim(text, rng)
    if rng.random() < 0.35 * level:
        text = misspell(text, rng, rng.choice((1, 1, 1, 2)))
    if rng.random() < 0.3:
        text = re.sub(r"[',]", "", text)
    case = rng.random()
    if case < 0.45:
        return text.lower()
    return text.upper() if case < 0.48 else text
