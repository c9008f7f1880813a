"""Whether somebody who pauses has finished, by what was said: the linguistic half of `semantic_vad`.

A rule, not a model. It reads the last words, written with or without punctuation and capitals:

- nothing said, or a language that it does not know: `unclear`, unless punctuation tells;
- a sentence's end mark: `finished`; a comma, a dash, dots: `unfinished`;
- a short answer or a courtesy at the end ("yes", "please", "thank you"): `finished`;
- a word that wants another after it (a conjunction, a preposition, an article, a possessive, an auxiliary, a filler):
  `unfinished`; but a preposition at the end of a question is `unclear`, and a verb at the end of one that asks for its
  object (how long does it take), `finished`;
- a question of four words or more, a subject and two words or more after it, or an order's verb with something after
  it: `finished`;
- anything else, such as a name or a number alone: `unclear`.
"""

from __future__ import annotations

import re
from itertools import dropwhile
from typing import Literal

from pipeline.voice import Eagerness

Ending = Literal["finished", "unclear", "unfinished"]

WAIT_MS: dict[Eagerness, dict[Ending, int]] = {
    "low": {"finished": 1000, "unclear": 3000, "unfinished": 8000},
    "medium": {"finished": 600, "unclear": 1500, "unfinished": 4000},
    "high": {"finished": 400, "unclear": 800, "unfinished": 2000},
}
"""Milliseconds of silence after which a turn is over."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPEN = _words(
    """a an the my your his its our their some every each another
    and or but nor so because although though while if unless whether than which who whose as like
    i we they he she
    is are was were am be been being do does did has had have will would can could shall should may might must
    don't doesn't didn't can't couldn't won't wouldn't isn't aren't wasn't i'm i'd i'll i've we're we'd we'll you're
    it's that's there's what's
    want need get give make take put add bring tell let going gonna wanna wondering
    um uh uhm erm er hmm mm well actually basically maybe very really
    what how why let's"""
)
"""Words that something comes after."""

STRANDED = _words(
    """is are was were be been do does did has had have will would can could should may might must
    want need get give make take put add bring tell"""
)
"""Those of them that end a question which began with what they want."""

LOOSE = _words(
    """of to in on at by for from with without about into onto over under between after before during through against
    among around near per plus until since when where that this these those any no her you too much more less just"""
)
"""Words that something comes after, unless they end a question (what is it for), or what is longer (that one too)."""

OPENERS = _words("ok okay hello hi hey so and well thanks good no yes alright right sorry please also but now")
"""Words before a sentence that are no part of it."""

CLOSED = _words(
    """yes yeah yep no nope okay ok sure right thanks thank please correct exactly goodbye bye hello hi stop cancel
    nothing everything never always today tomorrow tonight now later here there again"""
)
"""Words that end what was said, if it is short or not."""

CLOSING = ("thank you", "thanks", "that's all", "that is all", "that's it", "never mind", "not really", "of course")
"""The same, of several words."""

ASKS = _words(
    """what when where who whom whose which why how is are was were am do does did can could will would shall should may
    might have has what's where's who's how's when's isn't aren't don't doesn't didn't can't couldn't won't wouldn't
    """
)
"""Words that a question begins with."""

WANTING = _words("what when where who whom whose which why how")
"""Those that stand for something."""

SUBJECTS = _words(
    """i we you he she it they this that there i'm i'd i'll i've we're we'd we'll you're he's she's it's they're that's
    there's"""
)
"""Words that a sentence is about."""

ORDERS = _words(
    """give bring show tell make take put add order buy find send call open close start play pay turn set read change
    remove cancel stop help check book reserve repeat explain"""
)
"""Verbs that an order begins with."""

SHORT = 3
"""Words of a question that are too few to tell, though there may be shorter ones."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+")


def ending(text: str, language: str = "en") -> Ending:
    """Whether what was said in `text` is finished, as far as can be told."""
    text = text.strip().replace("’", "'")
    if text.endswith(("...", "…", ",", ";", ":", "-", "–", "—")):
        return "unfinished"
    if text.endswith((".", "?", "!", "。", "？", "！", "؟", "।")):
        return "finished"
    if language not in ("", "en"):
        return "unclear"
    words = _WORD.findall(text.lower())
    return _ending(words) if words else "unclear"


def wait_ms(eagerness: Eagerness, text: str, language: str = "en") -> int:
    """Milliseconds of silence after `text` that end a turn."""
    return WAIT_MS[eagerness][ending(text, language)]


def soonest_ms(eagerness: Eagerness) -> int:
    """Milliseconds of silence before which no turn ends, whatever was said."""
    return WAIT_MS[eagerness]["finished"]


def _ending(words: list[str]) -> Ending:
    if words[-1] in CLOSED or " ".join(words).endswith(CLOSING):
        return "finished"
    body = list(dropwhile(OPENERS.__contains__, words))
    if words[-1] in OPEN:
        asked = words[-1] in STRANDED and body[0] in WANTING and len(body) > SHORT
        return "finished" if asked else "unfinished"
    if words[-1] in LOOSE:
        return "unclear" if body and body[0] in ASKS and len(body) >= SHORT else "unfinished"
    return "finished" if _sentence(body) else "unclear"


def _sentence(words: list[str]) -> bool:
    """Whether `words` have what a sentence needs."""
    if not words or words[0] in ASKS:
        return len(words) > SHORT
    if words[0] in ORDERS:
        return len(words) > 1
    subject = next((place for place, word in enumerate(words) if word in SUBJECTS), len(words))
    return len(words) - subject > 2
