"""A spoken session rebuilt from its log: heard and told the same, wherever its client left."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from apps.gateway.account import Position
from pipeline.messages import Claimed, Problem
from pipeline.voice import Spoken, Transcribed
from tests.apps.gateway.checks import Event
from tests.apps.gateway.desk import PARTITION
from tests.apps.gateway.test_arrival import body, resumed
from tests.apps.gateway.voice_desk import MS, VoiceDesk, silence


def remember(desk: VoiceDesk) -> None:
    """Put a snapshot into the log."""
    desk.session.remember(desk.offset, 0)
    desk.pump()


def talk(desk: VoiceDesk) -> None:
    """Talk with everything in it, and a snapshot in the middle of each."""
    desk.hear()
    desk.started("i1", 100)
    desk.partial("i1", 0, "how are")
    remember(desk)
    desk.partial("i1", 0, "how are you")
    desk.stopped("i1", 900)
    remember(desk)
    desk.transcribed("i1", "how are you")
    first = desk.turns[-1]
    desk.delta(first, 0, "one two three")
    desk.spoken(first, 0, 400, (3, 200), (7, 400))
    remember(desk)
    desk.finish(first, length=13)
    remember(desk)
    desk.spoken(first, 300, 200, (7, 400), (13, 900))
    desk.started("i2", 2000)
    item = desk.told.events[-1]["response"]["output"][0]["id"]
    desk.send("conversation.item.truncate", event_id="cut", item_id=item, content_index=0, audio_end_ms=300)
    desk.stopped("i2", 2900)
    desk.transcribed("i2", "", problem=Problem("overloaded", "too much"))
    desk.hear(300)
    desk.started("i4", 3000)
    desk.partial("i4", 0, "cut")
    desk.send("input_audio_buffer.commit", event_id="early")
    remember(desk)
    desk.transcribed(desk.sounds[-1].item, "cut short")
    desk.listen(turn_detection=None)
    desk.hear(300)
    committed = desk.send("input_audio_buffer.commit", event_id="commit")[0]["item_id"]
    desk.send("response.create", event_id="later", response={"metadata": {"k": "v"}})
    desk.send("response.create", event_id="aside", response={"conversation": "none"})
    remember(desk)
    desk.transcribed(committed, "by hand")
    second = desk.turns[-1]
    desk.delta(second, 0, "well")
    desk.spoken(second, 0, 100, (4, 400))
    desk.hear(10)
    desk.listen(turn_detection={"type": "server_vad"})
    desk.started("i3", 4000)
    remember(desk)
    desk.delta(second, 4, " then")
    desk.finish(second, status="cancelled", reason="cancelled", length=9)
    desk.stopped("i3", 4900)


def test_the_same_bytes_at_every_cut() -> None:
    """Wherever the client left, it gets exactly the events after that, ids included, as without a break."""
    desk = VoiceDesk()
    talk(desk)
    told = list(desk.told.events)

    for cut, event in enumerate(told):
        cursor = desk.session.account.stamp.read(event["event_id"])
        for first in (0, cursor.base):
            there = resumed(desk, event["event_id"], first=first)
            assert body(there.missed) == body(told[cut + 1 :])
            assert [one.view for one in there.session.conversation] == [one.view for one in desk.session.conversation]


def arrived(desk: VoiceDesk, first: int = 0, audio: tuple[str, int] | None = None) -> tuple[VoiceDesk, Sequence[Event]]:
    """Return the session at another gateway, which read from `first` on, and what its client is told there first.

    `audio` is what that gateway has found of its audio in the log.
    """
    coming = resumed(desk, desk.told.events[-1]["event_id"], first=first, audio=audio)
    there = VoiceDesk.__new__(VoiceDesk)
    there.__dict__.update(desk.__dict__)
    there.session, there.sounds, there.turns, there.cancels = coming.session, [], [], []
    there.offset = desk.offset + 1
    there.pump()
    return there, coming.missed


def test_the_stream_goes_on_with_another_owner() -> None:
    """So a turn of speech in progress is not cut: nobody ends the stream, and the next audio follows the last."""
    desk = VoiceDesk()
    desk.hear(5000)
    desk.started("i1", 4000)

    there, missed = arrived(desk)
    there.hear(100)
    stopped = there.stopped("i1", 5700)

    assert [(one.turn, one.then, one.at) for one in there.sounds] == [(desk.stream, "", 5000 * MS)]
    assert stopped[0]["type"] == "input_audio_buffer.speech_stopped"
    assert missed[-1]["resumed"] is True
    assert missed[-1]["input_audio_ms"] == 5000


def test_what_stands_in_the_log_counts_and_not_what_was_told_of_it() -> None:
    """More had arrived when the former owner died, or less; but never less than what was already heard in it."""
    for heard, expected in ((7300, 7300), (4700, 4700), (3000, 4200)):
        desk = VoiceDesk()
        desk.hear(5000)
        desk.started("i1", 1000)
        desk.stopped("i1", 4200)

        there, missed = arrived(desk, audio=(desk.stream, heard * MS))
        there.hear(100)

        assert missed[-1]["input_audio_ms"] == expected
        assert [(one.turn, one.at) for one in there.sounds] == [(desk.stream, expected * MS)]


def test_a_stream_that_was_ended_is_not_gone_on_with() -> None:
    """The next audio begins another one, at the position where that ended."""
    desk = VoiceDesk()
    desk.hear(5000)

    there, missed = arrived(desk, audio=("", 5100 * MS))
    there.hear(100)

    assert missed[-1]["input_audio_ms"] == 5100
    assert (there.stream != desk.stream, there.sounds[-1].at) == (True, 5100 * MS)


def test_what_was_not_committed_is_with_another_owner() -> None:
    """It is enough for a turn, although nothing more came."""
    desk = VoiceDesk()
    desk.listen(turn_detection=None)
    desk.hear(1000)
    desk.send("input_audio_buffer.commit")
    desk.hear(500)
    remember(desk)

    there, _ = arrived(desk, first=desk.offset, audio=(desk.stream, 1500 * MS))

    assert there.send("input_audio_buffer.commit")[0]["type"] == "input_audio_buffer.committed"
    assert there.send("input_audio_buffer.commit")[0]["type"] == "error"


def test_what_was_wanted_is_begun_by_the_new_owner() -> None:
    """The former owner died with a transcript just read: the answer to it is begun by who comes after it."""
    desk = VoiceDesk()
    desk.hear()
    desk.started("i1", 0)
    desk.stopped("i1", 900)
    desk.offset += 1
    heard = Transcribed("sess_1", desk.stream, "i1", "hello", samples=1)
    desk.log.append((Position(PARTITION, desk.offset), heard))

    there, _ = arrived(desk)

    assert [[u.text for u in turn.conversation] for turn in there.turns] == [["hello"]]


def test_what_waits_is_in_the_snapshot() -> None:
    """A response that waits, the stream and its position are known to who reads no more than the last snapshot."""
    desk = VoiceDesk()
    desk.listen(turn_detection=None)
    desk.hear(6000)
    item = desk.send("input_audio_buffer.commit")[0]["item_id"]
    desk.send("response.create", response={"instructions": "Rhyme."})
    remember(desk)

    there, missed = arrived(desk, first=desk.offset)
    there.read(Transcribed("sess_1", desk.stream, item, "hello"))

    assert missed[-1]["input_audio_ms"] == 6000
    assert [[u.text for u in turn.conversation] for turn in there.turns] == [["Rhyme.", "hello"]]


def test_an_answer_from_before_the_move_is_cut() -> None:
    """Where its words are is in the snapshot."""
    desk = VoiceDesk()
    item = desk.speak(desk.ask("hi"), "one two three", ms=900)["output"][0]["id"]
    remember(desk)

    there, _ = arrived(desk, first=desk.offset)
    (told,) = there.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=350)

    assert told["transcript"] == "one"


def test_what_was_begun_is_not_begun_again() -> None:
    """Nor is it, when the former owner had begun it."""
    desk = VoiceDesk()
    desk.utter("i1", "hello")

    there, _ = arrived(desk)

    assert there.turns == []


def test_an_interruption_is_carried_through() -> None:
    """An answer that was interrupted before the move is given up by the new owner, too, and ends as interrupted."""
    desk = VoiceDesk()
    turn = desk.ask("hi")
    desk.delta(turn, 0, "one two")
    desk.hear()
    remember(desk)
    desk.started("i1", 0)

    there, _ = arrived(desk)
    told = there.finish(turn, status="cancelled", reason="cancelled", length=7)

    assert [cancel.turn for cancel in there.cancels] == [turn.turn]
    assert told[-1]["response"]["status_details"]["reason"] == "turn_detected"


def test_an_answer_goes_on_to_be_spoken() -> None:
    """Audio that was heard before the move is not heard again, and words are cut by marks from before it."""
    desk = VoiceDesk()
    turn = desk.ask("hi")
    desk.delta(turn, 0, "one two three")
    desk.finish(turn, length=13)
    desk.spoken(turn, 0, 500, (3, 200), (7, 500))
    remember(desk)

    there, _ = arrived(desk)
    shown = there.read(Spoken(turn.session, turn.turn, 0, silence(600), ((13, 600 * MS),), last=True))
    item = shown[-1]["response"]["output"][0]["id"]
    cut = there.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=550)

    assert len(json.dumps(shown[0]["delta"])) == len(json.dumps("A" * (100 * MS * 2 * 4 // 3)))
    assert cut[0]["transcript"] == "one two"


def test_positions_go_on_after_a_lost_connection() -> None:
    """The log knows how far the audio of a client came that has left, so that its next owner counts on from there."""
    desk = VoiceDesk()
    desk.hear()
    desk.hear()
    desk.session.left()
    desk.pump()

    there, _ = arrived(desk)
    there.hear(100)

    assert there.sounds[-1].at == 2000 * MS


def test_the_voice_stays_after_a_move() -> None:
    """What was heard is remembered by whoever has the session."""
    desk = VoiceDesk()
    desk.speak(desk.ask("hi"))

    there, _ = arrived(desk)
    told = there.send("session.update", session={"audio": {"output": {"voice": "other"}}})

    assert told[-1]["error"]["code"] == "cannot_update_voice"


def test_who_has_lost_a_session_says_nothing_of_its_audio() -> None:
    """Its stream is the new owner's."""
    desk = VoiceDesk()
    desk.hear()
    coming = resumed(desk, desk.told.events[-1]["event_id"])

    desk.read(Claimed("sess_1", "", coming.session.owner))
    desk.later(1000)

    assert desk.session.lost
    assert [one.then for one in desk.sounds] == [""]
    assert desk.session.voicing.microphone.stream == ""
    assert coming.session.voicing.microphone.stream == desk.stream


def test_a_snapshot_is_small() -> None:
    """However much is talked, what must be kept of it stays small."""
    desk = VoiceDesk(max_conversation_items=10)
    for number in range(30):
        desk.utter(f"i{number}", "and another thing", number * 3000)
        desk.speak(desk.turns[-1], "yes of course " * 10, ms=4000)

    tracks = desk.session.turns.tracks.values()
    ears = desk.session.account.ears
    assert sum(len(track.marks) for track in tracks) < 16 * 40
    assert len(msgspec.msgpack.encode(ears.state())) < 4000
    assert not ears.ended_at
