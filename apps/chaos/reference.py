"""What the answers of a run must sound like: their sentences from the log, spoken once more where nothing breaks.

The same text always has the same sound, so what a client has heard must be that, sample by sample.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from apps.chaos.audit import Audit, Said, Sound
from apps.chaos.record import Answer, Call, fingerprint
from pipeline.stage import Folding
from pipeline.voice import RATE, Sentence, Spoken


async def compare(calls: Iterable[Call], log: Audit) -> None:
    """Note in `log` how the answers of `calls` must sound, and how what was heard differs from that."""
    answers = {(call.session, name): answer for call in calls for name, answer in call.answers.items() if answer.pieces}
    if not answers:
        return
    from stages.postprocess.speak.espeak_engine import EspeakSynthesizer
    from stages.postprocess.speak.stage import SpeakStage

    async with await asyncio.to_thread(EspeakSynthesizer) as synthesizer:
        stage = SpeakStage(synthesizer, clock=lambda: 0.0, sleep=_at_once)
        for name, answer in answers.items():
            log.sounds[name] = differing(answer, await _sound_of(stage, log.said[name]))


async def _at_once(_: float) -> None:
    """Not to wait makes no difference to what is said."""


async def _sound_of(stage: Folding, said: Said) -> bytes:
    async def sentences() -> AsyncGenerator[Sentence, None]:
        for number in sorted(said.sentences):
            yield said.sentences[number]

    async with aclosing(stage(sentences())) as spoken:
        return b"".join([piece.data async for piece in spoken if isinstance(piece, Spoken)])


def differing(answer: Answer, right: bytes) -> Sound:
    """How what was heard of `answer` differs from its `right` sound."""
    samples = len(right) // 2
    known = fingerprint()
    before = 0
    for piece in answer.pieces:
        known.update(right[2 * before : 2 * piece.end])
        if piece.end > samples or known.digest() != piece.digest:
            where = f"between {_at(before)} and {_at(piece.end)} it is another sound"
            return Sound(samples, f"{_at(answer.samples)} were heard instead of {_at(samples)}, and {where}")
        before = piece.end
    lost = f"{_at(answer.samples)} were heard instead of {_at(samples)}" if answer.samples != samples else ""
    return Sound(samples, lost)


def _at(samples: int) -> str:
    return f"{samples / RATE:.3f} s"
