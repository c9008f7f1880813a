"""Answers that are spoken: their audio beside their text, their end, and who interrupts them."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest

from apps.gateway.account import Position
from pipeline.messages import Cancel, Problem, Turn, Usage, Voice
from pipeline.topics import REPLIES
from pipeline.voice import SpeechStarted
from tests.apps.gateway.checks import Event
from tests.apps.gateway.desk import PARTITION, error_of, types
from tests.apps.gateway.harness import USAGE
from tests.apps.gateway.voice_desk import VoiceDesk, silence

TRANSCRIPT = "response.output_audio_transcript."
AUDIO = "response.output_audio."
CLOSED = [
    f"{AUDIO}done",
    f"{TRANSCRIPT}done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
]


def asked(**audio: Any) -> tuple[VoiceDesk, Turn]:
    """Return a session that is being answered."""
    desk = VoiceDesk(audio)
    return desk, desk.ask("hello")


def transcript(response: Event) -> str:
    """Return what a response was in the end."""
    return str(response["output"][0]["content"][0]["transcript"])


def test_an_answer_is_spoken() -> None:
    """Text comes as the transcript of the audio, audio beside it, and the end when both have ended."""
    desk, turn = asked()

    opened = desk.delta(turn, 0, "yes")
    more = desk.delta(turn, 3, " please")
    first = desk.spoken(turn, 0, 200, (3, 200))
    assert desk.finish(turn, length=10) == []
    done = desk.spoken(turn, 200, 300, (10, 500), last=True)

    assert turn.voice == Voice()
    assert types(opened) == [
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        f"{TRANSCRIPT}delta",
    ]
    assert opened[2]["part"] == {"type": "audio", "transcript": ""}
    assert [event["delta"] for event in more] == [" please"]
    assert b64decode(first[0]["delta"]) == silence(200)
    assert types(done) == [f"{AUDIO}delta", *CLOSED]
    response = done[-1]["response"]
    assert response["output_modalities"] == ["audio"]
    assert response["output"][0]["content"] == [{"type": "output_audio", "transcript": "yes please"}]
    assert response["usage"]["output_tokens"] == USAGE.output_tokens
    assert desk.told.audio(response["output"][0]["id"]) == silence(500)
    assert [(u.role, u.text) for u in desk.ask("and?").conversation][1] == ("assistant", "yes please")


def test_the_last_audio_may_come_before_the_end_of_the_text() -> None:
    """Two stages have no common order: the response ends with whichever is last."""
    desk, turn = asked()
    desk.delta(turn, 0, "yes")

    assert types(desk.spoken(turn, 0, 100, (3, 100), last=True)) == [f"{AUDIO}delta"]
    assert types(desk.finish(turn, length=3)) == CLOSED


def test_audio_may_come_before_the_text() -> None:
    """It opens the answer as text does."""
    desk, turn = asked()

    assert types(desk.spoken(turn, 0, 100)) == [
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        f"{AUDIO}delta",
    ]
    assert types(desk.delta(turn, 0, "yes")) == [f"{TRANSCRIPT}delta"]


@pytest.mark.parametrize(("kind", "encoding", "rate"), [("pcm", "pcm16", 48), ("pcmu", "pcmu", 8), ("pcma", "pcma", 8)])
def test_audio_that_comes_again_is_cut(kind: str, encoding: str, rate: int) -> None:
    """A new owner says the answer anew: of each piece only what was not heard is told, in any encoding."""
    desk = VoiceDesk()
    desk.send("session.update", session={"audio": {"output": {"format": {"type": f"audio/{kind}"}}}})
    turn = desk.ask("hello")
    assert turn.voice == Voice(encoding=encoding)  # type: ignore[arg-type]
    desk.delta(turn, 0, "yes")

    def said(at_ms: int, data: bytes) -> bytes:
        shown = desk.spoken(turn, at_ms, 0) if not data else desk.spoken_data(turn, at_ms, data)
        return b"".join(b64decode(event["delta"]) for event in shown)

    assert said(0, b"a" * 100 * rate) == b"a" * 100 * rate
    assert said(0, b"b" * 60 * rate) == b""
    assert said(60, b"c" * 100 * rate) == b"c" * 60 * rate


def test_an_answer_with_a_hole_in_its_audio_fails() -> None:
    """Audio that was lost on its way ends the answer as failed, never as if it had been whole."""
    desk, turn = asked()
    desk.delta(turn, 0, "yes")
    desk.spoken(turn, 0, 100)

    told = desk.spoken(turn, 200, 100)

    assert told[-1]["response"]["status"] == "failed"
    assert [cancel.turn for cancel in desk.cancels] == [turn.turn]


def test_speech_that_fails_fails_the_response() -> None:
    """The speak stage says why the answer was not spoken to its end; what was heard of it stays."""
    desk, turn = asked()
    desk.delta(turn, 0, "yes please")
    desk.finish(turn, length=10)
    desk.spoken(turn, 0, 200, (3, 200), (10, 600))

    told = desk.spoken(turn, 200, 0, last=True, problem=Problem("speech_failed", "no voice"))

    response = told[-1]["response"]
    assert (response["status"], response["status_details"]["error"]["code"]) == ("failed", "speech_failed")
    assert (transcript(response), response["usage"]["output_tokens"]) == ("yes", USAGE.output_tokens)


def test_an_answer_that_is_not_spoken_on_fails_in_time() -> None:
    """When the next piece of audio does not come, the response fails; as long as they come, it goes on."""
    desk, turn = asked(speech_patience_s=3.0)
    desk.delta(turn, 0, "yes please")
    desk.finish(turn, length=10)
    desk.spoken(turn, 0, 200, (3, 200))

    assert desk.later(7.9) == []
    told = desk.later(8.1)

    assert told[-1]["response"]["status_details"]["error"]["code"] == "deadline_exceeded"


def test_an_empty_answer_ends() -> None:
    """An answer without a word has no audio, and an end all the same."""
    desk, turn = asked()
    desk.finish(turn, length=0)

    assert types(desk.spoken(turn, 0, 0, last=True))[-1] == "response.done"


# -- in which form


@pytest.mark.parametrize(
    ("speaks", "session", "response", "spoken"),
    [
        (True, None, None, True),
        (True, ["text"], None, False),
        (True, ["text"], ["audio"], True),
        (True, ["audio"], ["text"], False),
        (True, ["text", "audio"], None, True),
        (False, None, None, False),
        (False, ["audio"], ["audio"], False),
    ],
    ids=range(7),
)
def test_who_is_answered_in_which_form(speaks: bool, session: Any, response: Any, spoken: bool) -> None:
    """Audio is the default where there is a speak stage; a session or a response may ask for text, or for audio."""
    desk = VoiceDesk({"speaks": speaks})
    if session:
        desk.send("session.update", session={"output_modalities": session})

    turn = desk.ask("hi", **({"output_modalities": response} if response else {}))

    assert (turn.voice is not None) is spoken
    created = next(event["response"] for event in desk.told.events if event["type"] == "response.created")
    assert created["output_modalities"] == (["audio"] if spoken else ["text"])


def test_how_one_response_is_spoken() -> None:
    """Voice and format of a response go before those of the session, whose speed holds."""
    desk = VoiceDesk()
    desk.send("session.update", session={"audio": {"output": {"voice": {"id": "ash"}, "speed": 1.2}}})
    own = {"output": {"format": {"type": "audio/pcma"}, "voice": "marin"}}

    first = desk.ask("hi", audio=own)
    shown = next(event["response"] for event in desk.told.events if event["type"] == "response.created")
    desk.speak(first)
    second = desk.ask("hi")

    assert first.voice == Voice("marin", 1.2, "pcma")
    assert shown["audio"] == {"output": {"format": {"type": "audio/pcma"}, "voice": "marin"}}
    assert second.voice == Voice("ash", 1.2)


def test_the_voice_stays_once_it_was_heard() -> None:
    """After the first audio the session's voice is fixed; the same one, and all else, may still be told."""
    desk = VoiceDesk()
    desk.send("session.update", session={"audio": {"output": {"voice": "ash"}}})
    turn = desk.ask("hi")
    desk.delta(turn, 0, "yes")
    desk.send("session.update", session={"audio": {"output": {"voice": "echo"}}})
    desk.send("session.update", session={"audio": {"output": {"voice": "ash"}}})
    desk.spoken(turn, 0, 100)

    error = error_of(desk.send("session.update", session={"audio": {"output": {"voice": "marin"}}}))
    (updated,) = desk.send("session.update", session={"audio": {"output": {"voice": "ash", "speed": 1.5}}})

    assert (error["code"], error["param"]) == ("cannot_update_voice", "session.audio.output.voice")
    assert updated["session"]["audio"]["output"]["speed"] == 1.5


