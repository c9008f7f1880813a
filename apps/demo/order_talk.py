"""Questions about orders, and asking back what was told: the order number, the name."""

from apps.demo import answers
from apps.demo.phrases import load, say
from apps.demo.values import order_number
from apps.demo.wording import Talk, Turn

# fmt: off
GIVEN_ORDER = (
    "! {o}", "! {o}", "! it's {o}", "! the number is {o}", "! my order number is {o}", "! sure, {o}",
    "! yes, it is {o}",
    "! order {o}", "! ok {o}",
)
# fmt: on
NEEDS_ORDER = ("order_status", "order_cancel", "order_change", "order_problem")


def about_order(talk: Talk) -> Turn:
    """A question about an order, its number given now, before, or still to be asked for."""
    rng, phrases = talk.rng, load("orders").intents
    if talk.order and rng.random() < 0.4:
        return recalled(talk, "recall_order")
    names = [name for name in phrases if name.startswith("order_") and not name.endswith("unknown")]
    name = rng.choices(names, [phrases[each].weight for each in names])[0]
    if not talk.order and rng.random() < 0.06:
        return recalled(talk, "recall_order")
    phrase = say(phrases[name], rng, talk.split)
    if name.endswith("_none"):
        return about_order_unnamed(talk, phrase, name[:-5])
    return about_order_named(talk, phrase, name)


def about_order_named(talk: Talk, phrase: str, name: str) -> Turn:
    """A question that gives its order number."""
    talk.order = order_number(talk.rng, talk.split)
    if talk.last == "ask_order" and talk.topic in NEEDS_ORDER and name == "order_status":
        name = talk.topic
    return talk.opened(talk.number(phrase), answers.order(name, talk.order), name, echo=True)


def about_order_unnamed(talk: Talk, phrase: str, name: str) -> Turn:
    """A question about `my order`: the one of before, or which?"""
    if talk.order:
        return talk.opened(phrase, answers.order(name, talk.order), name, echo=True)
    talk.topic = name
    return talk.opened(phrase, answers.ASK_ORDER, "ask_order")


def recalled(talk: Talk, name: str) -> Turn:
    """What is my order number? What is my name?"""
    phrase = say(load("orders").intents[name], talk.rng, talk.split)
    known = talk.order if name == "recall_order" else talk.name
    if name == "recall_order":
        reply = answers.order(name, known) if known else "You have not told me an order number yet."
    else:
        reply = f"Your name is {known}." if known else "You have not told me your name yet."
    return talk.opened(phrase, reply, name, echo=bool(known))


def after_ask(talk: Talk) -> Turn:
    """The order number that was asked for, or that it is not known."""
    if talk.rng.random() < 0.15:
        intent = load("orders").intents["order_unknown"]
        talk.last = intent.name
        return Turn(talk.write(say(intent, talk.rng, talk.split)), tuple(intent.replies), intent.name)
    phrase = talk.rng.choice(GIVEN_ORDER)
    made = about_order_named(talk, phrase, "order_status")
    talk.last = made.intent
    return made
