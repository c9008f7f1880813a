"""The grammar: repeatable, and honest about what is held out."""

import random
from collections.abc import Iterator

import pytest

from apps.demo.grammar import dialogue, turn
from apps.demo.phrases import NoPhrase, Split, held_out, load, say
from apps.demo.shop import CATEGORIES, PRODUCTS, product
from apps.demo.values import first_name, order_number
from apps.demo.wording import Talk, Turn

FILES = ("faq", "small_talk", "products", "orders", "outside", "foreign")


def turns(seed: int, count: int = 100) -> Iterator[Turn]:
    """The turns of `count` training dialogues."""
    rng = random.Random(seed)
    for _ in range(count):
        yield from dialogue(rng)


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
        assert not any(f"{{{slot}}}" in text for slot in ("o", "name", "p", "q", "it", "is", "colour", "other", "n"))


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
