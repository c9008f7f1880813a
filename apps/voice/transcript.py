"""What was said, put together from the events of a Realtime session. Knows no socket and no terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import inf
from typing import Any, NamedTuple

Event = dict[str, Any]

TRANSCRIPTION = "conversation.item.input_audio_transcription."


class Word(NamedTuple):
    """A word, with the white space before it, from `start` to `end` in seconds of the session's audio."""

    text: str
    start: float
    end: float


@dataclass
class Utterance:
    """One turn of the speaker's, from `start` to `end` in seconds of the session's audio, as far as they are known.

    `final` says that its text will not change any more, `problem` why there is none.
    """

    item: str
    start: float | None = None
    end: float | None = None
    text: str = ""
    words: list[Word] = field(default_factory=list)
    language: str = ""
    committed: bool = False
    final: bool = False
    problem: str = ""

    @property
    def by_hand(self) -> bool:
        """Whether it is what the client has committed, and was not found by its sound."""
        return self.committed and self.start is None

    @property
    def begins(self) -> float:
        """When it begins, as far as that is known; what nobody knows anything of comes last."""
        return self.start if self.start is not None else self.words[0].start if self.words else inf

    def timed(self) -> list[Word]:
        """The words with their times; where nobody told those, evenly over the utterance by their length."""
        if self.words or not self.text:
            return list(self.words)
        start = self.start or 0.0
        return spread_out(self.text, start, max(start, self.end if self.end is not None else start))


class Transcript:
    """All utterances of a session, in their order; `seconds` is how long its audio was, once that is known."""

    def __init__(self) -> None:
        self._utterances: dict[str, Utterance] = {}
        self.seconds: float | None = None

    def __iter__(self) -> Iterator[Utterance]:
        return iter(sorted(self._utterances.values(), key=lambda one: one.begins))

    @property
    def text(self) -> str:
        """Everything that was said, as one line."""
        return " ".join(text for one in self if (text := one.text.strip()))

    @property
    def language(self) -> str:
        """What was spoken, if it was told."""
        return next((one.language for one in self if one.language), "")

    @property
    def open(self) -> list[Utterance]:
        """Those that may still change."""
        return [one for one in self if not one.final]

    @property
    def heard_until(self) -> float:
        """Seconds of audio up to which something is known."""
        known = [time for one in self for time in (one.start, one.end, *(word.end for word in one.words[-1:]))]
        return max((time for time in known if time is not None), default=0.0)

    def take(self, event: Mapping[str, Any]) -> Utterance | None:
        """Note what `event` says; the utterance that it is about, if it is about one."""
        kind, item = event["type"], event.get("item_id")
        if kind.startswith("input_audio_buffer.") and item:
            return self._bounded(kind.removeprefix("input_audio_buffer."), self._of(item), event)
        if kind.startswith(TRANSCRIPTION) and item:
            one = _transcribed(kind.removeprefix(TRANSCRIPTION), self._of(item), event)
            return self._absorbed(one) if one.by_hand and one.final else one
        return None

    def _of(self, item: str) -> Utterance:
        return self._utterances.setdefault(item, Utterance(item))

    def _absorbed(self, one: Utterance) -> Utterance:
        """A commit ends the turn that was going on, and takes its place."""
        for item, other in list(self._utterances.items()):
            if not other.committed:
                one.start, one.words = other.start, one.words or other.words
                del self._utterances[item]
        return one

    def _bounded(self, kind: str, one: Utterance, event: Mapping[str, Any]) -> Utterance:
        if kind == "speech_started":
            one.start = event["audio_start_ms"] / 1000
        elif kind == "speech_stopped":
            one.end = event["audio_end_ms"] / 1000
        elif kind == "committed":
            one.committed = True
        return one


def _transcribed(kind: str, one: Utterance, event: Mapping[str, Any]) -> Utterance:
    if kind == "delta":
        one.text += event.get("delta") or ""
        one.words += words_of(event)
    elif kind == "completed":
        one.text, one.final = event["transcript"], True
        one.words = words_of(event) or one.words
        one.language = event.get("language") or ""
    elif kind == "failed":
        one.problem, one.final = event["error"].get("message") or "it could not be transcribed", True
    return one


def words_of(event: Mapping[str, Any]) -> list[Word]:
    """The words with times that an event carries, in the form of OpenAI's `verbose_json`."""
    return [Word(one["word"], one["start"], one["end"]) for one in event.get("words") or ()]


def spread_out(text: str, start: float, end: float) -> list[Word]:
    """The words of `text` with times from `start` to `end`, in proportion to their characters."""
    words = text.split()
    each = (end - start) / max(1, sum(len(word) for word in words))
    ends = accumulate((each * len(word) for word in words), initial=start)
    return [Word(f" {word}", *span) for word, span in zip(words, pairwise(ends), strict=True)]
