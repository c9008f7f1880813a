"""An answer is cut into pieces to be spoken: the first one soon, the others well, the same ones each time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.postprocess.sentences import FIRST_MOST, MOST, UNBROKEN, Cut, Cutter
from stages.postprocess.spoken import speakable

ODD_TEXT = st.text(st.sampled_from("aB .,;:!?—-\n\"'()[]`*_|#135你。，！😀\u200d…é/"), max_size=120)


def cut(text: str, ends: tuple[int, ...] = ()) -> list[Cut]:
    """The pieces of `text`, which comes in portions that end at `ends`."""
    cutter = Cutter()
    cuts: list[Cut] = []
    for start, end in zip((0, *ends), (*ends, len(text)), strict=True):
        cuts += cutter.feed(text[start:end])
    return cuts + cutter.finish()


def pieces(text: str) -> list[str]:
    """What the pieces of `text` hold."""
    return [one.text for one in cut(text)]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Sure, I can help you, of course. Really.", "Sure, I can help you, "),
        ("Of course! I can help you, if you like.", "Of course! "),
        ("Yes. And no.", "Yes. "),
        ("Well — that is what it is — maybe.", "Well — that is what it is — "),
        ("Here it is: the answer to it all.", "Here it is: "),
        ("What I mean—and I do—is this.", "What I mean—"),
        ("1,000 yen, or 3.50 dollars, is what it costs.", "1,000 yen, or 3.50 dollars, "),
        ("[The docs, as ever](https://x.org/a) help, you see.", "[The docs, as ever](https://x.org/a) help, "),
        ("好的，我可以帮你，没问题。", "好的，我可以帮你，"),
        ("Three options\n- one", "Three options\n"),
    ],
)
def test_first_piece_is_short(text: str, first: str) -> None:
    """The first piece is the first clause with some words in it, or a sentence or line that ends before."""
    assert pieces(text)[0] == first


def test_first_piece_comes_with_the_space_after_it() -> None:
    """A clause is spoken as soon as the space behind its comma shows that it is one."""
    cutter = Cutter()

    assert cutter.feed("I can help you,") == []
    assert cutter.feed(" of") == [Cut(0, "I can help you, ")]


def test_later_pieces_are_sentences() -> None:
    """After the first piece, commas do not cut any more."""
    text = "Yes. I can, of course, help you, and I will. When, however, is the question! Now"

    assert pieces(text) == [
        "Yes. ",
        "I can, of course, help you, and I will. ",
        "When, however, is the question! ",
        "Now",
    ]


@pytest.mark.parametrize(
    "sentence",
    [
        "It costs $3.50 in all. ",
        "Mr. Smith and Dr. J. R. Jones met at St. Mary's. ",
        "See www.x.y/a?b=c.d for more. ",
        "Use version 2.0.1 (e.g. the newest). ",
        "It takes approx. three hours, i.e. too long. ",
        "They sell apples, pears etc. all day. ",
        "Go to https://example.com/a.b?x=1!y now. ",
        "He said \"Stop!\". ",
        "Is it so?! ",
        "Nobody knows... ",
        "(It is so.) ",
        "**That is all.** ",
    ],
)  # fmt: skip
def test_sentences_end_where_they_end(sentence: str) -> None:
    """Numbers, abbreviations, initials and addresses have periods, and end no sentence."""
    assert pieces("Yes. " + sentence + "Then more.") == ["Yes. ", sentence, "Then more."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes. At 9 a.m. We open.", ["Yes. ", "At 9 a.m. ", "We open."]),
        ("Yes. At 9 a.m. we open.", ["Yes. ", "At 9 a.m. we open."]),
        ("Yes. It was 1999. Then it ended.", ["Yes. ", "It was 1999. ", "Then it ended."]),
        ("Yes. Cats, dogs, etc. Then more.", ["Yes. ", "Cats, dogs, etc. ", "Then more."]),
        ("Yes. Plan B. is there.", ["Yes. ", "Plan B. is there."]),
    ],
)
def test_a_capital_tells_whether_an_abbreviation_was_the_end(text: str, expected: list[str]) -> None:
    """What may end a sentence, or not, does so if the next word begins with a capital letter."""
    assert pieces(text) == expected


def test_items_of_a_list_keep_their_numbers() -> None:
    """The number at the beginning of a line belongs to what follows; each line is a piece."""
    text = "1. First this\n2. Then That\n\na) Or this\n- and Bob"

    assert pieces(text) == ["1. First this\n", "2. Then That\n", "a) Or this\n", "- and Bob"]


def test_chinese_sentences() -> None:
    """Full-width punctuation cuts without a space; closing brackets stay with what they close."""
    assert pieces("好的！今天天气很好。「真的吗？」她说：是。") == [
        "好的！",
        "今天天气很好。",
        "「真的吗？」",
        "她说：是。",
    ]


def test_code_is_not_spoken() -> None:
    """A block of code is in no piece, whatever is in it; what follows it keeps its place."""
    text = "So:\n```python\nprint('Hi, you. There')\n# Yes. No.\n```\nThat is all. ~~~ no"

    assert cut(text) == [Cut(0, "So:\n"), Cut(text.index("That"), "That is all. "), Cut(text.index("~~~"), "~~~ no")]
    assert pieces("```\nnever closed. Is it\n") == []
    assert pieces("    ~~~js\nx, y, z = 1. 2\n    ~~~\n") == []


def test_what_has_no_words_is_not_spoken() -> None:
    """Rules, rows of emoji and stray punctuation are no pieces, and no first piece either."""
    assert pieces("😀 👩‍👩‍👧!\n---\n... !!! \nReally, that is good, yes. 😀") == ["Really, that is good, ", "yes. "]


def test_first_piece_does_not_wait_for_ever() -> None:
    """Without any punctuation the first piece is cut at a space, soon; later ones later, after a comma if they can."""
    text = "word " * 200

    first, second, *_ = pieces(text)

    assert FIRST_MOST - 6 < len(first) <= FIRST_MOST
    assert MOST - 6 < len(second) <= MOST
    comma = "Yes. " + "word " * 40 + "here, " + "word " * 60
    assert pieces(comma)[1].endswith("here, ")


def test_long_numbers_and_addresses_are_not_cut() -> None:
    """The bound cuts neither within a number that is written with spaces nor within an address."""
    assert all(piece.startswith("Number") or piece[0] == "1" for piece in pieces("Number 10 000 000 " * 60))
    assert not any(piece.startswith(("000", "0 ")) for piece in pieces("Number 10 000 000 " * 60))
    address = "https://example.com/" + "a" * 600
    assert pieces(f"Look at {address} there.")[1].startswith(address)
    assert max(map(len, pieces("a" * 5_000))) == UNBROKEN


def test_long_chinese_is_cut_sooner() -> None:
    """A character that is a word counts more than a letter, and needs no space to be cut after."""
    assert [len(piece) for piece in pieces("今" * 250)] == [FIRST_MOST // 3, -(-MOST // 3), -(-MOST // 3), 32]


@given(text=ODD_TEXT, data=st.data())
def test_cuts_do_not_depend_on_the_portions(text: str, data: st.DataObject) -> None:
    """However the text comes, letter by letter or at once, the same pieces come of it."""
    ends = tuple(sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5))))

    assert cut(text, ends) == cut(text)


@given(text=ODD_TEXT)
def test_pieces_stand_in_the_text(text: str) -> None:
    """Each piece is a part of the text, after the one before, and something is said of it; between is only code."""
    after = 0
    for piece in cut(text):
        assert after <= piece.at
        assert text[piece.at : piece.at + len(piece.text)] == piece.text
        assert speakable(piece.text)
        if "```" not in text:
            assert not speakable(text[after : piece.at])
        after = piece.at + len(piece.text)
