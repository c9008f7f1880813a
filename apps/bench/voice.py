"""Transcription and spoken exchanges at the real gateway, in real time, beside what one would use instead.

Every client is open loop: sound is sent by the clock, whatever comes back, and times count from when a sample was
spoken. Our server, a plain loop and whisperlivekit are programs of their own with the same model and threads; they hear
each clip in turns, while the others are idle. What never came counts with the time that was waited for it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from apps.bench.report import measuring, spread, table, told
from apps.bench.served import served
from apps.bench.voice_alone import alone, plain, whole, with_ends
from apps.bench.voice_clips import Clip, demo_clips, folder_clips
from apps.bench.voice_exchange import all_talked
from apps.bench.voice_ours import SILENCE_MS, Session, all_heard, session
from apps.bench.voice_peers import Contestant, installed, plain_loop, whisperlivekit
from apps.bench.voice_plot import plot
from apps.bench.voice_report import (
    AUDIO_MS,
    FINAL_MS,
    OURS,
    Exchanges,
    Take,
    Width,
    aims,
    aims_table,
    as_data,
    bearable,
    curve_table,
    exchanged,
    held,
    lines,
    listened,
    listening_table,
)
from apps.bench.voice_score import Rate, error_rate
from apps.settings import AsrSettings
from apps.speech import BUNDLED

BY_HAND = "penstock, button"
UNAWARE = "penstock, unaware"
PLAIN_UNAWARE = "plain loop, unaware"
WIDTHS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
WARM = 1
CURE = "`make peer` gets it"
MORE = ("gateway.max_sessions_per_client=1000", "gateway.audio.address_ahead_s=1000000")
"""All clients are one address here."""
LEGEND = (
    f"final: from the end of the speech, where ours waits for {SILENCE_MS} ms of silence first",
    "button, plain loop: the client says where the speech ends",
    "first: from the beginning of the speech; lag: from a word's end to its standing there for good",
    "plain loop: faster-whisper's defaults each second; whisperlivekit: its localagreement on faster-whisper",
    "whisperlivekit places words by their times, which a model as small as the demo's tells coarsely",
    "unaware: computing takes no time; back: words that were shown and did not stay",
)


class Plan(NamedTuple):
    """How much: `clips` clips one by one, `exchanges` exchanges with an interruption, `each` clips of a session."""

    clips: int = 40
    exchanges: int = 20
    each: int = 3
    widths: tuple[int, ...] = WIDTHS
    unseen: bool = False
    folder: Path | None = None
    peers: bool = True
    threads: int = 1


class Ours:
    """A session of ours as a contestant."""

    def __init__(self, name: str, mine: Session) -> None:
        self.name = name
        self.hear = mine.hear


class Found(NamedTuple):
    """All that was measured."""

    takes: dict[str, list[Take]]
    whole: Rate
    exchanges: Exchanges | None
    widths: list[Width]


def voice(options: Sequence[str], asr: AsrSettings, plan: Plan, *, path: Path | None, svg: Path | None) -> None:
    """Measure, and tell; `options` are those of the server.

    Raises:
        SettingsError: the folder has no recordings with texts.
        ModelLoadError: the model cannot be loaded.
        NotReady: a server does not come up.
        NotHeard: the gateway refuses.
    """
    model = str(Path(asr.model).expanduser()) if asr.model else str(BUNDLED)
    clips = folder_clips(plan.folder, plan.clips) if plan.folder else demo_clips(plan.clips, unseen=plan.unseen)
    found = asyncio.run(_measured(options, model, asr, plan, clips))
    _tell(plan, asr, found, path)
    if svg is not None and found.widths:
        svg.parent.mkdir(parents=True, exist_ok=True)
        svg.write_text(plot(lines(found.widths), "Voice under load"), encoding="utf-8")


async def _measured(options: Sequence[str], model: str, asr: AsrSettings, plan: Plan, clips: Sequence[Clip]) -> Found:
    takes, reference = await _alone(model, asr, plan, clips)
    clips = [clip for clip, _ in takes[UNAWARE]]
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        sets = [part for one in MORE for part in ("--set", one)]
        async with served([*options, *sets], Path(name)) as ours:
            takes |= await _contest(ours.url, model, plan, clips, Path(name))
            exchanges = await _exchanges(ours.url, plan, clips) if plan.exchanges else None
            return Found(takes, reference, exchanges, await _curve(ours.url, plan, clips))


async def _alone(model: str, asr: AsrSettings, plan: Plan, clips: Sequence[Clip]) -> tuple[dict[str, list[Take]], Rate]:
    """What is heard without pipe and clock, with the ends of the clips' words; and the errors in whole files."""
    from faster_whisper import WhisperModel

    stock = WhisperModel(model, device="cpu", cpu_threads=plan.threads)
    takes: dict[str, list[Take]] = {UNAWARE: [], PLAIN_UNAWARE: []}
    said: list[str] = []
    with measuring("without a clock", len(clips)) as step:
        async with alone(asr) as ours:
            for clip in (with_ends(stock, one) for one in clips):
                said.append(whole(stock, clip))
                takes[UNAWARE].append((clip, await ours.hear(clip)))
                takes[PLAIN_UNAWARE].append((clip, plain(stock, clip)))
                step()
    return takes, error_rate([clip.text for clip in clips], said)


