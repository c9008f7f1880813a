"""`penstock dead-letters` as a user types it: against a real broker, and where there is none."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from apps.cli.commands import app
from apps.dead_letters import survey
from apps.retry import retry_all
from pipeline.headers import RETRY
from pipeline.kafka import KafkaBus, create_topics
from pipeline.messages import Done, Finished, Prompt, Tokens, Turn, Usage, Utterance
from pipeline.stage import Stage, Stream
from pipeline.topics import DEAD_LETTERS, PROMPTS, REPLIES, ROUTE, TOKENS, TURNS
from stages.llm.stage import resume, stopped
from tests.apps.test_cli import penstock
from tests.pipeline.buses import settings_for
from tests.pipeline.fakes import make_loop, make_prompt, published, put, running, tapping
from tests.services import KafkaService

SAID = "My name is Alice Cooper and my card is 4111"


class Pipe:
    """Three stages, of which one has a bug that can be mended."""

    def __init__(self, broken: str) -> None:
        self.broken = broken

    async def text(self, turn: Turn) -> Stream:
        """A prompt for the turn."""
        if self.broken == "text":
            raise ValueError(f"no such order: {turn.conversation[-1].text}")
        yield make_prompt(turn.turn, turn.session)

    async def llm(self, prompt: Prompt) -> Stream:
        """Four tokens; the bug is in the middle of them."""
        for index in range(len(prompt.emitted), 4):
            if self.broken == "llm" and index == 2:
                raise RuntimeError("out of memory")
            yield Tokens(prompt.session, prompt.turn, index, (index,))
        yield Done(prompt.session, prompt.turn, "stop", Usage(3, 4))

    async def postprocess(self, messages: Stream) -> Stream:
        """The end of an answer, as long as it has tokens."""
        count = 0
        async for message in messages:
            if self.broken == "postprocess" and count == 1:
                raise RuntimeError("no such character")
            if isinstance(message, Done) and message.reason == "failed":
                yield Finished(message.session, message.turn, "failed", problem=message.problem)
            elif isinstance(message, Done):
                yield Finished(message.session, message.turn, "completed", length=count)
            else:
                count += len(message.ids)

    def stages(self) -> tuple[Stage, Stage, Stage]:
        """All three."""
        return (
            Stage("text", TURNS, each=self.text),
            Stage("llm", PROMPTS, each=self.llm, journal=TOKENS, resume=resume, stopped=stopped),
            Stage("postprocess", TOKENS, folding=self.postprocess, last=lambda message: isinstance(message, Done)),
        )


@asynccontextmanager
async def pipe(kafka: KafkaService, broken: str) -> AsyncGenerator[tuple[Pipe, KafkaBus, dict[str, str]], None]:
    """The stages at work on a broker, and the environment for a command that shall look at their topics."""
    settings = settings_for(kafka)
    await create_topics(settings, ROUTE, partitions=2)
    made = Pipe(broken)
    text, llm, postprocess = made.stages()
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap,
        "PENSTOCK_KAFKA_TOPIC_PREFIX": settings.topic_prefix,
        "COLUMNS": "250",
    }
    async with (
        KafkaBus(settings) as bus,
        running(make_loop(text, bus)),
        running(make_loop(llm, bus)),
        running(make_loop(postprocess, bus)),
    ):
        yield made, bus, environment


async def said(environment: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `penstock dead-letters` says."""
    return await asyncio.to_thread(lambda: penstock("dead-letters", *arguments, **environment))


