"""`penstock talk`: sound files as the speaker, the whole exchange on the terminal, the reply in a WAV file."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Group
from rich.live import Live
from rich.text import Text

from apps.unstoppable import in_thread
from apps.voice.audio import whole, write_wav
from apps.voice.client import BYTES_PER_SAMPLE, Call, Microphone
from apps.voice.display import Output
from apps.voice.exchange import SETTLED_S, Exchange, ExchangeFailed, NothingHeard, Reply
from apps.voice.transcript import Utterance
from pipeline.voice import RATE

HEARD_S, ANSWER_S = 10.0, 120.0
"""How long is waited for word that something was heard, and for the whole answer."""
MS = 1000
FRAMES_PER_S = 8


class Script(NamedTuple):
    """What is said: `spoken` files one after another, then lines of `text`; `barge_in` interrupts the first reply.

    It does so when the reply has been played for `after_s` seconds.
    """

    spoken: tuple[str, ...]
    text: tuple[str, ...] = ()
    barge_in: str = ""
    after_s: float = 1.0


class Shown:
    """The exchange on a terminal, growing; elsewhere its lines when they are complete."""

    def __init__(self) -> None:
        self._console = Output(highlight=False, soft_wrap=True)
        self._notes = (
            self._console if self._console.is_terminal else Output(stderr=True, highlight=False, soft_wrap=True)
        )
        self._live: Live | None = None
        self._written: set[str] = set()

    def told(self, exchange: Exchange) -> None:
        """Something has changed."""
        for one in exchange.transcript:
            if one.final and one.item not in self._written:
                self._written.add(one.item)
                self._said(one)
        for reply in exchange.replies:
            if reply.status and reply.id not in self._written:
                self._written.add(reply.id)
                self._answered(reply)
        if self._live is not None:
            growing = [Text(f"> {one.text.strip()}…", "dim cyan") for one in exchange.transcript.open]
            growing += [Text(f"{one.text}…", "dim") for one in exchange.replies if not one.status]
            self._live.update(Group(*growing))

    def _said(self, one: Utterance) -> None:
        self.wrote(one.text.strip() or f"({one.problem or 'no words'})")

    def wrote(self, text: str) -> None:
        """What the user says."""
        self._console.print(f"> {text}", style="cyan", markup=False)

    def _answered(self, reply: Reply) -> None:
        self._console.print(reply.text.strip(), markup=False)
        steps = [f"{name} {seconds * MS:.0f} ms" for name, seconds in reply.latencies().items()]
        if steps:
            self.note(f"after the end of speech: {', '.join(steps)}")
        if reply.status != "completed":
            self.note(f"{reply.status}: {reply.why or 'no reason given'}")

    def note(self, text: str) -> None:
        """A remark."""
        self._notes.print(f"  ({text})", style="dim", markup=False)

    @contextmanager
    def live(self) -> Generator[None, None, None]:
        """Draw meanwhile, if this is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, refresh_per_second=FRAMES_PER_S, transient=True) as self._live:
            yield
        self._live = None