# -- interrupted


def test_speech_interrupts_the_answer() -> None:
    """The user speaks: nothing more is told of the answer, which is cancelled, and of which what was heard is kept."""
    desk, turn = asked()
    desk.delta(turn, 0, "one two three four")
    desk.spoken(turn, 0, 400, (3, 200), (7, 400), (13, 600))
    desk.hear()

    started = desk.started("i1", 0)
    late = desk.delta(turn, 18, " five") + desk.spoken(turn, 400, 200)
    done = desk.finish(turn, status="cancelled", reason="cancelled", length=18)

    assert types(started) == ["input_audio_buffer.speech_started"]
    assert [(cancel.turn, cancel.reason) for cancel in desk.cancels] == [(turn.turn, "turn_detected")]
    assert late == []
    assert types(done) == CLOSED
    response = done[-1]["response"]
    assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert response["output"][0]["status"] == "incomplete"
    assert (done[1]["transcript"], transcript(response)) == ("one two three four", "one two")
    desk.stopped("i1", 900)
    desk.transcribed("i1", "stop")
    assert [u.text for u in desk.turns[-1].conversation] == ["hello", "one two", "stop"]


def test_an_answer_whose_text_is_there_ends_where_it_is_interrupted() -> None:
    """While the rest of it is spoken, speech ends the response at once, and its usage is known."""
    desk, turn = asked()
    desk.delta(turn, 0, "one two three four")
    desk.finish(turn, length=18)
    desk.spoken(turn, 0, 400, (3, 200), (7, 400), (13, 600))
    desk.hear()

    told = desk.started("i1", 0)
    desk.spoken(turn, 400, 200, last=True)

    assert types(told) == ["input_audio_buffer.speech_started", *CLOSED]
    response = told[-1]["response"]
    assert (response["status"], transcript(response)) == ("cancelled", "one two")
    assert response["usage"]["output_tokens"] == USAGE.output_tokens
    assert desk.metrics.voice.silenced._sum.get() < 1.0


