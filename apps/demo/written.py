"""Messages as people really write them, each with the parts of its right answer.

`written/*.txt` hold blocks of a `# part part` header and one message a line; the turns of a
conversation are parted by ` / ` in header and message alike. A part is an intent with a fixed
reply, a fact of a product (`price:rain_jacket`; `price:{p}` takes any), a kind of product
(`category:jacket`), something about an order (`order_status`, its number written `{o}`) or `name`.
They are for training alone, so none is held out.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from apps.demo import answers
from apps.demo.phrases import load
from apps.demo.product_talk import fill_product
from apps.demo.shop import CATEGORIES, PRODUCTS, Category, Product, product
from apps.demo.values import first_name, order_number
from apps.demo.wording import ORDER_MARK, Talk, Turn

FOLDER = Path(__file__).with_name("written")
GREETING = re.compile(r"(?i)(hi|hello|hey|hiya|good (morning|afternoon|evening|day)|dear)\b")
CHATTY = ("small_talk", "outside")
OWN_REPLIES = {
    "ask_order": answers.ASK_ORDER,
    "other_product": answers.NOT_OURS,
    "which_product": answers.ASK_PRODUCT,
}


class UnknownPart(ValueError):
    """A header names a part that nothing answers; the message says which and where."""


class Written(NamedTuple):
    """One conversation: for each turn the parts of its answer, and what is typed."""

    turns: tuple[tuple[tuple[str, ...], str], ...]

    @property
    def needs(self) -> frozenset[str]:
        """The parts of all turns."""
        return frozenset(part for parts, _ in self.turns for part in parts)


@cache
def replies() -> dict[str, tuple[str, str]]:
    """The file and the taught reply of each intent that has a fixed one."""
    known = {name: ("", reply) for name, reply in OWN_REPLIES.items()}
    for file in ("faq", *CHATTY, "foreign", "orders"):
        for name, intent in load(file).intents.items():
            if intent.replies:
                known[name] = (file, intent.replies[0])
    return known


@cache
def written() -> tuple[Written, ...]:
    """All that is written.

    Raises:
        UnknownPart: a header is wrong, or has not as many turns as a message below it.
    """
    found = [one for path in sorted(FOLDER.glob("*.txt")) for one in _read(path)]
    return tuple(found)


@cache
def singles() -> tuple[tuple[str, str], ...]:
    """(intent, message) of those that ask one thing with a fixed answer of the shop."""
    alone = [one.turns[0] for one in written() if len(one.turns) == 1]
    return tuple(
        (parts[0], text)
        for parts, text in alone
        if len(parts) == 1 and "{" not in text and replies().get(parts[0], ("",))[0] == "faq"
    )


def _read(path: Path) -> Iterator[Written]:
    header: tuple[tuple[str, ...], ...] = ()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("# "):
            header = tuple(tuple(turn.split()) for turn in line[2:].split(" / "))
            if wrong := [part for turn in header for part in turn if not known(part)]:
                raise UnknownPart(f"{path.name}:{number}: {', '.join(wrong)}")
        elif line.strip():
            messages = [line.strip()] if len(header) == 1 else line.strip().split(" / ")
            if len(messages) != len(header):
                raise UnknownPart(f"{path.name}:{number}: {len(messages)} messages under {len(header)} headers")
            yield Written(tuple(zip(header, messages, strict=True)))


def known(part: str) -> bool:
    """Is there an answer to `part`?"""
    topic, *names = part.split(":")
    if names[:1] == ["{p}"]:
        return topic in answers.ABOUT_PRODUCT
    if topic in ("compare", "compare_about"):
        return len(names) == 2 and all(map(_is_product, names))
    if topic in answers.ABOUT_CATEGORY or topic == "category_colour":
        return bool(names) and _kind(names[0]) is not None
    if topic in answers.ABOUT_PRODUCT or topic == "has_colour":
        return len(names) == (2 if topic == "has_colour" else 1) and _is_product(names[0])
    return topic in replies() or topic in answers.ABOUT_ORDER or topic in ("name", "recall_name")


def _is_product(name: str) -> bool:
    return any(one.name == name.replace("_", " ") for one in PRODUCTS)


def _kind(name: str) -> Category | None:
    return next((kind for kind in CATEGORIES if name.replace("_", " ") in kind.singulars), None)


def fits(one: Written, talk: Talk) -> bool:
    """Would these answers be right at this point of `talk`?"""
    asks_order = "ask_order" in one.needs
    return not ((asks_order and talk.order) or ("which_product" in one.needs and talk.product))


def converse(talk: Talk, one: Written) -> Iterator[Turn]:
    """The turns of `one`, with errors of typing."""
    for parts, text in one.turns:
        yield answered(talk, parts, text)


def answered(talk: Talk, parts: tuple[str, ...], text: str) -> Turn:
    """One message and its joined answer."""
    if "{name}" in text:
        talk.name = first_name(talk.rng, talk.split)
    if "{o}" in text:
        talk.order = order_number(talk.rng, talk.split)
    if "{p" in text:
        talk.product = talk.rng.choice(PRODUCTS)
    if talk.product:
        text = fill_product(talk, text, talk.product)
    told = [part for part in parts if not repeats(part, parts)]
    said = list(dict.fromkeys(filter(None, (reply(talk, part) for part in told))))
    joined = " ".join(said)
    if parts[0] == "name":
        joined = f"Hi {talk.name}! {joined}" if said else f"Nice to meet you, {talk.name}! How can I help you?"
    elif GREETING.match(text) and replies().get(parts[0], ("", ""))[0] not in CHATTY:
        joined = f"Hello! {joined}"
    echo = bool({"{name}", "{o}"} & set(re.findall(r"\{\w+\}", text)))
    typed = talk.write("! " + text.replace("{o}", ORDER_MARK), ending="")
    talk.last, talk.asked = "written", True
    return Turn(typed, (joined,), parts[0].partition(":")[0], echo)


def repeats(part: str, parts: tuple[str, ...]) -> bool:
    """Is `part` said by another one: a greeting by any answer, a price by what a product is like?"""
    return (part == "greet" and len(parts) > 1) or (part.startswith("price:") and f"about:{part[6:]}" in parts)


def reply(talk: Talk, part: str) -> str:
    """What `part` says; nothing for `name`, which is said in front."""
    topic, *names = part.split(":")
    if topic == "name":
        return ""
    if topic == "recall_name":
        return f"Your name is {talk.name}." if talk.name else "You have not told me your name yet."
    if topic in answers.ABOUT_ORDER:
        return answers.order(topic, talk.order) if talk.order else answers.ASK_ORDER
    if topic in replies():
        return replies()[topic][1]
    return about_goods(talk, topic, [name.replace("_", " ") for name in names])


def about_goods(talk: Talk, topic: str, names: list[str]) -> str:
    """The answer about a product, two products or a kind of them."""
    if topic in ("compare", "compare_about"):
        talk.product = None
        one, other = map(product, names)
        return answers.compare(one, other) if topic == "compare" else answers.compare_about(one, other)
    if kind := topic.startswith("category") and _kind(names[0]):
        talk.product = None
        if topic == "category_colour":
            return answers.category_colour(kind, names[1])
        return answers.ABOUT_CATEGORY[topic](kind)
    one = _meant(talk, names[0])
    talk.product, talk.topic = one, topic
    return answers.has_colour(one, names[1]) if topic == "has_colour" else answers.ABOUT_PRODUCT[topic](one)


def _meant(talk: Talk, name: str) -> Product:
    if name == "{p}":
        assert talk.product is not None
        return talk.product
    return product(name)
