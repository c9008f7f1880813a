"""Questions about products: named, the one of before, several, and what the shop does not have."""

import random
import re

from apps.demo import answers
from apps.demo.phrases import SLOT, Intent, choose, expand, load, say, values
from apps.demo.shop import CATEGORIES, CLOTHES, COLOURS, PRODUCTS, Product, product
from apps.demo.wording import Talk, Turn

# fmt: off
PURPOSES = (
    " for school", " for work", " for the weekend", " for my holiday", " for my next trip", " for a long hike",
    " for my husband", " for everyday use", " for travelling", " for a trip to Norway", " for next week", " for my mum",
)
ADJECTIVES = ("a new", "a good", "a nice", "a cheap", "a decent", "a really good", "another", "one")
JOINTS = (" and ", "? ", "? and ", ". also, ", " and also ", ", ", "? Also ", ", and ")
DOUBLES = (
    "{0}? {1}", "{0}. {1}", "{0}! {1}", "{0}\n{1}", "{0}? Oh, and {1}", "{0}, plus {1}", "{0}? And another thing: {1}",
    "first, {0}, and then {1}", "first question: {0}? second question: {1}", "two questions: {0}? {1}", "1. {0} 2. {1}",
    "1) {0} 2) {1}", "{0} and while we're at it, {1}", "{0}? By the way, {1}", "{0}... {1}", "{0} & {1}", "{0} / {1}",
    "I have two questions. {0}? And {1}", "I'd like to know two things: {0} and {1}", "{0}, and one more thing, {1}",
    "{0}? Besides, {1}", "{0}; {1}", "{0} - {1}", "{0}? and secondly, {1}", "{0} and besides that {1}", "{0}? then {1}",
    "{0}? One more question: {1}", "also {0} and {1}", "{0}, oh and {1}", "not only {0}, also {1}",
)
LETTER_SIZES = ("XS", "S", "M", "L", "XL", "XXL", "medium", "large", "small")
CATEGORY_INTENTS = (*answers.ABOUT_CATEGORY, "category_colour")
FACTS = ("price", "stock", "colours", "sizes", "waterproof")
FOLLOW_UPS = {
    "price_it": 3, "stock_it": 2.5, "colours_it": 2, "sizes_it": 2, "about_it": 2, "waterproof_it": 1.5, "buy_it": 1.5,
    "has_colour_it": 6, "cheaper_it": 1, "recall_product": 1.5, "same_again": 4,
}
GIVEN_PRODUCT = (
    "! {the} {p}", "! the {p}", "! {p}", "! I mean {the} {p}", "! {p} of course", "! the {p} please",
    "! I meant {the} {p}",
)
# fmt: on


def about_product(talk: Talk) -> Turn:
    """A question about a product, named or the one of before."""
    follow = talk.product is not None and talk.rng.random() < 0.55
    if follow:
        return about_same(talk)
    if talk.rng.random() < 0.11:
        return two_facts(talk)
    intent = load("products").pick(talk.rng)
    match intent.name:
        case name if name in CATEGORY_INTENTS:
            phrase, reply = ask_category(talk, intent)
            return talk.opened(phrase, reply, name)
        case "other_product":
            talk.product, talk.asked = None, True
            return talk.opened(
                fill_product(talk, say(intent, talk.rng, talk.split), PRODUCTS[0]), answers.NOT_OURS, intent.name
            )
        case "recall_product":
            return recall_product(talk, intent)
        case "cheaper_it" | "same_again":
            return about_named(talk, load("products").intents["price"])
        case name if name.endswith("_it"):
            return (
                about_unnamed(talk, intent)
                if talk.rng.random() < 0.35
                else about_named(talk, load("products").intents[name[:-3]])
            )
    return about_named(talk, intent)


def two_facts(talk: Talk) -> Turn:
    """Two questions about one product, in one message."""
    one = talk.product = talk.rng.choice(PRODUCTS)
    talk.asked = True
    first, second = talk.rng.sample(FACTS, 2)
    phrases = load("products").intents
    both = (
        say(phrases[first], talk.rng, talk.split)
        + talk.rng.choice(JOINTS)
        + say(phrases[f"{second}_it"], talk.rng, talk.split)[2:].removeprefix("and ")
    )
    if {first, second} == {"price", "stock"}:
        return talk.opened(fill_product(talk, both, one), answers.price_stock(one), "price_stock")
    more = answers.ABOUT_PRODUCT[second](one).replace(answers.the(one), "They" if one.plural else "It", 1)
    return talk.opened(fill_product(talk, both, one), f"{answers.ABOUT_PRODUCT[first](one)} {more}", "two_facts")


def about_named(talk: Talk, intent: Intent) -> Turn:
    """A question that names its product."""
    one = talk.rng.choice(PRODUCTS)
    talk.product, talk.topic, talk.asked = one, intent.name, True
    phrase = say(intent, talk.rng, talk.split)
    if intent.name not in ("about", "buy") and talk.rng.random() < 0.05:
        phrase = beside_the_point(talk, phrase)
    if intent.name in ("compare", "compare_about"):
        other = talk.rng.choice([each for each in PRODUCTS if each is not one])
        talk.product = None
        text = fill_product(talk, phrase, one).replace("{q}", talk.rng.choice(other.names))
        return talk.opened(text, getattr(answers, intent.name)(one, other), intent.name)
    return answered(talk, phrase, one, intent.name)


def answered(talk: Talk, phrase: str, one: Product, topic: str) -> Turn:
    """The answer to `phrase` about `one`, which may ask for a colour."""
    if topic == "has_colour":
        colour = talk.rng.choice(one.colours if talk.rng.random() < 0.5 else COLOURS)
        return talk.opened(
            fill_product(talk, phrase.replace("{colour}", colour), one), answers.has_colour(one, colour), topic
        )
    if topic in ("about", "buy") and talk.rng.random() < 0.12:
        phrase += talk.rng.choice(PURPOSES)
    return talk.opened(fill_product(talk, phrase, one), answers.ABOUT_PRODUCT[topic](one), topic)


