from __future__ import annotations

from stages.preprocess.speech.agreement import Agreement, plain
from stages.preprocess.speech.recogniser import Heard


def _words(text: str, begin: float = 0.0) -> list[Heard]:
    return [Heard(f" {word}", begin + n / 2, begin + n / 2 + 0.4) for n, word in enumerate(text.split())]


def _agreed(agreement: Agreement) -> str:
    return "".join(word.text for word in agreement.agreed).strip()


def test_what_two_in_a_row_begin_with_is_agreed() -> None:
    """A single transcript says nothing for sure; each further one confirms what it shares with the one before."""
    agreement = Agreement()
    told = []
    for text in ("i would", "i would lie", "i would like two", "i would like two coffees"):
        agreement.hear(_words(text))
        told.append(_agreed(agreement))
    assert told == ["", "i would", "i would", "i would like two"]


def test_case_and_punctuation_do_not_matter() -> None:
    """The newer way to write a word is told."""
    agreement = Agreement()
    agreement.hear(_words("hello world"))
    agreement.hear(_words("Hello, world."))
    assert _agreed(agreement) == "Hello, world."
    assert plain(" ...") == "..."


def test_a_change_of_mind_is_told_by_time() -> None:
    """Where a later transcript begins otherwise, only what comes after the agreed words counts."""
    agreement = Agreement()
    for text in ("a lot of", "a lot of cake"):
        agreement.hear(_words(text))
    assert _agreed(agreement) == "a lot of"
    other = [Heard(" alot", 0.0, 0.9), Heard(" of", 1.0, 1.4), Heard(" cake", 1.5, 1.9), Heard(" now", 2.0, 2.4)]
    agreement.hear(other)
    agreement.hear(other)
    assert _agreed(agreement) == "a lot of cake now"


def test_words_at_the_seam_are_not_told_twice() -> None:
    """Times that slip a little do not bring the last agreed words again."""
    agreement = Agreement()
    agreement.hear(_words("one two three"))
    agreement.hear(_words("one two three"))
    late = [Heard(" won", 0.0, 0.4), Heard(" two", 0.6, 1.45), Heard(" three", 1.45, 1.5), Heard(" four", 1.6, 2.0)]
    assert [word.text for word in agreement.after(late)] == [" four"]


def test_an_empty_transcript_agrees_on_nothing() -> None:
    """Nor does it take anything back."""
    agreement = Agreement()
    agreement.hear(_words("one two"))
    agreement.hear([])
    agreement.hear(_words("one two"))
    assert _agreed(agreement) == ""