def test_text_is_interrupted_too() -> None:
    """Speech ends an answer that is only written, with what was told of it."""
    desk = VoiceDesk()
    turn = desk.ask("hi", output_modalities=["text"])
    desk.delta(turn, 0, "one two")
    desk.hear()
    desk.started("i1", 0)

    assert desk.delta(turn, 7, " three") == []
    response = desk.finish(turn, length=13)[-1]["response"]

    assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert response["output"][0]["content"][0]["text"] == "one two"


def test_what_is_beside_the_conversation_is_not_interrupted() -> None:
    """A response outside the conversation goes on while the user speaks."""
    desk = VoiceDesk()
    turn = desk.ask("hi", conversation="none", output_modalities=["text"])
    desk.hear()
    desk.started("i1", 0)

    assert desk.cancels == []
    assert desk.answer(turn)["status"] == "completed"


def test_an_answer_that_nobody_heard_of_yet_is_interrupted() -> None:
    """Speech that begins before the response is told to have begun gives it up all the same."""
    desk = VoiceDesk()
    desk.hear()
    desk.say("hi")
    desk.session.receive(desk.codec.receive('{"type": "response.create"}'))
    out = desk.session.outgoing()
    turn = out[0].message
    assert isinstance(turn, Turn)
    speech = REPLIES.decode(REPLIES.encode(SpeechStarted("sess_1", desk.stream, "i1", 0)))
    desk.session.read(Position(PARTITION, desk.offset), speech)
    later = desk.session.outgoing()

    for sent in [*out[1:], *later]:
        if sent.partition == PARTITION:
            desk.read(sent.message)
        elif isinstance(sent.message, Cancel):
            desk.cancels.append(sent.message)
    response = desk.finish(turn, status="cancelled", reason="cancelled", length=0)[-1]["response"]

    assert [cancel.reason for cancel in desk.cancels] == ["turn_detected"]
    assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}


def test_a_cancel_ends_what_is_only_spoken_at_once() -> None:
    """When the text is there, the client's cancel does not wait for a stage; the rest of the audio is dropped."""
    desk, turn = asked()
    desk.delta(turn, 0, "one two")
    desk.finish(turn, length=7)
    desk.spoken(turn, 0, 200, (3, 200))

    told = desk.send("response.cancel")

    assert types(told) == CLOSED
    response = told[-1]["response"]
    assert response["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert transcript(response) == "one"
    assert desk.spoken(turn, 200, 200, last=True) == []


def test_a_cancel_that_crosses_the_end_of_the_text() -> None:
    """The stages had ended the text when the cancel came: the response is cancelled, and told nothing more of."""
    desk, turn = asked()
    desk.delta(turn, 0, "one two")
    assert desk.send("response.cancel") == []
    assert desk.delta(turn, 7, " three") + desk.spoken(turn, 0, 100) == []

    told = desk.finish(turn, length=13)

    assert told[-1]["response"]["status"] == "cancelled"
    assert told[-1]["response"]["usage"]["output_tokens"] == USAGE.output_tokens


def test_usage_of_a_spoken_answer_counts_text() -> None:
    """The model reads and writes text: no token of audio is counted."""
    desk, turn = asked()
    desk.delta(turn, 0, "yes")
    desk.finish(turn, length=3, usage=Usage(7, 3))
    response = desk.spoken(turn, 0, 100, last=True)[-1]["response"]

    assert response["usage"]["output_token_details"] == {"text_tokens": 3, "audio_tokens": 0}
