"""Make dialogues with the shop: what a customer types, and every right answer to it.

`Talk` remembers what a good assistant would (name, order, product), so the right answer of each
turn is known and the check of `evaluate.py` is exact. Same seed, same dialogue.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from apps.demo import answers
from apps.demo.noise import roughen
from apps.demo.phrases import SLOT, Intent, Phrases, Split, choose, load, say, values
from apps.demo.shop import CATEGORIES, CLOTHES, COLOURS, PRODUCTS, SYSTEM, Product
from apps.demo.values import emoji, first_name, junk, order_number, punctuation, random_letters, small_number, year

NAME_MARK, ORDER_MARK = "\ue000", "\ue001"
OTHER_SYSTEMS = ("You are a helpful assistant.", "Be brief and friendly.", "You are a shop assistant.", "Answer in one sentence.")
OPENINGS = ("so ", "um ", "well ", "ok, ", "and ", "also ", "one more thing: ", "excuse me, ", "sorry, ", "quick question: ", "please, ",
            "another question: ", "ok and ", "but ", "just wondering, ", "oh and ", "cool, ", "great, ", "thanks, ")  # fmt: skip
GREETINGS = ("hi, ", "hello, ", "hey, ", "hi! ", "hello! ", "good morning, ", "hey there, ", "hi there, ", "hello there! ", "Good evening. ", "hi ", "hello ")
ENDINGS = (" please", " thanks", " thank you", ", thanks in advance", " pls", ", please?", "? thanks!", " :)", " my friend", " asap", " then", " exactly")
LETTER_SIZES = ("XS", "S", "M", "L", "XL", "XXL", "medium", "large", "small")
KINDS = {"faq": 25.0, "products": 31.0, "orders": 13.0, "names": 9.0, "small_talk": 9.0, "outside": 11.0, "foreign": 1.5}
IT_BASES = ("price", "stock", "colours", "sizes", "about", "waterproof", "buy")
NEEDS_ORDER = ("order_status", "order_cancel", "order_change", "order_problem")


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

    def turn(self, kinds: dict[str, float]) -> Turn:
        """Go on with one of `kinds`, by weight."""
        kind = self.rng.choices(list(kinds), list(kinds.values()))[0]
        makers: dict[str, Callable[[], Turn]] = {
            "faq": self.faq, "products": self.about_product, "orders": self.about_order, "names": self.about_name,
        }  # fmt: skip
        made = makers[kind]() if kind in makers else self.plain(load(kind))
        self.last = made.intent
        return made

    # -- what needs no memory

    def plain(self, phrases: Phrases) -> Turn:
        """Small talk or something outside the shop."""
        intent = phrases.pick(self.rng)
        text = self.write(say(intent, self.rng, self.split), phrases, rough=intent.name not in ("gibberish", "foreign"))
        replies = self.shuffled(intent.replies)
        if intent.name == "bye" and self.name:
            replies = self.shuffled([*replies, f"Goodbye, {self.name}, and enjoy the outdoors!"])
        if intent.name == "thanks" and self.name:
            replies = self.shuffled([*replies, f"You're welcome, {self.name}!"])
        return Turn(text, replies, intent.name)

    def faq(self) -> Turn:
        """One question about the shop, or two in one message."""
        phrases = load("faq")
        one = phrases.pick(self.rng)
        first = say(one, self.rng, self.split)
        if self.rng.random() > 0.07:
            return self.opened(first, one.replies[0], one.name)
        two = phrases.pick(self.rng)
        joint = self.rng.choice((" and ", "? ", "? and ", ". also, ", " and also ", ", "))
        both = first + joint + say(two, self.rng, self.split)[2:]
        same = one.name == two.name
        return self.opened(both, one.replies[0] if same else f"{one.replies[0]} {two.replies[0]}", "two_questions")

    # -- products

    def about_product(self) -> Turn:
        """A question about a product, named or the one of before."""
        follow = self.product is not None and self.rng.random() < 0.55
        if follow:
            return self.about_same()
        intent = load("products").pick(self.rng)
        match intent.name:
            case "category":
                return self.about_category(intent)
            case "other_product":
                self.product, self.asked = None, True
                return self.opened(self.fill_product(say(intent, self.rng, self.split), PRODUCTS[0]), answers.NOT_OURS, intent.name)
            case "recall_product":
                return self.recall_product(intent)
            case "cheaper_it" | "same_again":
                return self.about_named(load("products").intents["price"])
            case name if name.endswith("_it"):
                return self.about_unnamed(intent) if self.rng.random() < 0.35 else self.about_named(load("products").intents[name[:-3]])
        return self.about_named(intent)

    def about_named(self, intent: Intent) -> Turn:
        """A question that names its product."""
        one = self.rng.choice(PRODUCTS)
        self.product, self.topic, self.asked = one, intent.name, True
        phrase = say(intent, self.rng, self.split)
        if intent.name == "compare":
            other = self.rng.choice([each for each in PRODUCTS if each is not one])
            self.product = None
            text = self.fill_product(phrase, one).replace("{q}", self.rng.choice(other.names))
            return self.opened(text, answers.compare(one, other), intent.name)
        return self.answered(phrase, one, intent.name)

    def answered(self, phrase: str, one: Product, topic: str) -> Turn:
        """The answer to `phrase` about `one`, which may ask for a colour."""
        if topic == "has_colour":
            colour = self.rng.choice(one.colours if self.rng.random() < 0.5 else COLOURS)
            return self.opened(self.fill_product(phrase.replace("{colour}", colour), one), answers.has_colour(one, colour), topic)
        return self.opened(self.fill_product(phrase, one), answers.ABOUT_PRODUCT[topic](one), topic)

    def about_same(self) -> Turn:
        """A question about the product of before, or the same question about another."""
        assert self.product is not None
        phrases = load("products").intents
        name = self.rng.choices(
            [*(f"{base}_it" for base in IT_BASES), "has_colour_it", "cheaper_it", "recall_product", "same_again"],
            [3, 2.5, 2, 2, 2, 1.5, 1.5, 3.5, 1, 1.5, 3],
        )[0]
        phrase = say(phrases[name], self.rng, self.split)
        if name == "recall_product":
            return self.recall_product(phrases[name])
        if name == "cheaper_it":
            return self.opened(phrase, answers.cheaper(self.product), name)
        if name == "same_again":
            if self.last not in answers.ABOUT_PRODUCT:
                return self.about_named(phrases["price"])
            self.product = self.rng.choice(PRODUCTS)
            return self.answered(phrase, self.product, self.last)
        self.topic = name[:-3]
        return self.answered(phrase, self.product, self.topic)

    def about_unnamed(self, intent: Intent) -> Turn:
        """A question about a product that was not named yet."""
        if self.product or intent.name == "has_colour_it":
            return self.about_named(load("products").intents["price"])
        self.topic = intent.name[:-3]
        text = self.fill_product(say(intent, self.rng, self.split), self.rng.choice(PRODUCTS))
        return self.opened(text, answers.ASK_PRODUCT, "which_product")

    def about_category(self, intent: Intent) -> Turn:
        """A question about several products at once."""
        kind = self.rng.choice(CATEGORIES)
        one = self.rng.choice(kind.singulars)
        article = "a" if one[0] not in "aeiou" else "an"
        fills = {"c": one, "cs": self.rng.choice(kind.plurals), "ac": f"{article} {one}"}
        text = SLOT.sub(lambda found: fills.get(found[1], found[0]), say(intent, self.rng, self.split))
        self.product, self.asked = None, True
        return self.opened(self.fill_product(text, PRODUCTS[0]), answers.category(kind), "category")

    def recall_product(self, intent: Intent) -> Turn:
        """What did I ask about?"""
        if self.asked and not self.product:
            return self.faq()
        reply = answers.recall_product(self.product) if self.product else "You have not asked about a product yet."
        return self.opened(say(intent, self.rng, self.split), reply, "recall_product")

    def fill_product(self, phrase: str, one: Product) -> str:
        """Put `one` into the slots that speak of a product."""
        rng = self.rng
        alias = rng.choice(one.names if rng.random() < 0.5 else one.names[:1])
        article = "an" if alias[0] in "aeiou" else "a"
        right = rng.random() < 0.9
        phrase = re.sub(r"(\{is\}|\bdo|\bdoes|\bcan) \{it\}", r"\1 {they}", phrase)
        phrase = re.sub(r"\b(do|does) (\{the\} \{p\}|\{they\})", rf"{'do' if one.plural == right else 'does'} \2", phrase)
        shoes = one.sizes and one.sizes != CLOTHES
        fills = {
            "p": alias, "ps": alias if one.plural else rng.choice(one.plurals),
            "a": rng.choice(("a pair of", "some", "")) if one.plural else article,
            "the": rng.choice(("the", "the", "the", "your", "the", "" if one.plural else article)),
            "is": "are" if one.plural == right else "is", "they": "they" if one.plural else "it", "it": "them" if one.plural else "it",
            "them": "them", "size": str(rng.randint(36, 47)) if shoes else rng.choice(LETTER_SIZES),
            "colour": rng.choice(COLOURS), "other": choose(values("other_products", ", "), rng, self.split),
        }  # fmt: skip
        return SLOT.sub(lambda found: fills.get(found[1], found[0]), phrase)

    # -- orders and names

    def about_order(self) -> Turn:
        """A question about an order, its number given now, before, or still to be asked for."""
        rng, phrases = self.rng, load("orders").intents
        if self.order and rng.random() < 0.4:
            return self.recalled("recall_order")
        names = [name for name in phrases if name.startswith("order_") and not name.endswith("unknown")]
        name = rng.choices(names, [phrases[each].weight for each in names])[0]
        if not self.order and rng.random() < 0.06:
            return self.recalled("recall_order")
        phrase = say(phrases[name], rng, self.split)
        if name.endswith("_none"):
            return self.about_order_unnamed(phrase, name[:-5])
        return self.about_order_named(phrase, name)

    def about_order_named(self, phrase: str, name: str) -> Turn:
        """A question that gives its order number."""
        self.order = order_number(self.rng, self.split)
        if self.last == "ask_order" and self.topic in NEEDS_ORDER and name == "order_status":
            name = self.topic
        return self.opened(self.number(phrase), answers.order(name, self.order), name, echo=True)

    def about_order_unnamed(self, phrase: str, name: str) -> Turn:
        """A question about `my order`: the one of before, or which?"""
        if self.order:
            return self.opened(phrase, answers.order(name, self.order), name, echo=True)
        self.topic = name
        return self.opened(phrase, answers.ASK_ORDER, "ask_order")

    def recalled(self, name: str) -> Turn:
        """What is my order number? What is my name?"""
        phrase = say(load("orders").intents[name], self.rng, self.split)
        known = self.order if name == "recall_order" else self.name
        if name == "recall_order":
            reply = answers.order(name, known) if known else "You have not told me an order number yet."
        else:
            reply = f"Your name is {known}." if known else "You have not told me your name yet."
        return self.opened(phrase, reply, name, echo=bool(known))

    def about_name(self) -> Turn:
        """A name is given, alone or before a question, or asked for."""
        if self.rng.random() < (0.45 if self.name else 0.12):
            return self.recalled("recall_name")
        phrase = say(load("orders").intents["give_name"], self.rng, self.split)
        self.name = first_name(self.rng, self.split)
        if self.rng.random() < 0.3:
            return self.name_and_question(phrase)
        return Turn(self.write(phrase), (f"Nice to meet you, {self.name}! How can I help you?",), "give_name", echo=True)

    def name_and_question(self, phrase: str) -> Turn:
        """`Hi, I'm Ada. Where is my order?`"""
        made = self.turn({"faq": 3, "products": 3, "orders": 3})
        joint = self.rng.choice((". ", ", ", " and ", "! ", ". ", "\n"))
        body = made.user if self.rng.random() < 0.5 else made.user.lower()
        replies = tuple(f"Hi {self.name}! {reply.removeprefix('Hello! ')}" for reply in made.replies)
        return Turn(self.write(phrase, ending="") + joint + body, replies, made.intent, echo=True)

    # -- how it is written

    def opened(self, phrase: str, reply: str, intent: str, *, echo: bool = False) -> Turn:
        """Write `phrase`, now and then after a greeting or a little word."""
        greeting = self.rng.random()
        prefix = ""
        if greeting < 0.1:
            prefix, reply = self.rng.choice(GREETINGS), f"Hello! {reply}"
        elif greeting < 0.2:
            prefix = self.rng.choice(OPENINGS)
        return Turn(self.write(phrase, prefix=prefix), (reply,), intent, echo)

    def number(self, phrase: str) -> str:
        """Write the order number's slot in one of the usual ways."""
        form = self.rng.choice(("{o}", "{o}", "{o}", "#{o}", "number {o}", "no. {o}", "nr {o}", "number: {o}"))
        plain = phrase.endswith((" is {o}", "number {o}", "# {o}", "#{o}", "no {o}")) or "order {o}" not in phrase
        return phrase.replace("{on}", form).replace("{o}", ORDER_MARK if plain else form.replace("{o}", ORDER_MARK)).replace("{o}", ORDER_MARK)

    def write(self, phrase: str, phrases: Phrases | None = None, *, prefix: str = "", ending: str | None = None, rough: bool = True) -> str:
        """`phrase` with its slots filled, an ending, and the errors of a human."""
        kind, text = phrase[0], phrase[2:]
        text = SLOT.sub(lambda found: self.value(found[1], phrases), text)
        text = re.sub("  +", " ", text).strip()
        if not rough:
            return text
        text = prefix + text if prefix and self.rng.random() < 0.5 else (prefix + text if prefix else text[:1].upper() + text[1:])
        if ending is None:
            ending = self.ending(kind)
        text = roughen(text + ending, self.rng, self.noise)
        return text.replace(NAME_MARK, self.typed_name()).replace(ORDER_MARK, self.order)

    def ending(self, kind: str) -> str:
        """What stands after the last word."""
        polite = self.rng.choice(ENDINGS) if self.rng.random() < 0.06 else ""
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
        if slot == "letter":
            return random_letters(self.rng, 1)
        if slot in makers:
            return makers[slot](self.rng)
        assert phrases is not None, slot
        return choose(phrases.lists[slot], self.rng, self.split)

    def shuffled(self, replies: list[str]) -> tuple[str, ...]:
        """All of them, any first."""
        return tuple(self.rng.sample(replies, len(replies)))


