"""What customers of the demo shop say aloud: lower case, no punctuation, words of `words.txt` alone.

Sentences come from the chat model's grammar and its written messages, so that the chat model knows
what to answer; some are words without sense, so that the ear learns to hear and not to guess. Order
numbers stay in digits, as the chat model reads them, and are spoken digit by digit. What is held out
is decided by a hash of the sentence.
"""

import random
import re
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from apps.demo.grammar import turn
from apps.demo.phrases import Split
from apps.demo.wording import Talk
from apps.demo.written import written

WORDS = Path(__file__).with_name("words.txt")
HELD_OUT_SHARE = 20
LONGEST = 13
KINDS = {"faq": 40.0, "products": 32.0, "orders": 18.0, "names": 4.0, "small_talk": 18.0, "outside": 4.0}
SENTENCE_END = re.compile(r"[.?!;:\n]+(?=\s|$)|\n")
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|[0-9]+")
# fmt: off
SPELLINGS = {
    "im": "i'm", "dont": "don't", "whats": "what's", "u": "you", "ur": "your", "pls": "please", "thx": "thanks",
    "ive": "i've", "isnt": "isn't", "doesnt": "doesn't", "wheres": "where's", "cant": "can't", "thats": "that's",
    "nr": "number", "okay": "ok", "r": "are", "tshirt": "t shirt", "tshirts": "t shirts", "daypack": "day pack",
    "daypacks": "day packs", "color": "colour", "colors": "colours", "mom": "mum", "favorite": "favourite",
    "gray": "grey", "theyre": "they're", "youre": "you're", "didnt": "didn't", "wanna": "want to",
    "gonna": "going to", "ya": "you", "ppl": "people", "asap": "soon",
}
SMALL = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
# fmt: on


class Unit(NamedTuple):
    """Something spoken as one: a word, or a digit of a long number; `word` is its place in the sentence."""

    text: str
    word: int


def normalised(text: str) -> str:
    """`text` as the model writes it; numbers up to twelve become words."""
    text = text.lower().replace("’", "'").replace("t-shirt", "t shirt").replace("'s ", "'s ")
    found = (SPELLINGS.get(word, word) for word in WORD.findall(text))
    return " ".join(SMALL[int(word)] if word.isdigit() and int(word) <= 12 else word for word in found)


def pieces(text: str) -> Iterator[str]:
    """The sentences of a message, each of a length that is said in one breath."""
    whole = [normalised(part) for part in SENTENCE_END.split(text)]
    for part in whole:
        if 1 <= len(part.split()) <= LONGEST:
            yield part


@cache
def words() -> tuple[str, ...]:
    """The model's vocabulary, the most frequent first."""
    return tuple(WORDS.read_text(encoding="utf-8").split())


@cache
def _known() -> frozenset[str]:
    return frozenset(words())


def speakable(sentence: str) -> bool:
    """Does it have known words and numbers alone?"""
    return all(word in _known() or (word.isdigit() and len(word) <= 8) for word in sentence.split())


def held_out(sentence: str) -> bool:
    """Is `sentence` kept for the evaluation?"""
    return zlib.crc32(sentence.encode()) % HELD_OUT_SHARE == 0


@cache
def messages() -> tuple[str, ...]:
    """The chat model's written messages that have no slot."""
    return tuple(text for one in written() for _, text in one.turns if "{" not in text)


def senseless(rng: random.Random) -> str:
    """Some words in any order, the rare ones as often as the frequent."""
    return " ".join(rng.choice(words()) for _ in range(rng.randint(2, 7)))


def numbered(rng: random.Random) -> str:
    """An order's number, alone or in its usual place."""
    number = "".join(rng.choice("0123456789") for _ in range(rng.choice((4, 5, 5, 5, 6))))
    number = number if number[0] != "0" else "1" + number[1:]
    frame = rng.choice(("{}", "order {}", "my order number is {}", "it's {}", "the number is {}", "order number {}"))
    return frame.replace("{}", number)


def raw(rng: random.Random) -> str:
    """One message of any kind, as it is typed."""
    kind = rng.random()
    if kind < 0.17:
        return rng.choice(messages())
    if kind < 0.22:
        return numbered(rng)
    return turn(Talk(rng, Split.TRAIN, 0.0), KINDS).user


def sentences(rng: random.Random, *, held: bool, senseless_share: float = 0.12) -> Iterator[str]:
    """Sentences without end, those that are held out or those that are not."""
    while True:
        if rng.random() < senseless_share and not held:
            found = [senseless(rng)]
        else:
            found = [one for one in pieces(raw(rng)) if speakable(one)]
        yield from (one for one in found if held_out(one) is held)


def units(sentence: str) -> list[Unit]:
    """What is spoken one by one; numbers of three and more digits come apart."""
    return [
        Unit(part, place)
        for place, word in enumerate(sentence.split())
        for part in (word if word.isdigit() and len(word) > 2 else (word,))
    ]
