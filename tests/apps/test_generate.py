"""`penstock generate`: one prompt from the shell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from apps.generate import Answer, generate, prompt_of
from apps.parts import loaded
from apps.settings import ModelSettings
from pipeline.errors import EmptyTurn, InvalidParameter
from pipeline.messages import Sampling

DEADLINE_S = 100
QUESTION = "How much is a tent?"


def run(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """The command with these arguments and that input."""
    command = [sys.executable, "-m", "apps.cli", "generate", *arguments]
    return subprocess.run(command, input=typed, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


async def test_the_pieces_are_the_text_and_the_ids(small_model: Path) -> None:
    """What is written piece by piece is the answer's text; ids, end and figures belong to it."""
    pieces: list[str] = []
    async with loaded(ModelSettings(name=str(small_model), threads=1)) as parts:
        prompt = await prompt_of(parts, QUESTION, Sampling(seed=1, max_output_tokens=9), system="Be brief.", raw=False)
        answer = Answer(prompt)
        await generate(parts, answer, pieces.append)
    assert "".join(pieces) == answer.text
    assert len(answer.ids) == 9
    figures = answer.figures()
    assert (figures["finish"], figures["output_tokens"], figures["seed"]) == ("length", 9, 1)
    assert figures["prompt_tokens"] == len(prompt.ids)
    assert answer.steps <= 9
    assert answer.first_s is not None
    assert answer.first_s <= answer.last_s


async def test_raw_text_has_no_template(small_model: Path) -> None:
    """As it stands, the text is the prompt; nothing at all is refused."""
    async with loaded(ModelSettings(name=str(small_model), threads=1), with_engine=False) as parts:
        templated = await prompt_of(parts, QUESTION, Sampling(), system=None, raw=False)
        raw = await prompt_of(parts, QUESTION, Sampling(), system=None, raw=True)
        assert QUESTION in parts.tokenizer.decode(list(raw.ids))
        assert len(raw.ids) < len(templated.ids)
        for form in (True, False):
            with pytest.raises(EmptyTurn):
                await prompt_of(parts, "", Sampling(), system=None, raw=form)


async def test_what_cannot_be_honoured_is_refused(small_model: Path) -> None:
    """The engine's own check names the parameter."""
    async with loaded(ModelSettings(name=str(small_model), threads=1)) as parts:
        prompt = await prompt_of(parts, QUESTION, Sampling(top_p=0), system=None, raw=False)
        with pytest.raises(InvalidParameter, match="top_p"):
            await generate(parts, Answer(prompt), lambda text: None)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_the_command_says_what_the_engine_says(small_model: Path) -> None:
    """Standard input is the prompt, standard output one JSON object; figures for people go to standard error."""
    options = ("--model", str(small_model), "--seed", "3", "-t", "0.8", "-n", "8", "--set", "model.threads=1")
    told = run("--json", "--stats", *options, typed=QUESTION)
    assert told.returncode == 0, told.stderr
    async with loaded(ModelSettings(name=str(small_model), threads=1)) as parts:
        sampling = Sampling(seed=3, temperature=0.8, max_output_tokens=8)
        answer = Answer(await prompt_of(parts, QUESTION, sampling, system=None, raw=False))
        await generate(parts, answer, lambda text: None)
    said = json.loads(told.stdout)
    assert (said["text"], said["ids"]) == (answer.text, answer.ids)
    assert "tokens per step" in told.stderr


@pytest.mark.slow
def test_two_shapes_for_one_answer_are_refused(tmp_path: Path) -> None:
    """And a schema that is not there; each before a model is loaded."""
    both = run(QUESTION, "--schema", str(tmp_path), "--regex", "a")
    missing = run(QUESTION, "--schema", str(tmp_path / "none.json"))
    assert (both.returncode, missing.returncode) == (2, 2)
    assert "--regex" in both.stderr
    assert "none.json" in missing.stderr


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_nobody_reads_on(small_model: Path) -> None:
    """Where the reader of a pipe has left, the command ends as others do, without a word."""
    options = ["--model", str(small_model), "-n", "200", "--speculation", "0", "--set", "model.threads=1"]
    command = [sys.executable, "-m", "apps.cli", "generate", QUESTION, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, told = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 141
    assert "Traceback" not in told
