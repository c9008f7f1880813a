"""`penstock transcribe` and `penstock talk`: sound files through the pipe, from the shell."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apps.cli.options import Asr, Config, Draft, Model, Sets, given
from apps.cli.pipe import readers_may_go, unwritable
from apps.cli.running import quiet, settings_of
from pipeline.errors import SettingsError

if TYPE_CHECKING:
    from apps.settings import Settings
    from apps.voice.talk import Script
    from apps.voice.transcript import Transcript

STDOUT = Path("-")
FAILED = 1

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="A gateway that runs, ws://HOST:PORT; it sets the pace (gateway.audio.speed).",
        show_default="none: all is here",
    ),
]
Key = Annotated[str | None, typer.Option("--key", help="API key, where the gateway wants one.")]
Language = Annotated[
    str, typer.Option("--language", metavar="CODE", help="What is spoken, such as en.", show_default="found out")
]
Raw = Annotated[
    int | None,
    typer.Option("--raw", min=8000, max=192_000, metavar="RATE", help="It is bare 16-bit mono samples at this rate."),
]


def transcribe(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="Sound in any usual format; - is the standard input.")],
    url: Url = None,
    key: Key = None,
    asr: Asr = None,
    language: Language = "",
    realtime: Annotated[
        bool, typer.Option("--realtime", help="As fast as it was spoken, not as fast as it goes.")
    ] = False,
    raw: Raw = None,
    srt: Annotated[
        Path | None, typer.Option("--srt", help="Write SubRip captions to this file; - is the output.")
    ] = None,
    vtt: Annotated[Path | None, typer.Option("--vtt", help="The same as WebVTT.")] = None,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="The same as JSON, with the times of all words.")
    ] = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Transcribe a recording, and show the words as they come.

    On a terminal words appear in grey while they may change; in a pipe each utterance is a line.
    """
    settings = settings_of(config, given(sets, asr=asr, url=url, key=key))
    _check_asr(asr, url)
    files = {"--srt": srt, "--vtt": vtt, "--json": as_json}
    if len(to_stdout := [name for name, path in files.items() if path == STDOUT]) > 1:
        raise SettingsError(to_stdout[1], f"{to_stdout[0]} goes to the output already; name a file for one of them")
    _check_written(srt, vtt, as_json)
    quiet()
    with readers_may_go():
        asyncio.run(
            _transcribe(
                settings,
                file,
                url is not None,
                lambda transcript: _write(transcript, srt=srt, vtt=vtt, as_json=as_json),
                language=language,
                realtime=realtime,
                raw=raw,
                text=not to_stdout,
            )
        )


async def _transcribe(
    settings: Settings,
    file: str,
    elsewhere: bool,
    write: Callable[[Transcript], None],
    *,
    language: str,
    realtime: bool,
    raw: int | None,
    text: bool,
) -> None:
    from apps.voice.audio import opened
    from apps.voice.client import TRANSCRIPTION, call
    from apps.voice.display import Display
    from apps.voice.here import transcriber
    from apps.voice.transcribe import Job, session_of

    async with AsyncExitStack() as stack:
        recording = stack.enter_context(opened(file, raw=raw))
        url = settings.chat.url if elsewhere else await stack.enter_async_context(transcriber(settings))
        key = settings.chat.key.reveal() if elsewhere else ""
        line = await stack.enter_async_context(call(url, session_of(language), key=key, intent=TRANSCRIPTION))
        job = Job(line)
        display = Display(job.transcript, seconds=recording.seconds, text=text)
        try:
            with display.live():
                await job.run(recording, display.changed, display.sent, realtime=realtime)
        finally:
            write(job.transcript)


def _write(transcript: Transcript, *, srt: Path | None, vtt: Path | None, as_json: Path | None) -> None:
    """Write what was asked for; also where the transcript was cut short."""
    from apps.voice import captions

    for path, form in ((srt, captions.srt), (vtt, captions.vtt), (as_json, captions.as_json)):
        if path is not None:
            _put(path, form(transcript))


def _put(path: Path, text: str) -> None:
    from apps.voice.audio import UnwritableFile

    if path == STDOUT:
        sys.stdout.write(text)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UnwritableFile(str(path), error.strerror or str(error)) from error


def talk(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE...", help="What is said, one after the other's reply.")
    ] = None,
    url: Url = None,
    key: Key = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the reply to this WAV file.")] = None,
    interrupt_with: Annotated[
        str, typer.Option("--interrupt-with", metavar="FILE", help="Speak this into the first reply.", show_default="")
    ] = "",
    after: Annotated[
        float, typer.Option("--after", min=0.0, help="When so many seconds of that have been played.")
    ] = 1.0,
    text: Annotated[list[str] | None, typer.Option("--text", help="Then write this line. Repeatable.")] = None,
    language: Language = "",
    as_json: Annotated[Path | None, typer.Option("--json", help="Write replies and latencies to this file.")] = None,
    asr: Asr = None,
    model: Model = None,
    draft: Draft = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Hold a spoken exchange without a microphone: sound files speak in real time, the reply can go into a file."""
    from apps.voice.talk import Script

    settings = settings_of(config, given(sets, asr=asr, model=model, draft=draft, url=url, key=key))
    _check_asr(asr, url)
    if not files and not text:
        raise SettingsError("FILE", "nothing is said; name a sound file, or write a line with --text")
    if interrupt_with and not files:
        raise SettingsError("--interrupt-with", "there is no spoken FILE whose reply could be interrupted")
    _check_written(output, as_json)
    quiet()
    script = Script(tuple(files or ()), tuple(text or ()), interrupt_with, after)
    with readers_may_go():
        asyncio.run(_talk(settings, script, url is not None, language=language, output=output, as_json=as_json))


async def _talk(
    settings: Settings, script: Script, elsewhere: bool, *, language: str, output: Path | None, as_json: Path | None
) -> None:
    from apps.voice.client import call
    from apps.voice.exchange import session_of
    from apps.voice.here import speaker
    from apps.voice.talk import Talk

    async with AsyncExitStack() as stack:
        talk = await Talk.prepared(script)
        url = settings.chat.url if elsewhere else await stack.enter_async_context(speaker(settings))
        key = settings.chat.key.reveal() if elsewhere else ""
        model = settings.chat.model if elsewhere else ""
        line = await stack.enter_async_context(call(url, session_of(language), key=key, model=model))
        try:
            await talk.hold(line)
        finally:
            if output is not None:
                talk.write_reply(output)
            if as_json is not None:
                _put(as_json, json.dumps(talk.figures(), indent=2, ensure_ascii=False) + "\n")


def _check_written(*paths: Path | None) -> None:
    """What takes long is not to be lost at its end."""
    from apps.voice.audio import UnwritableFile

    if fault := unwritable(path for path in paths if path != STDOUT):
        raise UnwritableFile(str(fault[0]), fault[1])


def _check_asr(asr: str | None, url: str | None) -> None:
    if asr is not None and url is not None:
        raise SettingsError("--asr", "the gateway at --url has its own; leave one of the two out")
