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
from apps.bench.voice_curve import AUDIO, BUDGETS, FINAL, WIDTHS, Load, Width, budgets, curve, many, verdict
from apps.bench.voice_exchange import all_talked
from apps.bench.voice_ours import SILENCE_MS, session
from apps.bench.voice_peers import LEAD_S, Contestant, installed, plain_loop, whisperlivekit
from apps.bench.voice_plot import plot
from apps.bench.voice_report import (
    OURS,
    Exchanges,
    Take,
    accuracy_table,
    aims,
    aims_table,
    as_data,
    curve_table,
    exchanged,
    latency_table,
    lines,
    listened,
)
from apps.bench.voice_score import Heard, Rate, error_rate
from apps.settings import AsrSettings
from apps.speech import BUNDLED

BY_HAND = "penstock, push-to-talk"
UNAWARE = "penstock, unaware"
PLAIN_UNAWARE = "re-transcribing loop, unaware"
WARM = 1
CURE = "`make peer` gets it"
MORE = ("gateway.max_sessions_per_client=1000", "gateway.audio.address_ahead_s=1000000")
"""All clients are one address here."""
LEGEND = (
    "first partial: from the beginning of the speech; partial lag: from a word's",
    "end to its standing there for good; retracted: words that did not stay",
    f"finalisation: from the end of the speech; penstock waits for {SILENCE_MS} ms of",
    "silence first, whisperlivekit's last change counts; for push-to-talk and the",
    "re-transcribing loop (faster-whisper's defaults, each second) the client says",
    "where the speech ends",
    "whisperlivekit: its localagreement policy on faster-whisper, with its defaults",
    "unaware: computation-unaware, computing takes no time; all others are",
    "computation-aware, in real time",
    f"curve, at p95: finals within {BUDGETS[FINAL]:g} ms of the silence, first audio within",
    f"{BUDGETS[AUDIO]:g} ms of the speech, silence included; the clients share the machine,",
    "and each session speaks one clip after another",
)
"""In lines of less than eighty characters."""
WHAT = {FINAL: "final transcript after the silence", AUDIO: "first audio after the speech"}


class Plan(NamedTuple):
    """How much: `clips` one by one, `exchanges` with an interruption, `load` and `widths` of the curve."""

    clips: int = 32
    exchanges: int = 20
    load: Load = Load()
    widths: tuple[int, ...] = WIDTHS
    unseen: bool = False
    folder: Path | None = None
    peers: bool = True
    threads: int = 1


class Ours:
    """Our gateway as a contestant, with a session for each clip, as the others have; its turns may end by hand."""

    def __init__(self, name: str, url: str, silence_ms: int | None = SILENCE_MS) -> None:
        self.name = name
        self._url, self._silence_ms = url, silence_ms

    async def hear(self, clip: Clip) -> Heard:
        """See `Contestant`."""
        async with session(self._url, silence_ms=self._silence_ms) as mine:
            await asyncio.sleep(LEAD_S)
            return await mine.hear(clip)


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
            first = _one(takes[OURS], exchanges) if exchanges else None
            return Found(takes, reference, exchanges, await curve(ours.url, clips, plan.load, plan.widths, first))


def _one(takes: Sequence[Take], exchanges: Exchanges) -> Width:
    """The curve's first point: what was measured of one session alone."""
    return Width(
        1, spread(1000 * (heard.final - clip.speech_ends) - SILENCE_MS for clip, heard in takes), exchanges.audio
    )


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
            Ours(OURS, url),
            Ours(BY_HAND, url, None),
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
        return exchanged(await all_talked(url, many(clips, plan.exchanges), 1, step, interrupted=True))


def _tell(plan: Plan, asr: AsrSettings, found: Found, path: Path | None) -> None:
    ways = {name: listened(takes) for name, takes in found.takes.items()}
    reached = aims(ways, found.whole, found.exchanges, SILENCE_MS)
    missing = [] if installed() or not plan.peers else [f"whisperlivekit was not measured: {CURE}"]
    voices = "voices that it was not trained on" if plan.unseen else "voices that it was trained on"
    spoken = "recordings of a folder" if plan.folder else f"held-out sentences, synthesised, by {voices}"
    named = Path(asr.model).name if asr.model else "the bundled demo model"
    result: dict[str, Any] = {
        "bench": "voice",
        "plan": {**as_data(plan), "folder": plan.folder is not None},
        "model": named,
        "spoken": spoken,
        "silence_ms": SILENCE_MS,
        "missing": missing,
        "whole_file": as_data(found.whole),
        "listening": as_data(ways),
        "exchanges": as_data(found.exchanges),
        "curve": as_data(found.widths),
        "budgets": as_data(budgets(found.widths)),
        "aims": [{**as_data(aim), "met": aim.met} for aim in reached],
    }
    tables = [
        accuracy_table(ways, found.whole, "one session at a time"),
        latency_table(ways),
        *([_exchanges_table(found.exchanges)] if found.exchanges else []),
        *([curve_table(found.widths)] if found.widths else []),
        aims_table(reached),
    ]
    broken = [verdict(WHAT[name], one) for name, one in budgets(found.widths).items()]
    told(result, tables, [*broken, f"{named}; {spoken}; {plan.threads} thread(s)", *LEGEND, *missing], path)


def _exchanges_table(exchanges: Exchanges) -> Table:
    rows = {name: one for name, one in exchanges._asdict().items() if one is not None}
    return table("exchanges, from the end of the speech, or the onset of what interrupts", rows, unit="ms")
