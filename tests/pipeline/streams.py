"""What the tests of long streams share: a stage that hears words in sounds, and how to talk to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from pipeline.bus import Bus
from pipeline.headers import REPLY_TO, TURN
from pipeline.messages import Message
from pipeline.stage import Settled, Stage, Stream
from pipeline.topics import AUDIO
from pipeline.voice import Sound, Transcribed
from tests.pipeline.fakes import put


class Hearing:
    """A stage for which every sound is some letters: a full stop ends a turn, which is told and settled.

    `calls` are what each call of it was given, as the letters' positions; `ended` the calls whose messages have ended.
    """

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.ended = 0

    async def __call__(self, sounds: Stream) -> Stream:
        """Tell each turn when it has ended; what is left over when the stream ends is one, too."""
        given: list[int] = []
        self.calls.append(given)
        turn: list[Sound] = []
        async for sound in sounds:
            given.append(sound.at)
            if sound.data:
                turn.append(sound)
            if sound.data.endswith(b"."):
                yield heard(turn)
                yield Settled(len(given))
                turn = []
        self.ended += 1
        if turn:
            yield heard(turn)

    def stage(self, **options: Any) -> Stage:
        """The stage for a loop."""
        return listening(self, **{"idle_s": 30.0, **options})


def listening(folding: Any, **options: Any) -> Stage:
    """An open-ended stage that reads sounds, unless `options` say otherwise."""
    return Stage("speech", AUDIO, folding=folding, last=is_end, **{"idle_s": 30.0, **options})


def is_end(sound: Message) -> bool:
    """Whether `sound` is the last of its stream."""
    return isinstance(sound, Sound) and sound.then == "end"


def heard(turn: list[Sound]) -> Transcribed:
    """What was said in a turn; its name is where it began."""
    text = b"".join(sound.data for sound in turn).decode()
    return Transcribed(turn[0].session, turn[0].turn, item=f"{turn[0].turn}@{turn[0].at}", text=text)


async def say(
    bus: Bus, letters: str, *, at: int = 0, stream: str = "audio", session: str = "s", key: str | None = None
) -> int:
    """Say `letters` one by one from position `at` on; where the next one comes."""
    sent = []
    for n, letter in enumerate(letters, at):
        value = AUDIO.encode(Sound(session, stream, at=n, data=letter.encode()))
        sent.append(await bus.publish(AUDIO.name, value, key=key or session, headers={REPLY_TO: "0", TURN: stream}))
    await asyncio.gather(*sent)
    return at + len(letters)


async def end(bus: Bus, at: int, *, stream: str = "audio", session: str = "s") -> None:
    """End the stream."""
    await put(bus, Sound(session, stream, at=at, then="end"))


def texts(messages: Iterable[Any]) -> list[str]:
    """What was said in each of the turns."""
    return [message.text for message in messages]
