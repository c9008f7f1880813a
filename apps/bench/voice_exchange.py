"""Spoken exchanges at the real gateway: how soon a reply is heard, and how soon it is silent when it is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from apps.bench.voice_clips import Clip
from apps.bench.voice_ours import PIECE, SILENCE_MS
from apps.voice.client import Call, Microphone, call
from apps.voice.exchange import SETTLED_S, Exchange, Reply, first_loud, session_of

PATIENCE_S = 5.0
"""How long is waited for a reply, and for its end when it is interrupted."""
PLAYED_S = 0.7
"""So long a reply is heard before it is interrupted."""
MOST_TOKENS = 20
"""Of a reply: about six seconds of it."""
OVER_S = 30.0
"""An exchange that is not over by then is left as it is."""


class Step(NamedTuple):
    """One exchange, in seconds from the end of the speech; a step that never came counts as `PATIENCE_S`.

    `silenced` and `cancelled` count from the first loud sample of what interrupts the reply: until the client is told
    that somebody speaks, so that it stops playing, and that the response has ended. None: the reply was over before.
    """

    final: float
    token: float
    audio: float
    silenced: float | None = None
    cancelled: float | None = None


class Talker:
    """A session that is spoken to, and its microphone.

    `lost`: a reply never came. One that comes late would be taken for the next one's, so that is for a new session.
    """

    lost = False

    def __init__(self, line: Call) -> None:
        self.exchange = Exchange(line, Microphone(piece=PIECE), lambda event: None)

    async def talk(self, clip: Clip, interruption: Clip | None = None) -> Step:
        """Say `clip`, wait for the reply, and interrupt it if there is something to do so with."""
        exchange, microphone = self.exchange, self.exchange.microphone
        before, said = len(exchange.replies), exchange.say(clip.sound)
        ended = microphone.when(said.start) + clip.speech_ends

        def answered() -> bool:
            return len(exchange.replies) > before and exchange.replies[-1].audio is not None

        there = await exchange.until(answered, ended + PATIENCE_S - microphone.now)
        self.lost = not there
        step = _step(exchange.replies[-1] if there else None, ended)
        if there and interruption is not None:
            step = await self._interrupt(exchange.replies[-1], interruption, step)
        await exchange.until(self._over, OVER_S)
        return step

    async def _interrupt(self, reply: Reply, interruption: Clip, step: Step) -> Step:
        exchange, microphone = self.exchange, self.exchange.microphone
        await asyncio.sleep(PLAYED_S)
        if reply.over(microphone.now):
            return step
        said = exchange.say(interruption.sound)
        onset = microphone.when(said.start + first_loud(interruption.sound))
        cut = await exchange.until(lambda: reply.cut is not None and reply.ended is not None, PATIENCE_S)
        if not cut and reply.status in ("completed", "incomplete"):
            return step
        late = onset + PATIENCE_S
        return step._replace(silenced=(reply.silenced or late) - onset, cancelled=(reply.ended or late) - onset)

    def _over(self) -> bool:
        exchange, microphone = self.exchange, self.exchange.microphone
        played = max((one.played_until for one in exchange.replies if one.cut is None), default=0.0)
        quiet = max(exchange.last_heard, played, microphone.quiet_since + SILENCE_MS / 1000) + SETTLED_S
        return not exchange.busy and microphone.now >= quiet


def _step(reply: Reply | None, ended: float) -> Step:
    """How long each step took; without a reply, as long as was waited for it."""
    moments = (reply.final, reply.token, reply.audio) if reply else (None, None, None)
    return Step(*(PATIENCE_S if at is None else at - ended for at in moments))


@asynccontextmanager
async def talker(url: str, silence_ms: int = SILENCE_MS) -> AsyncGenerator[Talker, None]:
    """A session that is spoken to meanwhile."""
    session = session_of("en", silence_duration_ms=silence_ms) | {"max_output_tokens": MOST_TOKENS}
    async with call(url, session) as line:
        one = Talker(line)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(work) for work in (one.exchange.microphone.run(line), one.exchange.run())]
            yield one
            for task in running:
                task.cancel()


async def all_talked(
    url: str, clips: Sequence[Clip], sessions: int, step: Callable[[], None], *, interrupted: bool = False
) -> list[Step]:
    """Exchanges with all `clips` by so many sessions at once, whose beginnings are spread over a clip's length."""
    waiting = iter(clips)
    found: list[Step] = []

    async def all_with(mine: Talker) -> None:
        for clip in waiting:
            found.append(await mine.talk(clip, clips[len(found) - 1] if interrupted else None))
            step()
            if mine.lost:
                break

    async def one(number: int) -> None:
        await asyncio.sleep(number / sessions * clips[0].seconds)
        while len(found) < len(clips):
            async with talker(url) as mine:
                await all_with(mine)
            if not mine.lost:
                return

    async with asyncio.TaskGroup() as tasks:
        for number in range(sessions):
            tasks.create_task(one(number))
    return found