async def _contest(url: str, model: str, plan: Plan, clips: Sequence[Clip], folder: Path) -> dict[str, list[Take]]:
    """Each clip by each contestant, in an order that goes round; the first clip is said once more before, uncounted."""
    async with _contestants(url, model, plan, folder) as all_of_them:
        takes: dict[str, list[Take]] = {one.name: [] for one in all_of_them}
        with measuring("clip by clip", (len(clips) + WARM) * len(all_of_them)) as step:
            for number, clip in enumerate([*clips[:WARM], *clips]):
                first = number % len(all_of_them)
                for one in (*all_of_them[first:], *all_of_them[:first]):
                    heard = await one.hear(clip)
                    if number >= WARM:
                        takes[one.name].append((clip, heard))
                    step()
    return takes


@asynccontextmanager
async def _contestants(url: str, model: str, plan: Plan, folder: Path) -> AsyncGenerator[list[Contestant], None]:
    async with AsyncExitStack() as stack:
        made: list[Contestant] = [
            Ours(OURS, await stack.enter_async_context(session(url))),
            Ours(BY_HAND, await stack.enter_async_context(session(url, silence_ms=None))),
        ]
        if plan.peers:
            made.append(await stack.enter_async_context(plain_loop(model, plan.threads, folder)))
        if plan.peers and installed():
            made.append(await stack.enter_async_context(whisperlivekit(model, plan.threads, folder)))
        yield made


async def _exchanges(url: str, plan: Plan, clips: Sequence[Clip]) -> Exchanges:
    """Exchanges one by one, each interrupted."""
    with measuring("exchanges", plan.exchanges + WARM) as step:
        await all_talked(url, clips[:WARM], 1, step)
        return exchanged(await all_talked(url, _many(clips, plan.exchanges), 1, step, interrupted=True))


async def _curve(url: str, plan: Plan, clips: Sequence[Clip]) -> list[Width]:
    """More and more sessions at once, until both budgets are broken by far."""
    made: list[Width] = []
    with measuring("more and more sessions", 2 * len(plan.widths)) as step:
        for sessions in plan.widths:
            before = made[-1] if made else None
            final = audio = None
            if before is None or bearable(before.final, FINAL_MS):
                takes = await all_heard(url, _many(clips, sessions * plan.each), sessions, _nothing)
                final = spread(1000 * (heard.final - clip.speech_ends) - SILENCE_MS for clip, heard in takes)
            step()
            if before is None or bearable(before.audio, AUDIO_MS):
                steps = await all_talked(url, _many(clips, sessions * plan.each), sessions, _nothing)
                audio = spread(1000 * one.audio for one in steps)
            step()
            if final is None and audio is None:
                break
            made.append(Width(sessions, final, audio))
    return made


def _nothing() -> None:
    """No bar moves."""


def _many(clips: Sequence[Clip], count: int) -> list[Clip]:
    """So many clips, again and again the same where there are too few."""
    return [clips[at % len(clips)] for at in range(count)]


def _tell(plan: Plan, asr: AsrSettings, found: Found, path: Path | None) -> None:
    ways = {name: listened(takes) for name, takes in found.takes.items()}
    reached = aims(ways, found.whole, found.exchanges, SILENCE_MS)
    missing = [] if installed() or not plan.peers else [f"whisperlivekit was not measured: {CURE}"]
    voices = "voices that it was not trained on" if plan.unseen else "voices that it was trained on"
    spoken = "recordings of a folder" if plan.folder else f"held-out sentences, synthesised, by {voices}"
    named = Path(asr.model).name if asr.model else "the bundled demo model"
    result: dict[str, Any] = {
        "bench": "voice",
        "plan": {**plan._asdict(), "folder": plan.folder is not None},
        "model": named,
        "spoken": spoken,
        "silence_ms": SILENCE_MS,
        "missing": missing,
        "whole_file": as_data(found.whole),
        "listening": as_data(ways),
        "exchanges": as_data(found.exchanges),
        "curve": as_data(found.widths),
        "held": held(found.widths),
        "aims": [{**as_data(aim), "met": aim.met} for aim in reached],
    }
    tables = [
        listening_table(ways, found.whole, f"one session, {found.whole.words} words (p50 in ms)"),
        *([_exchanges_table(found.exchanges)] if found.exchanges else []),
        *([curve_table(found.widths)] if found.widths else []),
        aims_table(reached),
    ]
    told(result, tables, [f"{named}; {spoken}; {plan.threads} thread(s)", *LEGEND, *missing], path)


def _exchanges_table(exchanges: Exchanges) -> Table:
    rows = {name: one for name, one in exchanges._asdict().items() if one is not None}
    return table("exchanges, from the end of the speech, or the onset of what interrupts", rows, unit="ms")
