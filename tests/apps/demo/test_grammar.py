"""The grammar: repeatable, and honest about what is held out."""

import random
import re
from collections import defaultdict
from collections.abc import Iterator

import pytest

from apps.demo.grammar import dialogue, turn
from apps.demo.phrases import CHOICE, NoPhrase, Split, held_out, load, say
from apps.demo.shop import CATEGORIES, PRODUCTS, product
from apps.demo.values import first_name, order_number
from apps.demo.wording import Talk, Turn

FILES = ("faq", "small_talk", "products", "orders", "outside", "foreign")
SLOTS = ("o", "name", "p", "q", "it", "is", "colour", "other", "n", "one", "many", "wear", "wears")
AMBIGUOUS = {
    "call 911", "can i get {the} {p}", "do you have anything cheaper", "do you have something cheaper",
    "do you work with clubs", "do you work with schools", "how big {is} {the} {p}", "how long does it take",
    "i am unhappy", "i forgot my order number", "i have a problem", "im bored", "im good", "im unhappy", "is it cheap",
    "my father is ill", "sorry", "what is my order number",
    *(f"when {verb} my package {comes}" for verb in ("does", "will") for comes in ("arrive", "come", "get here")),
}  # fmt: skip


def turns(seed: int, count: int = 100) -> Iterator[Turn]:
    """The turns of `count` training dialogues."""
    rng = random.Random(seed)
    for _ in range(count):
        yield from dialogue(rng)


def spoken(template: str) -> Iterator[str]:
    """Every way to say `template`."""
    choice = CHOICE.search(template)
    if not choice:
        yield re.sub(r"[^\w{} ]", "", re.sub("  +", " ", template[2:].lower())).strip()
        return
    for option in choice[1].split("|"):
        yield from spoken(template[: choice.start()] + option + template[choice.end() :])


def test_no_sentence_has_two_answers() -> None:
    """What is said for one intent is not said for another, apart from a few that are truly ambiguous."""
    meanings = defaultdict(set)
    for file in ("faq", "small_talk", "products", "orders"):
        for intent in load(file).intents.values():
            for template in intent.phrases:
                for said in spoken(template):
                    meanings[said].add((intent.replies or [intent.name])[0])
    outside = [phrase for phrase in load("outside").intents["outside"].phrases if phrase.count("(") < 4]
    for said in {said for template in outside for said in spoken(template)}:
        meanings[said].add("outside")

    assert {said for said, answers in meanings.items() if len(answers) > 1} <= AMBIGUOUS


def test_same_seed_same_dialogues() -> None:
    """A seed decides every word."""
    assert list(turns(7)) == list(turns(7))
    assert list(turns(7)) != list(turns(8))


def test_every_reply_is_filled() -> None:
    """No slot and no mark is left in what is typed or said."""
    for made in turns(1):
        text = made.user + "".join(made.replies)
        assert "\ue000" not in text
        assert "\ue001" not in text
        assert not any(f"{{{slot}}}" in text for slot in SLOTS)


@pytest.mark.parametrize("file", FILES)
def test_phrases_are_held_out_by_hash(file: str) -> None:
    """What one split says, the other never does."""
    rng = random.Random(3)
    for intent in load(file).intents.values():
        for split in Split:
            try:
                said = {say(intent, rng, split) for _ in range(20)}
            except NoPhrase:
                continue
            assert all(held_out(phrase) is (split is Split.TEST) for phrase in said)


def test_values_are_held_out_by_hash() -> None:
    """Names and order numbers of the test are never trained on."""
    rng = random.Random(4)
    for split in Split:
        values = [first_name(rng, split) for _ in range(200)] + [order_number(rng, split) for _ in range(200)]
        assert all(held_out(value) is (split is Split.TEST) for value in values)


def test_an_intent_without_held_out_phrases_is_refused() -> None:
    """The test set never falls back on training phrases."""
    intent = load("orders").intents["order_unknown"]
    few = type(intent)("few", 1.0, [phrase for phrase in intent.phrases if "(" not in phrase and not held_out(phrase)])

    with pytest.raises(NoPhrase):
        say(few, random.Random(0), Split.TEST)


def test_echoes_carry_the_value() -> None:
    """A turn that must echo a name or a number has it in every right answer."""
    talk = Talk(random.Random(5), Split.TEST, noise=0.0)
    for _ in range(200):
        try:
            made = turn(talk, {"names": 1, "orders": 1})
        except NoPhrase:
            continue
        known = [value for value in (talk.name, talk.order) if value]
        if made.echo:
            assert all(any(value in reply for value in known) for reply in made.replies)


def test_facts_fit_together() -> None:
    """Categories name real products, and no two products share a name."""
    names = [name for one in PRODUCTS for name in one.names]

    assert len(names) == len(set(names))
    assert all(product(name) for kind in CATEGORIES for name in kind.members)
