"""Read the phrase files, and put phrases together from their alternatives.

A file holds `= name: value, value` lists and `# intent weight=2` sections of `? question`,
`! statement` and `> reply` lines. `(a|b)` is a choice, `{slot}` is filled by others. What is held
out of the training is decided by a hash of the phrase, never by its place in a list.
"""

import random
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("phrases")
CHOICE = re.compile(r"\(([^()]*)\)")
SLOT = re.compile(r"\{(\w+)\}")
HELD_OUT_SHARE = 10


class Split(Enum):
    """Which phrases and values may be used."""

    TRAIN = "train"
    TEST = "test"


class NoPhrase(LookupError):
    """An intent has no phrase in the split that was asked for."""


@dataclass(frozen=True)
class Intent:
    """Ways to say one thing, and the right answers if they depend on nothing else."""

    name: str
    weight: float
    phrases: list[str] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Phrases:
    """One phrase file."""

    intents: Mapping[str, Intent]
    lists: Mapping[str, list[str]]

    def pick(self, rng: random.Random) -> Intent:
        """An intent, by weight."""
        intents = list(self.intents.values())
        return rng.choices(intents, [one.weight for one in intents])[0]


def held_out(text: str) -> bool:
    """Is `text`, a phrase or a value, kept for the test?"""
    return zlib.crc32(text.lower().encode()) % HELD_OUT_SHARE == 0


def belongs(text: str, split: Split) -> bool:
    """May `text` be used in `split`?"""
    return held_out(text) is (split is Split.TEST)


def choose(values: list[str], rng: random.Random, split: Split) -> str:
    """One of the values of `split`; any of them in the test if none is held out."""
    return rng.choice(_values(tuple(values), split))


@cache
def _values(values: tuple[str, ...], split: Split) -> list[str]:
    return [one for one in values if belongs(one, split)] or list(values)


def expand(template: str, rng: random.Random) -> str:
    """Take one of each `(a|b)`, the innermost first."""
    while "(" in template:
        shorter = CHOICE.sub(lambda found: rng.choice(found[1].split("|")), template)
        if shorter == template:
            break
        template = shorter
    return template


def say(intent: Intent, rng: random.Random, split: Split) -> str:
    """A phrase of `split` for `intent`, its slots unfilled; the first sign is its kind.

    Raises:
        NoPhrase: none of its phrases was found to be in `split`.
    """
    for _ in range(300 if intent.phrases else 0):
        phrase = expand(rng.choice(intent.phrases), rng)
        if belongs(phrase, split):
            return phrase
    raise NoPhrase(intent.name)


@cache
def load(name: str) -> Phrases:
    """Read `phrases/<name>.txt`."""
    intents: dict[str, Intent] = {}
    lists: dict[str, list[str]] = {}
    intent = Intent("", 0.0)
    for line in (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "#":
            title, _, weight = rest.partition(" weight=")
            intent = intents[title] = Intent(title, float(weight or 1))
        elif kind == "=":
            title, _, values = rest.partition(": ")
            lists[title] = values.split(", ")
        elif kind == ">":
            intent.replies.append(rest)
        elif kind:
            intent.phrases.append(line)
    return Phrases(intents, lists)


@cache
def values(name: str, separator: str | None = None) -> list[str]:
    """The values in `phrases/<name>.txt`, which holds nothing else."""
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8").strip().split(separator)
