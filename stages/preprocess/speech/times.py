"""How late the words of a stream are, told to the metrics."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

from pipeline.messages import Message
from pipeline.voice import SpeechStopped, Transcribed, Transcript
from stages.preprocess.speech.metrics import SpeechMetrics

CAME = 1024
"""Sounds of which it is known when they came."""

AWAITED = 64
"""Turns of which it is known when they ended."""


class Times:
    """When the sounds of one stream came, and when its turns ended."""

    def __init__(self, metrics: SpeechMetrics) -> None:
        self._metrics = metrics
        self._came: deque[tuple[int, float]] = deque(maxlen=CAME)
        self._ended: OrderedDict[str, float] = OrderedDict()

    def heard(self, end: int, seconds: float, took: float) -> None:
        """Sound up to position `end`, so many `seconds` of it, is there, and took so long to be judged."""
        self._came.append((end, time.monotonic()))
        self._metrics.heard.inc(seconds)
        self._metrics.vad.observe(took)

    def ended(self, item: str) -> None:
        """Turn `item` has ended now."""
        self._ended[item] = time.monotonic()
        if len(self._ended) > AWAITED:
            self._ended.popitem(last=False)

    def noted(self, told: Iterable[Message]) -> Iterator[Message]:
        """What is `told`, passed on."""
        for message in told:
            if isinstance(message, SpeechStopped):
                self.ended(message.item)
            elif isinstance(message, Transcript):
                self._transcript(message)
            elif isinstance(message, Transcribed):
                self._transcribed(message)
            yield message

    def _transcript(self, message: Transcript) -> None:
        if message.item in self._ended or not self._came:
            return
        place = bisect_left(self._came, (message.words[-1].end,))
        if place < len(self._came):
            self._metrics.lag.observe(time.monotonic() - self._came[place][1])

    def _transcribed(self, message: Transcribed) -> None:
        outcome = message.problem.code if message.problem else "text" if message.text else "nothing"
        self._metrics.turns.labels(outcome).inc()
        if (ended := self._ended.pop(message.item, None)) is not None:
            self._metrics.final.observe(time.monotonic() - ended)
