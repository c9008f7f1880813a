"""What was not heard of an answer is taken out of the conversation."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.gateway.commands import ItemTruncate, ResponseCancel
from apps.gateway.speaking import Track
from pipeline.messages import Turn
from tests.apps.gateway.checks import Event
from tests.apps.gateway.desk import error_of
from tests.apps.gateway.voice_desk import MS, VoiceDesk

TEXT = "one two three four"


def answered() -> tuple[VoiceDesk, str]:
    """Return a session with an answer of 1.8 s that was heard, and the answer's item."""
    desk = VoiceDesk()
    response = desk.speak(desk.ask("count"), TEXT, ms=1800)
    return desk, str(response["output"][0]["id"])


def cut(desk: VoiceDesk, item: str, ms: int, part: int = 0) -> list[Event]:
    """Say that no more was heard."""
    return desk.send("conversation.item.truncate", item_id=item, content_index=part, audio_end_ms=ms)


def kept(desk: VoiceDesk, item: str) -> str:
    """Return what the conversation has of an item."""
    (shown,) = desk.send("conversation.item.retrieve", item_id=item)
    return str(shown["item"]["content"][0]["transcript"])


def test_an_answer_is_cut_to_what_was_heard() -> None:
    """The client is told, the item has the words up to there, and the model knows no others."""
    desk, item = answered()

    (told,) = cut(desk, item, 850)
    turn = desk.ask("go on")

    assert told["type"] == "conversation.item.truncated"
    assert (told["item_id"], told["content_index"], told["audio_end_ms"]) == (item, 0, 850)
    assert told["transcript"] == kept(desk, item) == "one two"
    assert [u.text for u in turn.conversation] == ["count", "one two", "go on"]


def test_an_answer_that_was_not_heard_at_all() -> None:
    """Cut at its beginning it is empty, and the model is told nothing of it."""
    desk, item = answered()
    cut(desk, item, 0)

    assert kept(desk, item) == ""
    assert [u.text for u in desk.ask("go on").conversation] == ["count", "go on"]


def test_an_answer_is_cut_further_and_never_longer() -> None:
    """A second cut takes more away; beyond the first there is no audio any more."""
    desk, item = answered()
    cut(desk, item, 1300)
    cut(desk, item, 400)

    assert kept(desk, item) == "one"
    assert "already shorter" in error_of(cut(desk, item, 1300))["message"]


def test_all_of_it_was_heard() -> None:
    """At its very end nothing goes; a clock that is a little ahead is let pass, another one is not."""
    desk, item = answered()

    cut(desk, item, 1815)
    assert kept(desk, item) == TEXT
    error = error_of(cut(desk, item, 1900))
    assert (error["code"], error["param"]) == ("invalid_value", "audio_end_ms")
    assert error["message"] == "Audio content of 1800ms is already shorter than 1900ms"


@pytest.mark.parametrize(
    ("ms", "part", "code", "param"),
    [
        (-1, 0, "integer_below_min_value", "audio_end_ms"),
        (100, 1, "invalid_value", "content_index"),
        (10**12, 0, "invalid_value", "audio_end_ms"),
    ],
)
def test_what_cannot_be_cut(ms: int, part: int, code: str, param: str) -> None:
    """Numbers that cannot be are refused by name, and nothing is cut."""
    desk, item = answered()

    error = error_of(cut(desk, item, ms, part))

    assert (error["code"], error["param"]) == (code, param)
    assert kept(desk, item) == TEXT


def test_only_what_was_spoken_can_be_cut() -> None:
    """A user's item, and an answer in text, have no audio to cut."""
    desk = VoiceDesk()
    desk.utter("i1", "hello")
    desk.speak(desk.turns[-1])
    written = desk.answer(desk.ask("hi", output_modalities=["text"]))["output"][0]["id"]

    assert error_of(cut(desk, "i1", 0))["code"] == "item_truncate_no_audio"
    assert error_of(cut(desk, written, 0))["code"] == "item_truncate_no_audio"


def spoken_so_far() -> tuple[VoiceDesk, Turn, str]:
    """Return a session whose answer is being spoken, and the item."""
    desk = VoiceDesk()
    turn = desk.ask("count")
    opened = desk.delta(turn, 0, TEXT)
    desk.spoken(turn, 0, 1000, (3, 300), (7, 700), (13, 1300))
    return desk, turn, str(opened[0]["item"]["id"])


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_answer_under_way_is_cut(interrupted: bool) -> None:
    """As the agents SDKs do it: the cut comes while the response goes on or ends, and is what remains."""
    desk, turn, item = spoken_so_far()
    if interrupted:
        desk.hear()
        desk.started("i1", 0)

    (told,) = cut(desk, item, 400)
    response = desk.finish(turn, status="cancelled", reason="cancelled", length=18)[-1]["response"]

    assert told["transcript"] == "one"
    assert response["output"][0]["content"][0]["transcript"] == kept(desk, item) == "one"


def test_no_more_can_be_cut_than_was_sent() -> None:
    """Of an answer under way that counts which the client has got."""
    desk, _, item = spoken_so_far()

    assert error_of(cut(desk, item, 1100))["message"] == "Audio content of 1000ms is already shorter than 1100ms"