class Talk:
    """One exchange: what `script` says, in the sounds of its files."""

    def __init__(self, script: Script, sounds: Sequence[bytes], barge_in: bytes) -> None:
        self._script = script
        self._sounds, self._barge_in = sounds, barge_in
        self._shown = Shown()
        self._exchange: Exchange | None = None

    @classmethod
    async def prepared(cls, script: Script) -> Talk:
        """Read all files.

        Raises:
            UnreadableAudio: a file is no sound.
        """
        sounds = [await in_thread(whole, name) for name in script.spoken]
        return cls(script, sounds, await in_thread(whole, script.barge_in) if script.barge_in else b"")

    async def hold(self, call: Call) -> None:
        """Hold the exchange.

        Raises:
            NothingHeard: what was said was no speech.
            ExchangeFailed: an answer failed, or did not come.
            CallLost: the connection is gone.
        """
        exchange = self._exchange = Exchange(call, Microphone(), lambda _event: self._shown.told(exchange))
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(one) for one in (exchange.microphone.run(call), exchange.run())]
            with self._shown.live():
                await self._said(exchange)
                for line in self._script.text:
                    await self._written(exchange, call, line)
            for task in running:
                task.cancel()

    async def _said(self, exchange: Exchange) -> None:
        for number, (name, sound) in enumerate(zip(self._script.spoken, self._sounds, strict=True)):
            await _spoken(exchange, name, sound)
            if self._barge_in and not number:
                await self._interrupt(exchange)
            await _answered(exchange, name)

    async def _interrupt(self, exchange: Exchange) -> None:
        """Speak into the reply, once enough of it has been played."""
        reply, script, microphone = exchange.replies[-1], self._script, exchange.microphone

        def playing() -> bool:
            return reply.audio is not None and microphone.now >= reply.audio + script.after_s

        if not await exchange.until(lambda: playing() or bool(reply.status), ANSWER_S):
            raise ExchangeFailed(f"no sound of the reply came within {ANSWER_S:g} s")
        await exchange.until(playing, script.after_s)
        if reply.over(microphone.now):
            self._shown.note(f"the reply was over before {script.barge_in} could interrupt it")
        before, said = len(exchange.replies), exchange.say(self._barge_in)
        patience = microphone.when(said.end) - microphone.now + HEARD_S
        await exchange.until(lambda: len(exchange.replies) > before, patience)
        if reply.silenced is not None:
            after = reply.silenced - microphone.when(said.start)
            self._shown.note(f"silenced {after * MS:.0f} ms after {script.barge_in} began")

    async def _written(self, exchange: Exchange, call: Call, line: str) -> None:
        """Say a line in writing; the reply is spoken."""
        before = len(exchange.replies)
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": line}]}
        self._shown.wrote(line)
        await call.send({"type": "conversation.item.create", "item": item})
        await call.send({"type": "response.create"})
        if not await exchange.until(lambda: len(exchange.replies) > before, ANSWER_S):
            raise ExchangeFailed(f"no reply to {line!r} has begun after {ANSWER_S:g} s")
        await _answered(exchange, repr(line))

    @property
    def _replies(self) -> Sequence[Reply]:
        return self._exchange.replies if self._exchange else ()

    def write_reply(self, path: Path) -> None:
        """Write what was heard of all replies into a WAV file, if there is any.

        Raises:
            UnwritableFile: it cannot be written there.
        """
        if heard := b"".join(bytes(one.sound[: _bytes(one.cut)]) for one in self._replies):
            write_wav(path, heard)
            self._shown.note(f"{len(heard) / BYTES_PER_SAMPLE / RATE:.1f} s of reply in {path}")
        elif self._replies:
            self._shown.note(f"nothing for {path}: the reply was text alone, as of a gateway that does not speak")

    def figures(self) -> list[dict[str, Any]]:
        """Each reply for programs: its text, how it ended, and seconds from the end of the speech to each step."""
        return [
            {
                "reply": one.text,
                "status": one.status,
                "seconds": one.samples / RATE,
                "heard_seconds": (one.samples if one.cut is None else one.cut) / RATE,
                "latencies_s": {name: round(value, 4) for name, value in one.latencies().items()},
            }
            for one in self._replies
        ]


def _bytes(samples: int | None) -> int | None:
    return None if samples is None else BYTES_PER_SAMPLE * samples


async def _spoken(exchange: Exchange, name: str, sound: bytes) -> None:
    """Say it, and wait until a reply to it has begun."""
    before, said = len(exchange.replies), exchange.say(sound)
    patience = exchange.microphone.when(said.end) - exchange.microphone.now + HEARD_S
    if not await exchange.until(lambda: len(exchange.replies) > before, patience):
        heard = exchange.transcript.text
        why = f"the transcript is {heard!r}" if heard else "nothing in it was taken for speech"
        raise NothingHeard(f"{HEARD_S:g} s after the end of {name} there was no reply; {why}")


async def _answered(exchange: Exchange, name: str) -> None:
    """Wait until nothing is under way, and what was said has been played."""

    def over() -> bool:
        played = max((one.played_until for one in exchange.replies if one.cut is None), default=0.0)
        quiet_since = max(exchange.last_heard, played, exchange.microphone.quiet_since)
        return not exchange.busy and exchange.microphone.now >= quiet_since + SETTLED_S

    if not await exchange.until(over, ANSWER_S):
        raise ExchangeFailed(f"the answer to {name} has not ended after {ANSWER_S:g} s")
    for reply in exchange.replies:
        if reply.status == "failed":
            raise ExchangeFailed(reply.why or "the answer failed")
