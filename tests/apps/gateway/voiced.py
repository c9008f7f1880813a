"""Stand-ins for the speech and the speak stage, on the bus: they hear and speak words that are levels of sound.

A word is 200 ms of one level; what is below is silence. So what is heard shows that the audio came whole and in order.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import numpy as np

from pipeline.bus import Bus, Part
from pipeline.headers import REPLY_TO
from pipeline.messages import Delta, Message, Turn
from pipeline.topics import AUDIO, CONTROL, REPLIES
from pipeline.voice import Sound, SpeechStarted, SpeechStopped, Spoken, Transcribed, Transcript, Word
from tests.apps.gateway.harness import Answering, Running, echo, gateway
from tests.apps.gateway.voice_desk import MS, audio_settings

WORDS = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
WORD_MS = 200
LEVEL = 1000
PIECE_MS = 100


def utterance(*words: str, before_ms: int = 100, after_ms: int = 700) -> bytes:
    """Return words as sound, between two silences."""
    levels = array("h", bytes(2 * before_ms * MS))
    for word in words:
        levels.extend([WORDS.index(word) * LEVEL] * (WORD_MS * MS - MS))
        levels.extend([0] * MS)  # so that a word that comes twice is two
    levels.extend([0] * (after_ms * MS))
    return levels.tobytes()


class Stream:
    """What is known of one stream."""

    def __init__(self, first: Sound) -> None:
        self.session, self.name, self.begins = first.session, first.turn, first.at
        self.levels = array("h")
        self.done = 0
        self.item = ""
        self.told = 0

    def hear(self, sound: Sound) -> Iterator[Message]:
        """The next piece."""
        assert not sound.data or sound.at == self.begins + len(self.levels), "the audio is not in order"
        assert sound.how.encoding == "pcm16"
        self.levels.frombytes(sound.data)
        if sound.how.detection is not None:
            yield from self._detected(sound.how.detection.silence_ms)
        if sound.then == "commit":
            yield self._transcribed(sound.item)
        elif sound.then == "clear":
            self.item, self.done = "", len(self.levels)
        elif sound.then == "end" and self.item:
            yield from self._stopped()

    def _detected(self, silence_ms: int) -> Iterator[Message]:
        words = self._words()
        if not words:
            return
        if not self.item:
            self.item, self.told = f"item_{self.name}_{self.done}", 0
            yield SpeechStarted(self.session, self.name, self.item, words[0].start)
        text = "".join(word.text for word in words)
        if len(text) > self.told:
            yield Transcript(self.session, self.name, self.item, self.told, text[self.told :], tuple(words))
            self.told = len(text)
        if self.begins + len(self.levels) - words[-1].end >= silence_ms * MS:
            yield from self._stopped()

    def _stopped(self) -> Iterator[Message]:
        yield SpeechStopped(self.session, self.name, self.item, self.begins + len(self.levels))
        yield self._transcribed(self.item)

    def _transcribed(self, item: str) -> Transcribed:
        words, samples = self._words(), len(self.levels) - self.done
        self.item, self.done = "", len(self.levels)
        text = "".join(word.text for word in words)
        return Transcribed(self.session, self.name, item, text, tuple(words), samples, "en")

    def _words(self) -> list[Word]:
        """The words since the last turn, by one sample of each millisecond."""
        levels = np.frombuffer(self.levels, np.int16)[self.done :: MS]
        edges = [0, *(np.flatnonzero(np.diff(levels)) + 1).tolist(), len(levels)]
        found = list[Word]()
        for since, until in pairwise(edges):
            if until - since >= WORD_MS // 2 and (level := int(levels[since])):
                text = (" " if found else "") + WORDS[level // LEVEL]
                at = self.begins + self.done
                found.append(Word(text, at + since * MS, at + until * MS))
        return found


class Ears:
    """Stands in for the speech stage."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.sounds: list[Sound] = []
        self.streams: dict[str, Stream] = {}
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Listen until cancelled."""
        parts: dict[Part, int | None] = {
            Part(AUDIO.name, n): None for n in range(await self._bus.partitions(AUDIO.name))
        }
        async with self._bus.reader(parts) as reader:
            self.ready.set()
            while True:
                for record in await reader.poll(limit=500, timeout=1.0):
                    sound = AUDIO.decode(record.value)
                    self.sounds.append(sound)
                    stream = self.streams.setdefault(sound.turn, Stream(sound))
                    for message in stream.hear(sound):
                        await _say(self._bus, message, record.headers[REPLY_TO])


class Mouth:
    """Stands in for the speak stage: says each answer in words of 200 ms, `lead_ms` ahead of being heard."""

    def __init__(self, bus: Bus, *, lead_ms: int) -> None:
        self._bus, self._lead = bus, lead_ms
        self._speaking: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Give up what is cancelled, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks, self._bus.reader({Part(CONTROL.name, 0): None}) as reader:
            while True:
                for record in await reader.poll(limit=500, timeout=1.0):
                    if task := self._speaking.get(CONTROL.decode(record.value).turn):
                        task.cancel()

    def speak(self, turn: Turn, text: str, reply_to: str) -> None:
        """Begin to say an answer."""
        self._speaking[turn.turn] = self._tasks.create_task(self._speak(turn, text, reply_to))

    async def _speak(self, turn: Turn, text: str, reply_to: str) -> None:
        at_ms = chars = 0
        for word in text.split():
            chars = text.index(word, chars) + len(word)
            for _ in range(WORD_MS // PIECE_MS):
                marks = ((chars, (at_ms + PIECE_MS) * MS),) if at_ms % WORD_MS else ()
                data = b"\x01\x02" * (PIECE_MS * MS)
                await _say(self._bus, Spoken(turn.session, turn.turn, at_ms * MS, data, marks), reply_to)
                at_ms += PIECE_MS
                await asyncio.sleep(PIECE_MS / 1000 if at_ms > self._lead else 0)
        await _say(self._bus, Spoken(turn.session, turn.turn, at_ms * MS, last=True), reply_to)


async def _say(bus: Bus, message: Message, reply_to: str) -> None:
    value = REPLIES.encode(message)
    await (await bus.publish(REPLIES.name, value, key=message.session, headers={}, partition=int(reply_to)))


@asynccontextmanager
async def voiced(
    bus: Bus, *, answer: Answering = echo, lead_ms: int = 300, audio: Mapping[str, Any] | None = None, **changed: Any
) -> AsyncGenerator[tuple[Running, Ears], None]:
    """Run a gateway that hears and speaks, and stand-ins for all stages."""
    ears, mouth = Ears(bus), Mouth(bus, lead_ms=lead_ms)

    def speaking(turn: Turn) -> Iterable[Message]:
        said = list(answer(turn))
        if turn.voice is not None:
            text = "".join(one.text for one in said if isinstance(one, Delta))
            mouth.speak(turn, text, running.stages.headers[-1][REPLY_TO])
        return said

    async with asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(ears.run()), tasks.create_task(mouth.run())]
        await ears.ready.wait()
        async with gateway(bus=bus, answer=speaking, audio=audio_settings(**audio or {}), **changed) as running:
            yield running, ears
        for task in working:
            task.cancel()