def about_same(talk: Talk) -> Turn:
    """A question about the product of before, or the same question about another."""
    assert talk.product is not None
    phrases = load("products").intents
    name = talk.rng.choices(list(FOLLOW_UPS), list(FOLLOW_UPS.values()))[0]
    phrase = say(phrases[name], talk.rng, talk.split)
    if name == "recall_product":
        return recall_product(talk, phrases[name])
    if name == "cheaper_it":
        return talk.opened(phrase, answers.cheaper(talk.product), name)
    if name == "same_again":
        if talk.last not in answers.ABOUT_PRODUCT:
            return about_named(talk, phrases["price"])
        talk.product = talk.rng.choice(PRODUCTS)
        return answered(talk, phrase, talk.product, talk.last)
    talk.topic = name[:-3]
    return answered(talk, phrase, talk.product, talk.topic)


def about_unnamed(talk: Talk, intent: Intent) -> Turn:
    """A question about a product that was not named yet."""
    if talk.product or intent.name == "has_colour_it":
        return about_named(talk, load("products").intents["price"])
    talk.topic = intent.name[:-3]
    text = fill_product(talk, say(intent, talk.rng, talk.split), talk.rng.choice(PRODUCTS))
    return talk.opened(text, answers.ASK_PRODUCT, "which_product")


def ask_category(talk: Talk, intent: Intent) -> tuple[str, str]:
    """A question about several products at once, and its answer."""
    kind, colour = talk.rng.choice(CATEGORIES), talk.rng.choice(COLOURS)
    one = talk.rng.choice(kind.singulars)
    article = "a" if one[0] not in "aeiou" else "an"
    fills = {
        "c": one,
        "cs": talk.rng.choice(kind.plurals),
        "ac": f"{article} {one}",
        "colour": colour,
        "size": size(product(kind.members[0]), talk.rng),
    }
    text = SLOT.sub(lambda found: fills.get(found[1], found[0]), say(intent, talk.rng, talk.split))
    if intent.name == "category" and talk.rng.random() < 0.08:
        text += talk.rng.choice(PURPOSES)
    talk.product, talk.asked = None, True
    if intent.name == "category_colour":
        return text, answers.category_colour(kind, colour)
    return text, answers.ABOUT_CATEGORY[intent.name](kind)


def beside_the_point(talk: Talk, phrase: str) -> str:
    """`phrase` after a remark that names a product, about which nothing is asked."""
    remark = expand(choose(values("remarks", "\n"), talk.rng, talk.split), talk.rng)
    return phrase[:2] + remark + talk.rng.choice((". ", ", ", ". ", "! ", " and ", ": ")) + phrase[2:]


def recall_product(talk: Talk, intent: Intent) -> Turn:
    """What did I ask about?"""
    if talk.asked and not talk.product:
        return about_named(talk, load("products").intents["price"])
    reply = answers.recall_product(talk.product) if talk.product else "You have not asked about a product yet."
    return talk.opened(say(intent, talk.rng, talk.split), reply, "recall_product")


def fill_product(talk: Talk, phrase: str, one: Product) -> str:
    """Put `one` into the slots that speak of a product; one customer in ten takes the wrong number."""
    rng = talk.rng
    many = one.plural == (rng.random() < 0.9)
    phrase = re.sub(r"(\{is\}|\bdo|\bdoes|\bcan) \{it\}", r"\1 {they}", phrase)
    phrase = re.sub(r"\b(do|does) (\{the\} \{p\}|\{they\})", rf"{'do' if many else 'does'} \2", phrase)
    fills = {
        "is": "are" if many else "is",
        "they": "they" if one.plural else "it",
        "it": "them" if one.plural else "it",
        "them": "them",
        "size": size(one, rng),
        "colour": rng.choice(COLOURS),
        "other": other_product(talk),
        **called(one, rng),
    }
    return SLOT.sub(lambda found: fills.get(found[1], found[0]), phrase)


def size(one: Product, rng: random.Random) -> str:
    """A size that somebody may ask for: a number for shoes, or letters."""
    return str(rng.randint(36, 47)) if one.sizes and one.sizes != CLOTHES else rng.choice(LETTER_SIZES)


def called(one: Product, rng: random.Random) -> dict[str, str]:
    """What customers call `one`: its names, and the words before them."""
    alias = rng.choice(one.names if rng.random() < 0.5 else one.names[:1])
    article = "an" if alias[0] in "aeiou" else "a"
    if one.plural:
        before, the, plural = rng.choice(("a pair of", "some", "")), "", alias
    else:
        before, the, plural = article, article, rng.choice(one.plurals)
        if rng.random() > 0.85:
            before = rng.choice(ADJECTIVES)
    return {"p": alias, "ps": plural, "a": before, "the": rng.choice(("the", "the", "the", "your", "the", the))}


def other_product(talk: Talk) -> str:
    """Something the shop does not have."""
    if talk.rng.random() < 0.7:
        return choose(values("other_products", ", "), talk.rng, talk.split)
    thing = choose(values("everyday"), talk.rng, talk.split)
    return talk.rng.choice((f"a {thing}", f"{thing}s", thing, f"{thing} food", f"{thing} books"))


def after_which(talk: Talk) -> Turn:
    """The product that was asked for."""
    one = talk.product = talk.rng.choice(PRODUCTS)
    phrase = talk.rng.choice(GIVEN_PRODUCT)
    talk.asked = True
    made = answered(talk, phrase, one, talk.topic)
    talk.last = made.intent
    return made
