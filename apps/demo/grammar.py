"""Make dialogues with the shop: what a customer types, and every right answer to it.

`Talk` remembers what a good assistant would (name, order, product), so the right answer of each
turn is known and the check of `evaluate.py` is exact. Same seed, same dialogue.
"""

import random
from collections.abc import Callable, Iterator

from apps.demo import answers
from apps.demo.order_talk import about_order, after_ask, recalled
from apps.demo.phrases import Phrases, Split, load, say
from apps.demo.product_talk import (
    CATEGORY_INTENTS,
    DOUBLES,
    FACTS,
    JOINTS,
    about_product,
    after_which,
    ask_category,
    beside_the_point,
    fill_product,
)
from apps.demo.shop import PRODUCTS, SYSTEM
from apps.demo.values import first_name
from apps.demo.wording import Talk, Turn
from apps.demo.written import converse, fits, singles, written

# fmt: off
OTHER_SYSTEMS = (
    "You are a helpful assistant.", "Be brief and friendly.", "You are a shop assistant.", "Answer in one sentence.",
)
KINDS = {
    "faq": 40.0, "products": 35.0, "orders": 13.0, "names": 7.0, "small_talk": 12.0, "outside": 30.0, "foreign": 2.5,
}
WRITTEN_SHARE = 0.55
# fmt: on


def turn(talk: Talk, kinds: dict[str, float]) -> Turn:
    """Go on with one of `kinds`, by weight."""
    kind = talk.rng.choices(list(kinds), list(kinds.values()))[0]
    makers: dict[str, Callable[[Talk], Turn]] = {
        "faq": faq, "products": about_product, "orders": about_order, "names": about_name,
    }  # fmt: skip
    made = makers[kind](talk) if kind in makers else plain(talk, load(kind))
    talk.last = made.intent
    return made


def plain(talk: Talk, phrases: Phrases) -> Turn:
    """Small talk or something outside the shop."""
    intent = phrases.pick(talk.rng)
    text = talk.write(say(intent, talk.rng, talk.split), phrases, rough=intent.name not in ("gibberish", "foreign"))
    replies = talk.shuffled(intent.replies)
    if intent.name == "bye" and talk.name:
        replies = talk.shuffled([*replies, f"Goodbye, {talk.name}, and enjoy the outdoors!"])
    if intent.name == "thanks" and talk.name:
        replies = talk.shuffled([*replies, f"You're welcome, {talk.name}!"])
    return Turn(text, replies, intent.name)


def faq(talk: Talk) -> Turn:
    """One question about the shop, or two in one message."""
    if talk.rng.random() < 0.25:
        return two_questions(talk)
    intent = load("faq").pick(talk.rng)
    phrase = say(intent, talk.rng, talk.split)
    if talk.rng.random() < 0.07:
        phrase = beside_the_point(talk, phrase)
    return talk.opened(phrase, intent.replies[0], intent.name)


def part(talk: Talk) -> tuple[str, str]:
    """A question and its answer, to be joined with another."""
    if talk.split is Split.TRAIN and talk.rng.random() < 0.25:
        name, text = talk.rng.choice(singles())
        return f"! {text.rstrip('?!.')}", load("faq").intents[name].replies[0]
    if talk.rng.random() < 0.6:
        intent = load("faq").pick(talk.rng)
        return say(intent, talk.rng, talk.split), intent.replies[0]
    if talk.rng.random() < 0.2:
        return ask_category(talk, load("products").intents[talk.rng.choice(CATEGORY_INTENTS)])
    one, topic = talk.rng.choice(PRODUCTS), talk.rng.choice(FACTS)
    talk.product, talk.asked = one, True
    phrase = say(load("products").intents[topic], talk.rng, talk.split)
    return fill_product(talk, phrase, one), answers.ABOUT_PRODUCT[topic](one)


def two_questions(talk: Talk) -> Turn:
    """Two questions in one message, answered in their order."""
    (first, reply), (second, other) = part(talk), part(talk)
    pattern = "{0}" + talk.rng.choice(JOINTS) + "{1}" if talk.rng.random() < 0.4 else talk.rng.choice(DOUBLES)
    both = second[:2] + pattern.replace("{0}", first[2:]).replace("{1}", second[2:])
    return talk.opened(both, reply if other == reply else f"{reply} {other}", "two_questions")


def about_name(talk: Talk) -> Turn:
    """A name is given, alone or before a question, or asked for."""
    if talk.rng.random() < (0.45 if talk.name else 0.12):
        return recalled(talk, "recall_name")
    phrase = say(load("orders").intents["give_name"], talk.rng, talk.split)
    talk.name = first_name(talk.rng, talk.split)
    if talk.rng.random() < 0.3:
        return name_and_question(talk, phrase)
    return Turn(talk.write(phrase), (f"Nice to meet you, {talk.name}! How can I help you?",), "give_name", echo=True)


def name_and_question(talk: Talk, phrase: str) -> Turn:
    """A name and a question in one message: `Hi, I'm Ada. Where is my order?`."""
    made = turn(talk, {"faq": 3, "products": 3, "orders": 3})
    joint = talk.rng.choice((". ", ", ", " and ", "! ", ". ", "\n"))
    body = made.user if talk.rng.random() < 0.5 else made.user.lower()
    replies = tuple(f"Hi {talk.name}! {reply.removeprefix('Hello! ')}" for reply in made.replies)
    return Turn(talk.write(phrase, ending="") + joint + body, replies, made.intent, echo=True)


def length(rng: random.Random) -> int:
    """How many turns: most often one to four, now and then a very long talk."""
    kind = rng.random()
    if kind < 0.4:
        return 1
    if kind < 0.82:
        return rng.randint(2, 4)
    return rng.randint(5, 9) if kind < 0.985 else rng.randint(15, 28)


def dialogue(
    rng: random.Random,
    split: Split = Split.TRAIN,
    *,
    noise: float = 1.0,
    turns: int | None = None,
    copying: float = 0.0,
) -> Iterator[Turn]:
    """One dialogue; it tends to stay with a kind of question for a while. `copying` adds names and orders."""
    talk = Talk(rng, split, noise)
    count = turns or length(rng)
    favourite = rng.choices(list(KINDS), list(KINDS.values()))[0]
    for _ in range(count):
        if split is Split.TRAIN and rng.random() < WRITTEN_SHARE and fits(one := rng.choice(written()), talk):
            yield from converse(talk, one)
            continue
        if talk.last == "ask_order" and rng.random() < 0.85:
            yield after_ask(talk)
            continue
        if talk.last == "which_product" and rng.random() < 0.8:
            yield after_which(talk)
            continue
        kinds = dict(KINDS)
        kinds["names"] += 30 * copying
        kinds["orders"] += 12 * copying
        if count > 1 and favourite not in ("outside", "foreign"):
            kinds[favourite] += 60
        if talk.name or talk.order:
            kinds["names" if talk.name else "orders"] += 8
        yield turn(talk, kinds)


def system_prompt(rng: random.Random) -> str:
    """Most often none or the shop's own."""
    kind = rng.random()
    if kind < 0.55:
        return ""
    return SYSTEM if kind < 0.9 else rng.choice(OTHER_SYSTEMS)
