"""Events of a session put together to what was said."""

from __future__ import annotations

from typing import Any

import pytest

from apps.voice.transcript import Transcript, Word, spread_out

HEARD = "conversation.item.input_audio_transcription"


def told(*events: dict[str, Any]) -> Transcript:
    """Return the transcript after these events."""
    transcript = Transcript()
    for event in events:
        transcript.take(event)
    return transcript


def started(item: str, ms: int) -> dict[str, Any]:
    """Speech begins."""
    return {"type": "input_audio_buffer.speech_started", "item_id": item, "audio_start_ms": ms}


def stopped(item: str, ms: int) -> dict[str, Any]:
    """Speech ends."""
    return {"type": "input_audio_buffer.speech_stopped", "item_id": item, "audio_end_ms": ms}


def delta(item: str, text: str, *words: tuple[str, float, float]) -> dict[str, Any]:
    """More words."""
    timed = [{"word": word, "start": start, "end": end} for word, start, end in words]
    return {"type": f"{HEARD}.delta", "item_id": item, "delta": text, "words": timed}


def completed(item: str, text: str, **more: Any) -> dict[str, Any]:
    """All words."""
    return {"type": f"{HEARD}.completed", "item_id": item, "transcript": text, **more}


def test_partial_words_turn_into_the_final_ones() -> None:
    """Deltas add up, until the whole text takes their place."""
    transcript = told(started("a", 300), delta("a", "how "), delta("a", "mush"))
    (one,) = transcript.open
    assert (one.text, one.start, one.end, one.final) == ("how mush", 0.3, None, False)
    transcript.take(stopped("a", 1900))
    transcript.take(completed("a", "how much", language="en", words=[{"word": "how", "start": 0.5, "end": 0.75}]))
    assert transcript.open == []
    assert (one.text, one.end, one.final, one.words) == ("how much", 1.9, True, [Word("how", 0.5, 0.75)])
    assert (transcript.text, transcript.language) == ("how much", "en")


def test_words_of_the_deltas_stay_where_the_end_has_none() -> None:
    """Times that were told once are kept."""
    transcript = told(
        delta("a", "how", ("how", 0.5, 0.75)), delta("a", " much", (" much", 0.75, 1.0)), completed("a", "how much")
    )
    (one,) = transcript
    assert one.timed() == [Word("how", 0.5, 0.75), Word(" much", 0.75, 1.0)]
    assert transcript.heard_until == 1.0


def test_utterances_stand_in_the_order_of_their_beginning() -> None:
    """Also where the second one is transcribed first, and what was no speech leaves no gap in the text."""
    transcript = told(
        started("a", 0), started("b", 900), started("c", 2000), completed("c", "three"), completed("b", " ")
    )
    assert [one.item for one in transcript.open] == ["a"]
    transcript.take(completed("a", "one"))
    assert transcript.text == "one three"


def test_a_failure_is_final() -> None:
    """What could not be transcribed is not waited for, and says why."""
    transcript = told(
        started("a", 0), {"type": f"{HEARD}.failed", "item_id": "a", "error": {"message": "out of memory"}}
    )
    (one,) = transcript
    assert (one.final, one.problem, transcript.text) == (True, "out of memory", "")


def test_other_events_say_nothing() -> None:
    """The session's own, and the buffer's that are about no item."""
    transcript = told({"type": "session.updated", "session": {}}, {"type": "input_audio_buffer.cleared"})
    assert list(transcript) == []


def test_words_without_times_share_the_time() -> None:
    """By their length in characters, from the beginning to the end and without gaps."""
    words = spread_out("an apple", 1.0, 2.4)
    assert [word.text for word in words] == [" an", " apple"]
    assert [time for word in words for time in word[1:]] == pytest.approx([1.0, 1.4, 1.4, 2.4])
    assert spread_out("", 0, 1) == []


def test_a_commit_takes_the_place_of_the_turn_that_goes_on() -> None:
    """What was begun as one item and is committed as another is said once, and begins where it began."""
    transcript = told(
        {"type": "input_audio_buffer.committed", "item_id": "fence"},
        started("a", 500),
        stopped("a", 900),
        {"type": "input_audio_buffer.committed", "item_id": "a"},
        completed("a", "first"),
        started("b", 1500),
        delta("b", "last"),
    )
    assert [one.item for one in transcript] == ["a", "b", "fence"]
    transcript.take(completed("fence", "last words"))
    assert [(one.item, one.text, one.start) for one in transcript] == [
        ("a", "first", 0.5),
        ("fence", "last words", 1.5),
    ]
    assert transcript.open == []
