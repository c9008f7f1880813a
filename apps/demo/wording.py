"""How a customer writes: greetings, endings, names and numbers in their usual forms, and then errors.

`Talk` is also what a good assistant would remember of a dialogue. Which question comes is decided
elsewhere (`grammar.py`).
"""

import random
import re
from dataclasses import dataclass

from apps.demo.noise import roughen
from apps.demo.phrases import SLOT, Phrases, Split, choose, values
from apps.demo.shop import GOODS, Product
from apps.demo.values import emoji, first_name, junk, punctuation, random_letters, small_number, year

NAME_MARK, ORDER_MARK = "\ue000", "\ue001"
# fmt: off
OPENINGS = (
    "so ", "um ", "well ", "ok, ", "and ", "also ", "one more thing: ", "excuse me, ", "sorry, ", "quick question: ",
    "please, ", "another question: ", "ok and ", "but ", "just wondering, ", "oh and ", "cool, ", "great, ", "thanks, ",
    "can you help? ", "a question: ", "I wanted to ask, ", "what I'd like to know: ", "tell me, ", "by the way, ",
    "btw ", "my question is: ", "now ", "next: ", "right, ", "erm ", "I have a question. ", "maybe you know: ",
    "sorry to bother you, ", "hey quick one, ", "alright, ", "listen, ", "another thing, ", "do you know, ", "ok so ",
    "not sure if you can help, but ", "one question before I order: ", "just one thing, ", "actually ", "dear team, ",
)
AFTERTHOUGHTS = (
    ", I can't find it on your website", ", my wife wants to know", ", I couldn't find out", ", do you know",
    ", any idea", ", I forgot", ", it's important", ", just so I know", ", I need to know",
    ", that's all I want to know",
    ", before I decide", ", I'm new here", ", could you tell me", " or not", " by the way", ", roughly", " normally",
    ", a friend asked me", " if I may ask", ", if you know",
)
GREETINGS = (
    "hi, ", "hello, ", "hey, ", "hi! ", "hello! ", "good morning, ", "hey there, ", "hi there, ", "hello there! ",
    "Good evening. ", "hi ", "hello ",
)
ENDINGS = (
    " please", " thanks", " thank you", ", thanks in advance", " pls", ", please?", "? thanks!", " :)", " my friend",
    " asap", " then", " exactly",
)
# fmt: on


@dataclass(frozen=True)
class Turn:
    """One exchange: what is typed, all right answers (the first is the taught one), what kind of thing it is."""

    user: str
    replies: tuple[str, ...]
    intent: str
    echo: bool = False


class Talk:
    """One dialogue in the making: what was said so far that matters."""

    def __init__(self, rng: random.Random, split: Split, noise: float) -> None:
        self.rng = rng
        self.split = split
        self.noise = noise
        self.name = ""
        self.order = ""
        self.product: Product | None = None
        self.topic = ""
        self.last = ""
        self.asked = False

    def opened(self, phrase: str, reply: str, intent: str, *, echo: bool = False) -> Turn:
        """Write `phrase`, now and then after a greeting or a little word."""
        greeting = self.rng.random()
        prefix = ""
        if greeting < 0.1:
            prefix, reply = self.rng.choice(GREETINGS), f"Hello! {reply}"
        elif greeting < 0.2:
            prefix = self.rng.choice(OPENINGS)
        elif greeting < 0.26:
            prefix = choose(values("contexts", "\n"), self.rng, self.split) + self.rng.choice(
                (". ", ", ", " and ", ". ", "\n", "! ")
            )
        elif greeting < 0.3 and phrase[0] == "?":
            phrase += self.rng.choice(AFTERTHOUGHTS)
        return Turn(self.write(phrase, prefix=prefix), (reply,), intent, echo)

    def number(self, phrase: str) -> str:
        """Write the order number's slot in one of the usual ways."""
        form = self.rng.choice(("{o}", "{o}", "{o}", "#{o}", "number {o}", "no. {o}", "nr {o}", "number: {o}"))
        plain = phrase.endswith((" is {o}", "number {o}", "# {o}", "#{o}", "no {o}")) or "order {o}" not in phrase
        return (
            phrase.replace("{on}", form)
            .replace("{o}", ORDER_MARK if plain else form.replace("{o}", ORDER_MARK))
            .replace("{o}", ORDER_MARK)
        )

    def write(
        self,
        phrase: str,
        phrases: Phrases | None = None,
        *,
        prefix: str = "",
        ending: str | None = None,
        rough: bool = True,
    ) -> str:
        """`phrase` with its slots filled, an ending, and the errors of a human."""
        kind, text = phrase[0], phrase[2:]
        text = SLOT.sub(lambda found: self.value(found[1], phrases), text)
        text = re.sub("  +", " ", text).strip()
        if not rough:
            return text
        text = (
            prefix + text
            if prefix and self.rng.random() < 0.5
            else (prefix + text if prefix else text[:1].upper() + text[1:])
        )
        if ending is None:
            ending = self.ending(kind)
        text = roughen(text + ending, self.rng, self.noise)
        return text.replace(NAME_MARK, self.typed_name()).replace(ORDER_MARK, self.order)

    def ending(self, kind: str) -> str:
        """What stands after the last word."""
        extra = self.rng.random()
        polite = self.rng.choice(ENDINGS) if extra < 0.06 else f" {emoji(self.rng)}" if extra < 0.09 else ""
        signs = ("?", "?", "?", "", "", "??", "?!") if kind == "?" else (".", ".", "", "", "", "!")
        return polite + ("" if polite.endswith(("?", "!", ")")) else self.rng.choice(signs))

    def typed_name(self) -> str:
        """The name as its owner may type it."""
        case = self.rng.random()
        name = self.name.lower() if case < 0.3 else self.name.upper() if case < 0.34 else self.name
        return f"{name} {first_name(self.rng, self.split)}" if self.rng.random() < 0.06 else name

    def value(self, slot: str, phrases: Phrases | None) -> str:
        """A value for a slot that is no product's."""
        makers = {"junk": junk, "emoji": emoji, "punct": punctuation, "n": small_number, "year": year}
        if slot == "name":
            return NAME_MARK
        if slot == "everyday":
            return choose(values("everyday"), self.rng, self.split)
        if slot == "letter":
            return random_letters(self.rng, 1)
        if slot in makers:
            return makers[slot](self.rng)
        if slot in GOODS:
            return self.rng.choice(GOODS[slot])
        assert phrases is not None, slot
        return choose(phrases.lists[slot], self.rng, self.split)

    def shuffled(self, replies: list[str]) -> tuple[str, ...]:
        """All of them, any first."""
        return tuple(self.rng.sample(replies, len(replies)))