@pytest.mark.parametrize("broken", ["text", "llm", "postprocess"])
async def test_what_failed_is_answered_once_it_is_mended(kafka: KafkaService, broken: str) -> None:
    """A bug in any stage costs its turn; once mended, it is answered whole, by the very processes that had failed."""
    async with (
        pipe(kafka, broken) as (stages, bus, _),
        tapping(bus, DEAD_LETTERS) as letters,
        tapping(bus, REPLIES) as replies,
    ):
        await put(bus, Turn("s", "t", (Utterance("user", SAID),)))
        await letters.record()
        first = await replies.record()
        stages.broken = "nothing"
        found = await survey(bus)
        going = retry_all(bus, found.letters, found, per_s=100.0, stop=asyncio.Event())
        outcomes = [outcome async for outcome in going]
        answer = await replies.record()

    assert [(letter.dead.stage, letter.dead.turn) for letter in found.letters] == [(broken, "t")]
    assert [(outcome.turn, outcome.problem) for outcome in outcomes] == [("t.retry-1", None)]
    ends = [REPLIES.decode(record.value) for record in (first, answer)]
    expected = [("t", "failed", None), ("t.retry-1", "completed", 4)]
    assert [(end.turn, end.status, end.length) for end in ends] == expected
    assert answer.headers[RETRY] == "1"


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_an_operator_lists_shows_and_retries(kafka: KafkaService) -> None:
    """The commands tell what failed, and nothing that a user said; a second retry wants to be meant."""
    async with (
        pipe(kafka, "text") as (stages, bus, environment),
        tapping(bus, DEAD_LETTERS) as letters,
        tapping(bus, PROMPTS) as prompts,
    ):
        await put(bus, Turn("s", "t", (Utterance("user", SAID),)))
        await letters.record()
        stages.broken = "nothing"
        listed = await said(environment, "list", "--json")
        letter = json.loads(listed.stdout)
        shown = await said(environment, "show", letter["id"])
        retried = await said(environment, "retry", letter["id"])
        (prompt,) = await prompts.take(1)
        again = await said(environment, "retry", letter["id"])
        table = await said(environment, "list", "--stage", "text")

    assert (letter["id"], letter["stage"], letter["topic"], letter["session"]) == ("0:0", "text", "turns", "s")
    assert (letter["error"], letter["reason"], letter["retried"]) == ("ValueError", "no such order: …", [])
    assert f"({len(SAID)} characters)" in shown.stdout
    assert retried.stdout == "0:0 to turns as turn t.retry-1\n"
    assert prompt.turn == "t.retry-1"
    assert (again.returncode, again.stdout) == (1, "")
    assert "0:0 was retried already; --force does it again" in again.stderr
    assert "ValueError: no such order: …" in table.stdout
    assert "1 of 1 dead letters" in table.stderr
    for told in (listed, shown, retried, table):
        assert told.returncode == 0, told.stderr
        assert "Alice" not in told.stdout + told.stderr
        assert "Traceback" not in told.stderr


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_all_that_is_new_is_retried_when_it_is_said(kafka: KafkaService) -> None:
    """More than one wants a yes; what was retried is left out; what still fails is a new letter."""
    async with pipe(kafka, "text") as (stages, bus, environment), tapping(bus, DEAD_LETTERS) as letters:
        for number in range(3):
            await put(bus, Turn("s", f"t{number}", (Utterance("user", SAID),)))
        await letters.take(3)

        unsaid = await said(environment, "retry", "--all")
        done = await said(environment, "retry", "--all", "--yes")
        again = 0
        while again < 3:  # the notes of what was retried stand among them, empty
            again += bool((await letters.record()).value)
        stages.broken = "nothing"
        async with tapping(bus, PROMPTS) as prompts:
            more = await said(environment, "retry", "--all", "--yes", "--stage", "text", "--since", "1h")
            came = [prompt.turn for prompt in await prompts.take(3)]

    assert unsaid.returncode == 1
    assert "Retry 3 dead letters: 3 from text (to turns)?" in unsaid.stderr
    assert "3 retried" in done.stderr
    assert "Left out: 3 retried already" in more.stderr
    assert sorted(came) == ["t0.retry-2", "t1.retry-2", "t2.retry-2"]


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_record_that_cannot_be_read_is_shown_in_bytes(
    kafka: KafkaService, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without the text in it, unless that is asked for; its bytes can be kept for a test."""
    garbage, file = b"\xc1\x07 Alice Cooper", tmp_path_factory.mktemp("saved") / "poison.bin"
    async with pipe(kafka, "nothing") as (_, bus, environment), tapping(bus, DEAD_LETTERS) as letters:
        await published(bus, "turns", garbage, key="s", headers={"turn": "t"})
        await letters.record()
        veiled = await said(environment, "show", "0")
        bare = await said(environment, "show", "0:0", "--text", "--save", str(file))
        missing = await said(environment, "show", "0:1")

    assert "UndecodableMessage: a record on topic 'turns' is none of its messages" in veiled.stdout
    assert "000000  c1 07 ··" in veiled.stdout
    assert "Alice" not in veiled.stdout
    assert " Alice Cooper" in bare.stdout
    assert file.read_bytes() == garbage
    assert missing.returncode == 1
    assert "there is no dead letter 0:1" in missing.stderr


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_where_there_are_no_letters_it_says_so(kafka: KafkaService) -> None:
    """An empty topic is no error; a missing one is, and names the broker, the topic and the cure."""
    settings = settings_for(kafka)
    environment = {"KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap, "PENSTOCK_KAFKA_TOPIC_PREFIX": settings.topic_prefix}
    missing = await said(environment, "list")
    await create_topics(settings, ROUTE, partitions=2)
    empty = await said(environment, "list", "--json")

    place = f"{settings.topic_prefix}dead-letters"
    assert (missing.returncode, missing.stdout) == (1, "")
    assert f"Kafka at {kafka.bootstrap} has no topic {place}; create the route" in missing.stderr
    assert (empty.returncode, empty.stdout) == (0, "")
    assert f"No dead letters ({kafka.bootstrap}, topic {place})" in empty.stderr


def test_a_broker_that_is_not_there_is_named(unused_port: int) -> None:
    """With its address and what to do, in one line."""
    options = ["--kafka", f"127.0.0.1:{unused_port}", "--set", "kafka.start_timeout_ms=500"]
    told = penstock("dead-letters", "list", *options)
    assert told.returncode == 1
    assert f"Kafka at 127.0.0.1:{unused_port} cannot be reached" in told.stderr
    assert "another address with --kafka" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["retry"], "--all"),
        (["retry", "0:1", "--all"], "--all"),
        (["retry", "0:1", "--stage", "text"], "go with --all"),
        (["retry", "x"], "looks like 0:17"),
        (["show", "x"], "looks like 0:17"),
        (["list", "--since", "yesterday"], "looks like 90s"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], why: str) -> None:
    """Before anything is asked of a broker, with what was expected."""
    told = CliRunner().invoke(app, ["dead-letters", *arguments], env={"COLUMNS": "150"})
    assert told.exit_code == 2
    assert why in told.stderr
