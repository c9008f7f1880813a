"""Transcripts as files: SubRip (.srt), WebVTT (.vtt) and JSON like OpenAI's `verbose_json`. Knows no client.

Captions follow what subtitling has agreed on: two lines of 42 characters, seven seconds at most, and a new one where
the speaker pauses.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from apps.voice.transcript import Transcript, Utterance, Word

LINE, LINES = 42, 2
LONGEST_S, SHORTEST_S = 7.0, 0.001
PAUSE_S = 1.5
MS = 1000


class Cue(NamedTuple):
    """What is shown from `start` to `end`, in milliseconds."""

    start: int
    end: int
    lines: tuple[str, ...]


def cues(transcript: Transcript) -> list[Cue]:
    """The captions of a transcript: one after another, none before the other has ended, and none empty."""
    made: list[Cue] = []
    before = 0
    for utterance in transcript:
        for words in _groups(utterance.timed()):
            start = max(before, round(words[0].start * MS))
            before = max(start + round(SHORTEST_S * MS), round(words[-1].end * MS))
            made.append(Cue(start, before, tuple(_lines(words))))
    return made


def _groups(words: Sequence[Word]) -> Iterator[list[Word]]:
    """The words of one caption after the other."""
    group: list[Word] = []
    for word in words:
        if not word.text.strip():
            continue
        if group and not _fits(group, word):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _fits(group: Sequence[Word], word: Word) -> bool:
    paused = word.start - group[-1].end > PAUSE_S
    return not paused and word.end - group[0].start <= LONGEST_S and len(_lines([*group, word])) <= LINES


def _lines(words: Sequence[Word]) -> list[str]:
    return textwrap.wrap(_text(words), LINE, break_long_words=False, break_on_hyphens=False)


def _text(words: Sequence[Word]) -> str:
    return " ".join("".join(word.text for word in words).split())


def srt(transcript: Transcript) -> str:
    """The transcript as SubRip."""
    blocks = [
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n{_shown(cue)}\n"
        for number, cue in enumerate(cues(transcript), 1)
    ]
    return "\n".join(blocks)


def vtt(transcript: Transcript) -> str:
    """The transcript as WebVTT."""
    blocks = [
        f"{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n{escape(_shown(cue), quote=False)}\n"
        for cue in cues(transcript)
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def _shown(cue: Cue) -> str:
    return "\n".join(cue.lines).replace("-->", "→")


def _time(ms: int, point: str) -> str:
    seconds, rest = divmod(ms, MS)
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}{point}{rest:03}"


def as_json(transcript: Transcript) -> str:
    """The transcript for programs: text, language, duration in seconds, segments, and in each its words."""
    told = [one for one in transcript if one.final and (one.text.strip() or one.problem)]
    segments = [_segment(number, one) for number, one in enumerate(told)]
    document = {
        "task": "transcribe",
        "language": transcript.language or None,
        "duration": transcript.seconds,
        "text": transcript.text,
        "segments": segments,
    }
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _segment(number: int, one: Utterance) -> dict[str, object]:
    words = one.timed()
    start = one.start if one.start is not None else words[0].start if words else 0.0
    end = one.end if one.end is not None else words[-1].end if words else start
    told = {"problem": one.problem} if one.problem else {}
    return {
        "id": number,
        "start": round(start, 3),
        "end": round(end, 3),
        "text": one.text.strip(),
        "words": [
            {"word": word.text.strip(), "start": round(word.start, 3), "end": round(word.end, 3)} for word in words
        ],
        **told,
    }
