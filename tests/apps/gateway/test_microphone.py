"""What a client sends of audio, on its way to the speech stage."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from typing import Any

import pytest

from apps.gateway.outgoing import Outgoing
from pipeline.headers import DEADLINE, REPLY_TO, TENANT, TURN
from pipeline.messages import Finished, Told
from pipeline.topics import AUDIO
from pipeline.voice import RATE
from tests.apps.gateway.desk import PARTITION, error_of
from tests.apps.gateway.voice_desk import MS, VoiceDesk, silence, sound


def append(desk: VoiceDesk, data: bytes) -> list[Any]:
    """Send so many bytes."""
    return desk.send("input_audio_buffer.append", audio=b64encode(data).decode())


def test_audio_is_one_stream_with_positions() -> None:
    """Each piece says where it begins and names whom to answer, and has no deadline."""
    desk = VoiceDesk()
    for ms in (20, 40, 60):
        assert desk.hear(ms) == []

    assert [one.at for one in desk.sounds] == [0, 20 * MS, 60 * MS]
    assert len({one.turn for one in desk.sounds}) == 1
    assert desk.sound_headers[REPLY_TO] == str(PARTITION)
    assert desk.sound_headers[TURN] == desk.stream
    assert TENANT in desk.sound_headers
    assert DEADLINE not in desk.sound_headers


def test_a_large_piece_is_cut() -> None:
    """No record has more than 64 KiB of audio, and nothing is lost or moved."""
    desk = VoiceDesk()
    data = bytes(range(256)) * 800

    append(desk, data)

    assert b"".join(one.data for one in desk.sounds) == data
    assert max(len(one.data) for one in desk.sounds) == 65_536
    assert [one.at for one in desk.sounds] == [n * 32_768 for n in range(4)]


def test_half_a_sample_waits_for_its_other_half() -> None:
    """An odd number of bytes of 16-bit audio loses nothing: the last one goes with the next piece."""
    desk = VoiceDesk()
    for piece in (b"\x01\x02\x03", b"\x04\x05", b"\x06"):
        append(desk, piece)

    assert b"".join(one.data for one in desk.sounds) == b"\x01\x02\x03\x04\x05\x06"
    assert [one.at for one in desk.sounds] == [0, 1, 2]


def test_g711_has_a_byte_for_three_positions() -> None:
    """Positions count at 24 kHz, whatever the encoding; any number of bytes is whole."""
    desk = VoiceDesk()
    desk.listen(format={"type": "audio/pcmu"})
    append(desk, b"\xff" * 801)
    append(desk, b"\xff" * 799)

    assert [one.at for one in desk.sounds] == [0, 2403]
    assert desk.send("input_audio_buffer.commit")[0]["type"] == "input_audio_buffer.committed"
    assert desk.sounds[-1].at == 4800


def test_a_change_of_encoding_keeps_the_position() -> None:
    """The stream goes on; half a sample of the other encoding is no sample of this one."""
    desk = VoiceDesk()
    append(desk, silence(100) + b"\x01")
    desk.listen(format={"type": "audio/pcma"})
    append(desk, b"\xd5" * 80)

    assert [(one.at, one.how.encoding, len(one.data)) for one in desk.sounds] == [
        (0, "pcm16", 4800),
        (2400, "pcma", 80),
    ]


@pytest.mark.parametrize("audio", ["A", "AAA", "AA==AA", "A-_A", "\n", "äöü=", "AAAA "])
def test_what_is_not_base64_is_refused(audio: str) -> None:
    """By name, and nothing of it is heard."""
    desk = VoiceDesk()

    error = error_of(desk.send("input_audio_buffer.append", audio=audio, event_id="mine"))

    assert (error["code"], error["param"], error["event_id"]) == ("invalid_value", "audio", "mine")
    assert desk.sounds == []


def test_nothing_is_not_too_little() -> None:
    """An append without audio is taken, and does nothing."""
    desk = VoiceDesk()

    assert append(desk, b"") == []
    assert desk.sounds == []


def test_too_much_at_once_is_refused() -> None:
    """More than an event may have is refused in words; what may just be is taken."""
    desk = VoiceDesk({"max_append_bytes": 3000})

    assert error_of(append(desk, bytes(3002)))["code"] == "message_too_large"
    assert append(desk, bytes(3000)) == []
    assert sum(len(one.data) for one in desk.sounds) == 3000


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_audio", "audio": "AA"}, "item.content[0].audio"),
        ({"type": "input_audio", "audio": b64encode(bytes(4801)).decode()}, "item.content[0].audio"),
        ({"type": "input_audio", "audio": b64encode(bytes(4798)).decode()}, "item.content[0].audio"),
    ],
)
def test_bad_audio_in_an_item_is_refused(part: dict[str, str], param: str) -> None:
    """No base64, half a sample, or next to nothing: the item is not added."""
    desk = VoiceDesk()

    error = error_of(desk.send("conversation.item.create", item={"type": "message", "role": "user", "content": [part]}))

    assert error["param"] == param
    assert len(desk.session.conversation) == 0
    assert desk.sounds == []


def test_without_a_speech_stage_audio_is_refused() -> None:
    """Where nobody hears, all audio is refused in words."""
    desk = VoiceDesk({"hears": False}, transcribe=False)

    assert error_of(desk.hear())["code"] == "audio_not_supported"


def test_the_buffer_of_what_is_played_is_the_clients() -> None:
    """`output_audio_buffer.clear` is refused, and says for whom it is."""
    assert "WebRTC" in error_of(VoiceDesk().send("output_audio_buffer.clear"))["message"]


def test_a_turn_by_hand_is_not_endless() -> None:
    """What the client does not commit in time is an item all the same, before the speech stage forgets it."""
    desk = VoiceDesk({"ahead_s": 1e6})
    desk.listen(turn_detection=None)

    told = [event for _ in range(250) for event in desk.hear(1000)]
    last = desk.send("input_audio_buffer.commit")

    assert [event["item_id"] for event in told if event["type"] == "input_audio_buffer.committed"] == [
        one.item for one in desk.sounds if one.then == "commit"
    ][:1]
    assert [one.at // (1000 * MS) for one in desk.sounds if one.then == "commit"] == [240, 250]
    assert last[0]["previous_item_id"] == told[0]["item_id"]


def test_audio_in_an_item_has_an_end() -> None:
    """More than the speech stage keeps of a turn is refused, and the length is told."""
    desk = VoiceDesk()
    desk.listen(format={"type": "audio/pcmu"})
    part = {"type": "input_audio", "audio": b64encode(b"\xff" * 8000 * 241).decode()}

    error = error_of(desk.send("conversation.item.create", item={"type": "message", "role": "user", "content": [part]}))

    assert "241.000 s" in error["message"]


# -- its pace


def test_what_comes_too_fast_waits() -> None:
    """A file goes on at once up to `ahead_s`, then so many times faster than it is heard; all of it arrives."""
    desk = VoiceDesk({"speed": 10.0, "ahead_s": 2.0})
    now = time.monotonic()

    append(desk, silence(10_000))
    waits = desk.session.flow(now)
    before = len(desk.sounds)
    while (wait := desk.session.flow(now)) > 0:
        now += wait
    desk.pump()

    assert 0 < waits < 1
    assert before < len(desk.sounds)
    assert sum(len(one.data) for one in desk.sounds) == len(silence(10_000))
    assert 0.6 < now - time.monotonic() < 1.0


def test_what_would_wait_too_long_is_not_taken() -> None:
    """Who has sent minutes too much is told when to come back; what was refused counts nowhere, in an item neither."""
    desk = VoiceDesk({"speed": 10.0, "ahead_s": 60.0})
    desk.listen(format={"type": "audio/pcmu"})
    hour = b"\xff" * 8000 * 1200
    assert append(desk, hour) == []
    part = {"type": "input_audio", "audio": b64encode(hour[:8000]).decode()}

    error = error_of(append(desk, hour[:8000]))
    other = error_of(desk.send("conversation.item.create", item={"type": "message", "role": "user", "content": [part]}))
    desk.send("input_audio_buffer.commit")
    in_debt = error_of(append(desk, hour[:8000]))

    assert {one["code"] for one in (error, other, in_debt)} == {"rate_limit_exceeded"}
    assert error["retry_after"] == pytest.approx(114 - 90, abs=3)
    assert desk.session.voicing.microphone.position == 1200 * RATE
    assert len(desk.session.conversation) == 1


def test_a_commit_does_not_overtake_its_audio() -> None:
    """What waits goes before the commit that comes behind it."""
    desk = VoiceDesk({"speed": 1.0, "ahead_s": 1.0})
    desk.listen(turn_detection=None)
    append(desk, silence(5000))

    desk.send("input_audio_buffer.commit")

    assert [one.then for one in desk.sounds[-2:]] == ["", "commit"]
    assert desk.sounds[-1].at == 5000 * MS


# -- how long a stream is


def test_who_takes_over_goes_on_at_a_whole_millisecond() -> None:
    """The client is told whole ones, and sends on from there: it is at the same place as we are."""
    desk, there = VoiceDesk(), VoiceDesk()
    append(desk, silence(500) + bytes(2 * 7))

    there.session.take_over(desk.session)
    append(there, silence(20))
    desk.session.abandon()

    assert (there.sounds[-1].turn, there.sounds[-1].at) == (desk.stream, 500 * MS)
    assert desk.pump() == []
    assert [one.then for one in desk.sounds] == [""]


def test_a_stream_ends_when_nothing_comes() -> None:
    """So that speech that has begun is known to its end; what comes later is another stream, at the next position."""
    desk = VoiceDesk({"idle_s": 10.0})
    desk.hear(500)
    first = desk.stream

    desk.later(9)
    assert desk.sounds[-1].then == ""
    desk.later(11)
    desk.hear(100)

    assert [one.then for one in desk.sounds if one.turn == first] == ["", "end"]
    assert (desk.sounds[-1].at, desk.stream != first) == (500 * MS, True)
    assert desk.metrics.voice.sessions._value.get() == 1


def test_what_waits_for_its_commit_is_kept() -> None:
    """Who commits by hand may take time: the stream is kept open as long as there is something to commit."""
    desk = VoiceDesk({"idle_s": 10.0})
    desk.listen(turn_detection=None)
    desk.hear(500)

    for seconds in (6, 12, 18, 24, 30):
        desk.later(seconds)
    desk.send("input_audio_buffer.commit")

    assert len({one.turn for one in desk.sounds}) == 1
    assert desk.sounds[-1].then == "commit"
    assert not any(one.data for one in desk.sounds[1:])


def test_the_log_is_told_that_a_stream_is_kept() -> None:
    """Who takes the session over looks for its audio near the time of the last note, which may not be long ago."""
    desk = VoiceDesk({"idle_s": 10.0})
    desk.listen(turn_detection=None)
    desk.hear(500)
    noted_at = desk.session.account.ears.noted_at

    desk.later(6)

    assert desk.session.account.ears.noted_at > noted_at
    assert desk.session.account.ears.position == 500 * MS


def test_who_has_gone_is_not_listened_to() -> None:
    """When a session is given up its stream ends, and is counted no more."""
    desk = VoiceDesk()
    desk.hear()

    desk.session.abandon()
    desk.pump()

    assert desk.sounds[-1].then == "end"
    assert (desk.session.account.ears.stream, desk.session.account.ears.position) == ("", 1000 * MS)
    assert desk.metrics.voice.sessions._value.get() == 0


def first_record(desk: VoiceDesk) -> Outgoing:
    """Return the first record that some audio makes."""
    desk.session.receive(desk.codec.receive(json.dumps({"type": "input_audio_buffer.append", "audio": sound(100)})))
    return desk.session.outgoing()[0]


def test_audio_that_does_not_reach_the_log_has_to_be_sent_again() -> None:
    """Nothing more goes into its stream, which must have no hole; it is neither failed nor ended."""
    desk = VoiceDesk()
    lost = first_record(desk)

    assert desk.session.undelivered(lost, TimeoutError("no"))
    assert not desk.session.undelivered(lost, TimeoutError("no"))  # one that was behind it

    assert desk.session.voicing.microphone.stream == ""
    assert desk.pump() == []
    assert desk.metrics.voice.sessions._value.get() == 0


def test_audio_of_an_item_that_does_not_reach_the_log_has_no_transcript() -> None:
    """Its client cannot know that it should send it again."""
    desk = VoiceDesk()
    content = [{"type": "input_audio", "audio": sound(200)}]
    item = {"id": "item_9", "type": "message", "role": "user", "content": content}
    create = {"type": "conversation.item.create", "item": item}
    desk.session.receive(desk.codec.receive(json.dumps(create)))
    (lost,) = [out for out in desk.session.outgoing() if out.topic is AUDIO][:1]

    assert not desk.session.undelivered(lost, TimeoutError("no"))
    (failed,) = desk.session.outgoing()

    assert isinstance(failed.message, Finished)
    assert failed.message.turn == lost.message.turn
    assert failed.message.problem is not None
    assert failed.message.problem.code == "log_unavailable"


def test_the_log_knows_how_far_the_audio_has_come() -> None:
    """At the beginning of a stream and every few seconds, so that another gateway can go on counting."""
    desk = VoiceDesk()
    before = time.time()
    for _ in range(60):
        desk.hear(200)

    notes = [message for _, message in desk.log if isinstance(message, Told) and message.audio]

    assert notes[0].audio == (desk.stream, 200 * MS)
    assert len(notes) == 6
    assert before <= notes[0].heard_at <= notes[-1].heard_at <= time.time()
    assert desk.session.account.ears.position >= 10 * RATE


def test_the_log_is_told_of_no_audio_that_still_waits() -> None:
    """A minute came at once and goes on little by little: what is told stands there already."""
    desk = VoiceDesk(audio={"speed": 10.0, "ahead_s": 1.0})
    desk.hear(60_000)
    there = desk.sounds[-1].at + len(desk.sounds[-1].data) // 2

    assert desk.session.account.ears.position <= there < desk.session.voicing.microphone.position
    for step in range(1, 40):
        desk.session.flow(time.monotonic() + step / 10)
        desk.pump()
    assert desk.session.account.ears.position > there
