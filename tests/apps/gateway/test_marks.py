"""A client is told with the audio of an answer which of its words it is."""

from __future__ import annotations

from tests.apps.gateway.voice_desk import VoiceDesk


def test_audio_comes_with_the_places_of_its_words() -> None:
    """So many characters of the transcript are spoken at so many milliseconds; audio without marks says nothing."""
    desk = VoiceDesk()
    turn = desk.ask("count")
    desk.delta(turn, 0, "one two")
    first = desk.spoken(turn, 0, 300, (3, 250))
    second = desk.spoken(turn, 300, 300, (7, 590))
    third = desk.spoken(turn, 600, 100)

    sounds = [event for event in first + second + third if event["type"] == "response.output_audio.delta"]
    assert [event.get("marks") for event in sounds] == [[[3, 250]], [[7, 590]], None]
