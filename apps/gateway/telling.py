"""What the stages say of an answer, as the client is told of it: the pieces of its text and audio, and its end.

Changes answers and the conversation only by what is read from the log. Sans-I/O.
"""

from __future__ import annotations

import time

from apps.gateway import events
from apps.gateway.answer import Answer
from apps.gateway.conversation import Talk
from apps.gateway.events import Event
from apps.gateway.metrics import GatewayMetrics
from pipeline.messages import Delta, Finished
from pipeline.voice import Spoken


class Telling:
    """Makes the events of answers in `talk`. With `metrics` it also measures how quick they are."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.metrics: GatewayMetrics | None = None

    def grow(self, answer: Answer, piece: Delta) -> list[Event]:
        """Text has come."""
        text = answer.fresh(piece)
        if not text or answer.cut:
            return []
        if self.metrics is not None and not answer.length:
            self.metrics.first_text(answer, time.monotonic())
        opening, gone = self._opened(answer)
        return [*opening, answer.grow(text), *gone]

    def sound(self, answer: Answer, piece: Spoken) -> list[Event]:
        """Audio has come."""
        if answer.cut or answer.track is None:
            return []
        made = answer.sound(piece)
        if not made:
            return []
        if answer.sounded_at is None:
            answer.sounded_at = time.monotonic()
            if self.metrics is not None:
                self.metrics.first_audio(answer, answer.sounded_at)
        opening, gone = self._opened(answer)
        return [*opening, *made, *gone]

    def end(self, answer: Answer, finished: Finished) -> list[Event]:
        """The answer is over, in the way in which `finished` says it."""
        made = [event for part in self._opened(answer) for event in part] if finished.status == "completed" else []
        item = answer.ended(finished)
        kept = answer.item_id in self._talk.told
        made += answer.close(item, kept=kept)
        gone = self._talk.finish(item) if kept else []
        return [*made, *map(events.deleted, gone), answer.done(finished, item)]

    def _opened(self, answer: Answer) -> tuple[list[Event], list[Event]]:
        """What tells that an answer begins, if that was not told, and what had to go for it."""
        if answer.opened:
            return [], []
        previous, gone = None, list[str]()
        if answer.in_conversation:
            previous, gone = self._talk.begin(answer.item("in_progress"), answer.follows)
        return answer.open(previous), [*map(events.deleted, gone)]
