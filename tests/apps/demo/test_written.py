"""What was written by hand: every header means something, every answer is whole, and nothing of it is in the test."""

import random
import re
from pathlib import Path

import pytest

from apps.demo import evaluate, grammar, written
from apps.demo.phrases import Split
from apps.demo.wording import Talk, Turn
from apps.demo.written import UnknownPart, Written, converse, fits, known, singles


def talk(split: Split = Split.TRAIN) -> Talk:
    """A talk at its beginning, typed without errors."""
    return Talk(random.Random(1), split, noise=0.0)


def said(header: str, text: str, before: Talk | None = None) -> list[Turn]:
    """The turns of one conversation as it stands in a file."""
    turns = zip((tuple(turn.split()) for turn in header.split(" / ")), text.split(" / "), strict=True)
    return list(converse(before or talk(), Written(tuple(turns))))


def plain(text: str) -> str:
    """Letters and digits alone."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def test_every_conversation_has_whole_answers() -> None:
    """No slot and no mark is left, whatever was said before."""
    many = written.written()
    assert len(many) > 4000
    for one in many:
        for turn in converse(talk(), one):
            assert turn.replies[0].strip()
            assert not re.search(r"[{}\ue000\ue001]|  ", turn.replies[0])
            assert not re.search(r"\{\w+\}|[\ue000\ue001]", turn.user)


def test_nothing_written_is_in_the_test_file() -> None:
    """The frozen test stays unseen."""
    tested = {plain(turn.user) for _, made in evaluate.read(evaluate.FOLDER / "test.jsonl") for turn in made}
    ours = {plain(text) for one in written.written() for _, text in one.turns}

    assert not tested & ours


def test_parts_are_answered_in_order() -> None:
    """A fact of a product, an intent and an order, each once."""
    (turn,) = said("price:rain_jacket parking parking", "rain jacket price, and parking?")
    assert turn.replies == ("The rain jacket costs $89. Yes, there are free customer car parks behind the shop.",)
    (turn,) = said("about:headlamp price:headlamp", "what is the headlamp like and what does it cost")
    assert turn.replies[0].count("$29") == 1


def test_names_and_numbers_are_echoed() -> None:
    """What is told in one turn is known in the next."""
    first, second = said("name order_status / recall_order", "I'm {name}, where is FH-{o}? / what was my number?")
    number = re.search(r"\d+", second.replies[0])
    assert number
    assert number[0] in first.user
    assert number[0] in first.replies[0]
    assert first.echo
    assert first.replies[0].startswith("Hi ")
    assert plain(first.replies[0].removeprefix("Hi ").partition("!")[0]) in plain(first.user)


def test_a_slot_takes_any_product_and_keeps_it() -> None:
    """`{p}` is filled in the first turn and meant in the second."""
    first, second = said("price:{p} / colours:{p}", "what {is} {the} {p} / and the colours?")
    name = re.match(r"The (.*) costs? ", first.replies[0])
    assert name
    assert second.replies[0].startswith(f"The {name[1]} come")


@pytest.mark.parametrize("part", ["hours", "price:{p}", "has_colour:rain_jacket:blue", "category:tent", "name"])
def test_known_parts(part: str) -> None:
    """Each kind of part."""
    assert known(part)


@pytest.mark.parametrize("part", ["hour", "price:car", "has_colour:rain_jacket", "category:boat", "compare:shorts", ""])
def test_unknown_parts(part: str) -> None:
    """What nothing answers."""
    assert not known(part)


@pytest.mark.parametrize(
    ("text", "problem"), [("# hours boats\nopen?\n", "boats"), ("# hours / ok\nopen?\n", "1 messages under 2 headers")]
)
def test_a_wrong_header_names_its_line(
    text: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file and the line are in the error."""
    (tmp_path / "some.txt").write_text(text)
    monkeypatch.setattr(written, "FOLDER", tmp_path)

    with pytest.raises(UnknownPart, match=rf"some\.txt:\d: .*{problem}"):
        written.written.__wrapped__()


def test_what_needs_a_fresh_talk_waits_for_one() -> None:
    """A question for the order number is wrong where the number is known."""
    asks = Written(((("ask_order",), "where is my parcel"),))
    before = talk()
    assert fits(asks, before)
    before.order = "4711"
    assert not fits(asks, before)


def test_singles_ask_one_thing_of_the_shop() -> None:
    """They are joined with other questions, so they hold no slot."""
    assert all("{" not in text for _, text in singles())
    assert len({name for name, _ in singles()}) > 60


def test_only_training_uses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the test split nothing written is said."""
    for name in ("written", "singles"):
        monkeypatch.setattr(grammar, name, lambda: pytest.fail("the test split asked for what is written"))
    rng = random.Random(2)

    assert sum(1 for _ in range(300) for _ in grammar.dialogue(rng, Split.TEST)) > 300
