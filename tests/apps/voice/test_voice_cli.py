"""`penstock transcribe` and `penstock talk` as a user gives them, at a gateway of known hearing."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from apps.cli.commands import app
from apps.voice.audio import UnreadableAudio, UnwritableFile, whole
from pipeline.errors import SettingsError
from tests.apps.voice.fake import Gateway
from tests.apps.voice.sounds import silence, tone, wav

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
SPOKEN = tone(0.2) + silence(0.4)


async def penstock(*arguments: str | Path) -> Result:
    """Run the command beside the test's own event loop."""
    return await asyncio.to_thread(CliRunner().invoke, app, [str(one) for one in arguments], env={"COLUMNS": "150"})


@asynccontextmanager
async def gateway(*words: str) -> AsyncIterator[str]:
    """A gateway that hears these words."""
    async with Gateway(*words).serving() as url:
        yield url


async def test_in_a_pipe_each_utterance_is_a_line(tmp_path: Path) -> None:
    """And nothing else is written."""
    path = wav(tmp_path / "a.wav", 2 * SPOKEN)
    async with gateway("how much is it", "thank you") as url:
        told = await penstock("transcribe", path, "--url", url)
    assert (told.exit_code, told.stdout) == (0, "how much is it\nthank you\n")


async def test_captions_go_into_files_or_to_the_output(tmp_path: Path) -> None:
    """What goes to the output takes the place of the text."""
    path, written = wav(tmp_path / "a.wav", SPOKEN), tmp_path / "a.vtt"
    async with gateway("how much is it") as url:
        told = await penstock("transcribe", path, "--url", url, "--json", "-", "--vtt", written)
    assert told.exit_code == 0
    assert json.loads(told.stdout)["text"] == "how much is it"
    assert written.read_text().startswith("WEBVTT\n\n00:00:00.0")


async def test_two_files_do_not_share_the_output(tmp_path: Path) -> None:
    """And a wrong setting is told before anything is sent."""
    told = await penstock("transcribe", wav(tmp_path / "a.wav", SPOKEN), "--srt", "-", "--json", "-")
    assert isinstance(told.exception, SettingsError)
    assert "--srt goes to the output already" in str(told.exception)


async def test_the_model_is_the_gateways_where_there_is_one(tmp_path: Path) -> None:
    """`--asr` would have no effect there."""
    told = await penstock("transcribe", wav(tmp_path / "a.wav", SPOKEN), "--url", "ws://x", "--asr", "tiny")
    assert isinstance(told.exception, SettingsError)


async def test_errors_name_the_file(tmp_path: Path) -> None:
    """That which cannot be read, and that which cannot be written."""
    missing = await penstock("transcribe", tmp_path / "none.wav", "--url", "ws://x")
    assert isinstance(missing.exception, UnreadableAudio)
    async with gateway("yes") as url:
        nowhere = tmp_path / "none" / "a.srt"
        told = await penstock("transcribe", wav(tmp_path / "a.wav", SPOKEN), "--url", url, "--srt", nowhere)
    assert isinstance(told.exception, UnwritableFile)
    assert "a.srt" in str(told.exception)
    assert told.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["transcribe", "--srt", "-"], ["transcribe"], ["talk"]])
async def test_nobody_reads_the_output(tmp_path: Path, arguments: list[str]) -> None:
    """Then the command ends without a word, with the status that shells give to that."""
    path = wav(tmp_path / "a.wav", 2 * SPOKEN)
    async with gateway("how much is it", "thank you") as url:
        command = [sys.executable, "-m", "apps.cli", arguments[0], str(path), "--url", url, *arguments[1:]]
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "wb") as nowhere:
            program = await create_subprocess_exec(*command, stdout=nowhere, stderr=PIPE, cwd=tmp_path, env=ENVIRONMENT)
            async with asyncio.timeout(30):
                _, complaints = await program.communicate()
    assert (program.returncode, complaints) == (141, b"")


async def test_an_exchange(tmp_path: Path) -> None:
    """Transcript and reply on the output, the sound in one file, the latencies in another."""
    path = wav(tmp_path / "a.wav", SPOKEN)
    async with gateway("how much is it") as url:
        told = await penstock(
            "talk", path, "--url", url, "-o", tmp_path / "r.wav", "--json", tmp_path / "r.json", "--text", "and now"
        )
    assert told.exit_code == 0, told.exception
    assert told.stdout == "> how much is it\nIt is ninety euros.\n> and now\nIt is ninety euros.\n"
    assert whole(str(tmp_path / "r.wav")) == 2 * tone(0.4)
    first, second = json.loads((tmp_path / "r.json").read_text())
    assert [*first["latencies_s"]] == ["final", "first token", "first audio"]
    assert second["status"] == "completed"


@pytest.mark.parametrize("arguments", [["talk"], ["talk", "--text", "hello", "--interrupt-with", "x.wav"]])
async def test_an_exchange_that_says_nothing(arguments: list[str]) -> None:
    """There must be something to say, and something to interrupt."""
    told = await penstock(*arguments)
    assert isinstance(told.exception, SettingsError)