def test_who_cuts_what_goes_on_plays_no_more_of_it() -> None:
    """Its response ends at once, as cancelled by the client; a cancel that comes behind it is nothing new."""
    desk, turn, item = spoken_so_far()

    told = cut(desk, item, 400)
    asked = [(one.turn, one.reason) for one in desk.cancels]
    more = desk.spoken(turn, 1000, 500, (18, 1800)) + desk.delta(turn, 18, " five")
    done = desk.finish(turn, status="cancelled", reason="cancelled", length=18)[-1]["response"]

    assert [one["type"] for one in told] == ["conversation.item.truncated"]
    assert asked == [(turn.turn, "client_cancelled")]
    assert more == []
    assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert desk.send("response.cancel") == []
    assert error_of(desk.send("response.cancel"))["code"] == "response_cancel_not_active"


def test_what_is_only_being_spoken_ends_with_the_cut() -> None:
    """Where all of the text is there nobody is waited for: the response is over when the cut is."""
    desk, turn, item = spoken_so_far()
    desk.finish(turn, length=len(TEXT))

    told = cut(desk, item, 400)

    assert [told[0]["type"], told[-1]["type"]] == ["conversation.item.truncated", "response.done"]
    assert told[-1]["response"]["output"][0]["content"][0]["transcript"] == kept(desk, item) == "one"
    assert desk.send("response.cancel", response_id=turn.turn) == []
    desk.send("response.create")
    assert len(desk.turns) == 2


@pytest.mark.parametrize("over", [False, True])
def test_a_second_cut_is_the_same_before_and_after_the_end(over: bool) -> None:
    """Beyond the first one there is no audio any more, whether the answer still goes on or not."""
    desk, turn, item = spoken_so_far()
    cut(desk, item, 700)
    if over:
        desk.finish(turn, status="cancelled", reason="cancelled", length=18)

    assert error_of(cut(desk, item, 900))["message"] == "Audio content of 700ms is already shorter than 900ms"
    assert cut(desk, item, 715)[0]["transcript"] == "one two"
    assert cut(desk, item, 350)[0]["transcript"] == "one"
    assert error_of(cut(desk, item, 700))["message"] == "Audio content of 350ms is already shorter than 700ms"
    desk.finish(turn, status="cancelled", reason="cancelled", length=18)
    assert kept(desk, item) == "one"


@pytest.mark.parametrize("kinds", [("cancel", 400), (800, 400)])
def test_what_is_asked_in_one_flight_leaves_one_text(kinds: tuple[str | int, ...]) -> None:
    """The end of the answer is read between what was asked and what is told of it: the model knows what was heard."""
    desk, turn, item = spoken_so_far()
    desk.finish(turn, length=len(TEXT))
    for kind in kinds:
        desk.session.receive(
            ResponseCancel()
            if kind == "cancel"
            else ItemTruncate(item_id=item, content_index=0, audio_end_ms=int(kind))
        )
    desk.pump()

    assert kept(desk, item) == "one"
    assert [u.text for u in desk.ask("go on").conversation] == ["count", "one", "go on"]


@pytest.mark.parametrize("how", ["cancel", "cut"])
def test_an_answer_of_which_nothing_was_heard_is_nothing(how: str) -> None:
    """Given up before its first sound, none of its words is in the conversation."""
    desk = VoiceDesk()
    turn = desk.ask("count")
    item = str(desk.delta(turn, 0, TEXT)[0]["item"]["id"])

    if how == "cut":
        assert cut(desk, item, 0)[0]["transcript"] == ""
    else:
        desk.send("response.cancel")
    desk.finish(turn, status="cancelled", reason="cancelled", length=18)

    assert kept(desk, item) == ""


def test_two_cuts_in_one_flight() -> None:
    """The first one counts before it is read back."""
    desk, _, item = spoken_so_far()
    for ms in (400, 900):
        desk.session.receive(
            ItemTruncate(item_id=item, content_index=0, audio_end_ms=ms),
        )

    told = desk.pump()

    assert [one["type"] for one in told] == ["conversation.item.truncated", "error"]


def marks(lengths: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return marks that grow by so much."""
    found, chars, position = [], 0, 0
    for more, longer in lengths:
        chars, position = chars + more, position + longer
        found.append((chars, position))
    return found


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 24_000)), min_size=1, max_size=20),
    st.lists(st.integers(0, 500_000), min_size=2, max_size=2),
    st.text("ab ", max_size=200),
)
def test_the_words_grow_with_the_position(lengths: list[tuple[int, int]], places: list[int], text: str) -> None:
    """However the marks lie: later in the audio there are no fewer words, all of them the beginning of the text."""
    track = Track(position=sum(longer for _, longer in lengths), marks=marks(lengths))
    first, second = (track.words(text, place) for place in sorted(places))

    assert text.startswith(second)
    assert second.startswith(first)
    assert not second or len(second) == len(text) or text[len(second)].isspace()
    again = track.cut(min(places))
    assert again.words(first, track.position) == first


def test_between_two_marks_the_share_counts() -> None:
    """Where there are marks for sentences alone, whole words are kept as far as their time has come."""
    track = Track(position=2000 * MS, marks=[(18, 1800 * MS)])

    assert [track.words(TEXT, ms * MS) for ms in (0, 299, 350, 1000, 1799, 1900)] == [
        "",
        "",
        "one",
        "one two",
        "one two three",
        TEXT,
    ]