def length(rng: random.Random) -> int:
    """How many turns: most often one to four, now and then a very long talk."""
    kind = rng.random()
    if kind < 0.4:
        return 1
    if kind < 0.82:
        return rng.randint(2, 4)
    return rng.randint(5, 9) if kind < 0.985 else rng.randint(15, 28)


def dialogue(
    rng: random.Random, split: Split = Split.TRAIN, *, noise: float = 1.0, turns: int | None = None, copying: float = 0.0
) -> Iterator[Turn]:
    """One dialogue; it tends to stay with a kind of question for a while. `copying` adds names and orders."""
    talk = Talk(rng, split, noise)
    count = turns or length(rng)
    favourite = rng.choices(list(KINDS), list(KINDS.values()))[0]
    for _ in range(count):
        if talk.last == "ask_order" and rng.random() < 0.7:
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
        yield talk.turn(kinds)


def after_ask(talk: Talk) -> Turn:
    """The order number that was asked for, or that it is not known."""
    if talk.rng.random() < 0.15:
        intent = load("orders").intents["order_unknown"]
        talk.last = intent.name
        return Turn(talk.write(say(intent, talk.rng, talk.split)), tuple(intent.replies), intent.name)
    phrase = talk.rng.choice(("! {o}", "! {o}", "! it's {o}", "! the number is {o}", "! my order number is {o}", "! sure, {o}", "! yes, it is {o}", "! order {o}", "! ok {o}"))
    made = talk.about_order_named(phrase, "order_status")
    talk.last = made.intent
    return made


def after_which(talk: Talk) -> Turn:
    """The product that was asked for."""
    one = talk.product = talk.rng.choice(PRODUCTS)
    phrase = talk.rng.choice(("! {the} {p}", "! the {p}", "! {p}", "! I mean {the} {p}", "! {p} of course", "! the {p} please", "! I meant {the} {p}"))
    talk.asked = True
    made = talk.answered(phrase, one, talk.topic)
    talk.last = made.intent
    return made


def system_prompt(rng: random.Random) -> str:
    """Most often none or the shop's own."""
    kind = rng.random()
    if kind < 0.55:
        return ""
    return SYSTEM if kind < 0.9 else rng.choice(OTHER_SYSTEMS)
