"""The engine that streams from an OpenAI-compatible server, against a fake one that misbehaves as it is told."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from pipeline.errors import (
    EngineUnavailable,
    InvalidParameter,
    ModelLoadError,
    Overloaded,
    PenstockError,
    PromptTooLong,
    TurnRejected,
)
from pipeline.messages import Grammar, Prompt, Utterance
from pipeline.secret import Secret
from stages.llm.remote import engine as remote
from stages.llm.remote.answer import RemoteAnswer, TextCodec
from stages.llm.remote.client import Patience, Piece, Server
from stages.llm.remote.engine import OpenAIEngine
from stages.llm.stage import Run
from stages.preprocess.text.template import ChatTemplate
from tests.fake_openai import FakeServer, Fault, serving
from tests.stages import models
from tests.stages.llm.running import DEADLINE_S, answer, begin, make_prompt

TOKENIZER = models.byte_level()
CODEC = TextCodec(TOKENIZER)
PROMPT = ChatTemplate(TOKENIZER).encode([Utterance("user", "Good morning")])
IMPATIENT = Patience(connect_s=2.0, first_s=0.5, next_s=0.3)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at a server that is away more often than in earnest."""
    monkeypatch.setattr(remote, "LOOK_AGAIN_S", 0.05)


@pytest.fixture
async def fake() -> AsyncGenerator[FakeServer, None]:
    """A server."""
    async with serving(FakeServer(tokenizer=TOKENIZER)) as running:
        yield running


@asynccontextmanager
async def engine_at(
    fake: FakeServer, *, patience: Patience | None = None, key: str = "", **options: Any
) -> AsyncGenerator[OpenAIEngine, None]:
    """The engine for that server."""
    server = Server(fake.url, key=Secret(key), patience=patience or Patience())
    async with OpenAIEngine(server, CODEC, **{"context": 512, **options}) as engine:
        yield engine


def asking(*, emitted: list[int] | None = None, **sampling: Any) -> Prompt:
    """The prompt of these tests."""
    return make_prompt(PROMPT, emitted=emitted or [], **sampling)


def text_of(ids: list[int]) -> str:
    """What a client is told of them."""
    detokenizer = CODEC.vocabulary.start()
    return "".join(map(detokenizer.feed, ids))


async def said(engine: OpenAIEngine, prompt: Prompt) -> tuple[str, str | None]:
    """The answer's text, and how it ended."""
    ids, finish, _ = await answer(engine, prompt)
    return text_of(ids), finish


async def until(condition: Any) -> None:
    """Wait until that holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a server and tells nobody
            await asyncio.sleep(0.01)


# ---- an answer ---------------------------------------------------------------------------------------------------


CUTS = {
    "characters": list,
    "all at once": lambda text: [text],
    "inside words": lambda text: [text[:3], "", text[3:10], text[10:]],
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
async def test_the_answer_is_what_the_server_says(fake: FakeServer, cut: Any) -> None:
    """However it cuts its pieces; the end and what was cached are the server's."""
    fake.answer, fake.cut = "Größe: 你好 👩‍👩‍👧!", cut
    async with engine_at(fake) as engine:
        ids, finish, cached = await answer(engine, asking())

    assert text_of(ids) == fake.answer
    assert (finish, cached) == ("stop", 3)


async def test_the_prompt_goes_out_as_text_that_becomes_its_ids(fake: FakeServer) -> None:
    """Chat template and all, streamed, with the counts asked for."""
    async with engine_at(fake) as engine:
        await said(engine, asking())

    (asked,) = fake.asked
    assert TOKENIZER.encode(asked["prompt"]) == PROMPT
    assert (asked["model"], asked["stream"]) == ("small", True)
    assert asked["stream_options"] == {"include_usage": True}


async def test_the_prompt_goes_out_as_ids_where_that_is_wanted(fake: FakeServer) -> None:
    """And the ids that the server gives back are taken as they are, but for the end token."""
    fake.owner, fake.ids_back, fake.cut = "vllm", "token_ids", lambda text: [text[:9], text[9:]]
    async with engine_at(fake, form="ids") as engine:
        ids, finish, _ = await answer(engine, asking())

    assert fake.asked[0]["prompt"] == PROMPT
    assert ids == [token for part in fake.cut(fake.answer) for token in TOKENIZER.encode(part)]
    assert finish == "stop"


async def test_the_length_is_the_servers(fake: FakeServer) -> None:
    """As many tokens as may come are asked for: what the prompt wants, and what the context leaves."""
    async with engine_at(fake, context=len(PROMPT) + 7) as engine:
        assert await said(engine, asking(max_output_tokens=5)) == ("Hello", "length")
        assert await said(engine, asking()) == ("Hello t", "length")

    assert [asked["max_tokens"] for asked in fake.asked] == [5, 7]


async def test_a_server_with_less_context_sets_the_limit(fake: FakeServer) -> None:
    """Where it says what it takes."""
    fake.context = 100
    async with engine_at(fake) as engine:
        assert engine.context == 100
        with pytest.raises(PromptTooLong, match="at most 99"):
            await said(engine, make_prompt([7] * 100))


async def test_stop_strings_end_the_answer_there(fake: FakeServer) -> None:
    """The server is told of them and says nothing of them; the answer ends all the same."""
    async with engine_at(fake) as engine:
        assert await said(engine, asking(stop=("how", "xyz"))) == ("Hello there, ", "stop")

    assert fake.asked[0]["stop"] == ["how", "xyz"]


async def test_a_server_that_heeds_no_stop_is_hung_up_on(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes behind it is not waited for. The stop string itself is cut where all answers are."""
    fake.pause_s = 0.01
    monkeypatch.setattr(fake, "_pieces", lambda body: (list(fake.answer * 20), "stop"))
    async with engine_at(fake) as engine:
        assert await said(engine, asking(stop=("how",))) == ("Hello there, how", "stop")
        await until(lambda: fake.hung_up == 1)


# ---- takeover and cuts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "ids"])
async def test_goes_on_behind_what_another_worker_said(fake: FakeServer, form: str) -> None:
    """The prompt that goes out ends with it, fewer tokens may come, and the randomness is another."""
    emitted = TOKENIZER.encode("Hello there")
    async with engine_at(fake, form=form) as engine:
        rest = await said(engine, asking(emitted=emitted, seed=7, max_output_tokens=100))
        await said(engine, asking(seed=7))

    assert rest == (", how are you today?", "stop")
    assert fake.asked[0]["max_tokens"] == 100 - len(emitted)
    assert fake.asked[0]["seed"] != fake.asked[1]["seed"] == 7


@pytest.mark.parametrize(
    ("emitted", "sampling", "finish"),
    [
        ("Hello there", {"stop": ("the",)}, "stop"),
        ("Hello there", {"max_output_tokens": 1}, "length"),
        ("Hello there", {"stop_ids": (TOKENIZER.encode("Hello there")[-1],)}, "stop"),
    ],
)
async def test_what_had_ended_is_not_gone_on_with(fake: FakeServer, emitted: str, sampling: Any, finish: str) -> None:
    """Another worker said its last token and died before it said that it was the last."""
    async with engine_at(fake) as engine:
        assert await said(engine, asking(emitted=TOKENIZER.encode(emitted), **sampling)) == ("", finish)

    assert fake.asked == []


async def test_a_stop_string_across_the_joint_is_found(fake: FakeServer) -> None:
    """Its first half was said by another worker, and this request's server knows nothing of it."""
    fake.answer = "Hello there"
    async with engine_at(fake) as engine:
        text, finish = await said(engine, asking(emitted=TOKENIZER.encode("Hello the"), stop=("ere",)))

    assert (text, finish) == ("re", "stop")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(after=6, drop=True),
        Fault(after=6, stall=True),
        Fault(after=6, silent=True),
        Fault(after=6, event={"error": {"message": "worker died", "code": 500}}),
        Fault(after=6, event={"error": "worker died"}),
        Fault(after=6, event=["no completion"]),
        Fault(after=6, finish="abort"),
    ],
    ids=["drop", "stall", "silent end", "error", "odd error", "nonsense", "abort"],
)
async def test_a_stream_that_breaks_off_is_gone_on_with(
    fake: FakeServer, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """Behind what came, once: nobody sees the cut; and what was said does not count as the prompt's."""
    fake.faults = [fault]
    async with engine_at(fake, patience=IMPATIENT) as engine:
        assert await said(engine, asking()) == (fake.answer, "stop")
        assert (engine.counts.requests, engine.counts.cuts) == (2, 1)
    assert "tokens in a prompt" not in caplog.text

    assert fake.asked[1]["prompt"] == fake.asked[0]["prompt"] + "Hello "


async def test_a_stream_that_always_breaks_off_fails(fake: FakeServer) -> None:
    """Typed, so that the stage can try again later; what came until then was said."""
    fake.faults = [Fault(after=2, drop=True)] * 3
    came: list[int] = []

    async def read() -> None:
        async with aclosing(engine.generate(asking())) as runs:
            async for run in runs:
                came.extend(run.ids)

    async with engine_at(fake) as engine:
        with pytest.raises(EngineUnavailable, match="broke off"):
            await read()

    assert text_of(came) == "Hello "
    assert len(fake.asked) == 3


async def test_a_shape_that_breaks_off_is_refused(fake: FakeServer) -> None:
    """The server would begin with the shape anew in its middle: better none than a wrong one."""
    fake.owner = "vllm"
    fake.faults = [Fault(after=2, drop=True)]
    shape: dict[str, Any] = {"grammar": Grammar("regex", "[a-z ]+")}
    async with engine_at(fake) as engine:
        with pytest.raises(TurnRejected, match="broke off"):
            await said(engine, asking(**shape))
        with pytest.raises(TurnRejected, match="broke off"):
            await said(engine, asking(emitted=TOKENIZER.encode("Hello"), **shape))
        assert await said(engine, asking(**shape)) == (fake.answer, "stop")


async def test_what_came_whole_needs_no_counts(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that breaks off after the answer's end, before it has counted, has answered."""

    async def end(body: dict[str, Any], fault: Fault) -> AsyncGenerator[str, None]:
        choice = {"index": 0, "text": "x", "finish_reason": "stop"}
        chunk = {"id": "", "object": "", "created": 1, "model": "", "choices": [choice]}
        yield f"data: {json.dumps(chunk)}\n\n"
        raise ConnectionAbortedError

    monkeypatch.setattr(fake, "_stream", end)
    async with engine_at(fake) as engine:
        assert await said(engine, asking()) == ("x", "stop")


# ---- giving up ---------------------------------------------------------------------------------------------------


async def test_giving_up_stops_the_server(fake: FakeServer) -> None:
    """Closing the answer closes its connection: the server stops at once. The next one gets a new connection."""
    fake.pause_s = 0.02
    async with engine_at(fake) as engine:
        await begin(engine, asking(), tokens=3)
        await until(lambda: fake.hung_up == 1)
        assert fake.running == 0
        fake.pause_s = 0
        assert await said(engine, asking()) == (fake.answer, "stop")


async def test_cancelling_the_task_stops_the_server(fake: FakeServer) -> None:
    """Also while the first token is still awaited."""
    fake.faults = [Fault(stall=True)]
    async with engine_at(fake) as engine:
        task = asyncio.create_task(answer(engine, asking()))
        await until(lambda: fake.running == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: fake.hung_up == 1)
        assert engine.places.taken == 0


async def test_nothing_is_left_behind(fake: FakeServer) -> None:
    """Neither tasks nor connections, whatever was in hand."""
    before = asyncio.all_tasks()
    fake.pause_s = 0.02
    async with engine_at(fake) as engine:
        await begin(engine, asking(), tokens=2)
    await until(lambda: fake.running == 0)
    await until(lambda: asyncio.all_tasks() == before)

    with pytest.raises(EngineUnavailable, match="not running"):
        await said(engine, asking())


# ---- one after the other -----------------------------------------------------------------------------------------


async def test_so_many_at_once_and_the_rest_in_line(fake: FakeServer) -> None:
    """Never more requests than places; all are answered, and connections are used again."""
    fake.pause_s = 0.005
    async with engine_at(fake, most=2) as engine:
        answers = [asyncio.create_task(said(engine, asking())) for _ in range(6)]
        await until(lambda: engine.places.waiting == 4)
        assert [await one for one in answers] == [(fake.answer, "stop")] * 6

    assert fake.most == 2


@pytest.mark.parametrize("listing", ["<html>back soon</html>", "[]", "null", "{}", '{"data": null}'])
async def test_a_server_that_lists_no_models_is_looked_at_again(fake: FakeServer, listing: str) -> None:
    """A page for people instead of a list is a server that is away: it shows, and it is waited for."""
    async with engine_at(fake, max_wait_s=0.1) as engine:
        fake.listing = listing
        engine._look_now.set()
        await until(lambda: engine.problem)
        with pytest.raises(EngineUnavailable, match="list of models"):
            await said(engine, asking())
        fake.listing = None
        await until(lambda: not engine.problem)
        assert await said(engine, asking()) == (fake.answer, "stop")


async def test_who_waits_for_a_server_is_not_refused_for_want_of_a_place(fake: FakeServer) -> None:
    """However many: each can be asked again, which a refusal could not."""
    async with engine_at(fake, most=1, max_wait_s=0.1) as engine:
        fake.listing = "[]"
        engine._look_now.set()
        await until(lambda: engine.problem)
        failed = await asyncio.gather(*(said(engine, asking()) for _ in range(4)), return_exceptions=True)
        assert [type(one) for one in failed] == [EngineUnavailable] * 4
        assert (engine.refused, engine.counts.errors, engine.counts.requests) == (0, 0, 0)


async def test_ids_that_nobody_has_are_refused(fake: FakeServer) -> None:
    """Here, and by name: a server might not say a word."""
    async with engine_at(fake) as engine:
        with pytest.raises(InvalidParameter, match="no token 10000000"):
            await said(engine, asking(stop_ids=(10**7,)))
    assert fake.asked == []


def test_what_ends_an_answer_is_not_said() -> None:
    """Some servers give the token that ended it, too; and what was said does not count as the prompt's."""
    stop = 7
    found = RemoteAnswer(asking(stop_ids=(stop,)), CODEC, 512).take(Piece("", (40, stop), "stop", cached_tokens=999))
    assert (found.ids, found.finish, found.cached_tokens) == ((40,), "stop", len(PROMPT))


async def test_a_line_that_is_too_long_is_told(fake: FakeServer) -> None:
    """With a time to come back."""
    fake.faults = [Fault(stall=True)]
    async with engine_at(fake, most=1, queue=0) as engine:
        task = asyncio.create_task(said(engine, asking()))
        await until(lambda: engine.places.taken == 1)
        with pytest.raises(Overloaded) as refusal:
            await said(engine, asking())
        assert refusal.value.retry_after > 0
        task.cancel()
        await asyncio.wait([task])


# ---- what goes wrong before the first token ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Fault(status=500, body={"error": {"message": "out of memory"}}), EngineUnavailable, "out of memory"),
        (Fault(status=502, body="<html>"), EngineUnavailable, "502"),
        (Fault(status=503, body={"error": {"message": "Loading model"}}), EngineUnavailable, "Loading model"),
        (Fault(status=503, headers={"Retry-After": "7"}), Overloaded, "7.0 s"),
        (Fault(status=429, headers={"Retry-After": "7"}), Overloaded, "7.0 s"),
        (Fault(status=429), Overloaded, "1.0 s"),
        (Fault(status=401), EngineUnavailable, "model.api_key"),
        (Fault(status=404, body={"detail": "Not Found"}), EngineUnavailable, "no /completions"),
        (
            Fault(status=400, body={"error": {"message": "too long", "param": "stop"}}),
            InvalidParameter,
            "stop: .*too long",
        ),
        (Fault(status=422, body={"detail": "no ids"}), InvalidParameter, "prompt: .*no ids"),
        (Fault(stall=True), EngineUnavailable, "does not answer"),
        (Fault(drop=True), EngineUnavailable, "cannot be reached"),
        (Fault(finish="content_filter"), TurnRejected, "filtered"),
    ],
)
async def test_what_each_failure_means(fake: FakeServer, fault: Fault, error: type[PenstockError], words: str) -> None:
    """A refusal for the client, or something that a retry can mend, with the cure."""
    fake.faults = [fault]
    async with engine_at(fake, patience=IMPATIENT) as engine:
        with pytest.raises(error, match=words):
            await said(engine, asking())
        assert await said(engine, asking()) == (fake.answer, "stop")


@pytest.mark.parametrize(
    "body",
    [{"detail": [{"loc": ["body", "prompt"], "msg": "no ids", "input": "a secret"}]}, {"a secret": 1}, "a secret"],
    ids=["in FastAPI's way", "in an unknown way", "no object"],
)
async def test_a_refusal_repeats_nothing_of_the_prompt(fake: FakeServer, body: Any) -> None:
    """There are servers that send back what they were sent: the client need not see the system's words there."""
    fake.faults = [Fault(status=422, body=body)]
    async with engine_at(fake) as engine:
        with pytest.raises(InvalidParameter) as refusal:
            await said(engine, asking())

    assert "secret" not in "".join(traceback.format_exception(refusal.value))
    assert "no ids" in str(refusal.value) or "detail" not in body


async def test_no_room_for_the_rest_is_no_refusal(fake: FakeServer) -> None:
    """An answer that has begun is not refused: a retry goes on with it."""
    fake.faults = [Fault(after=2, drop=True), Fault(status=429)]
    async with engine_at(fake) as engine:
        with pytest.raises(EngineUnavailable, match="has begun"):
            await said(engine, asking())


async def test_what_the_server_does_not_know_is_refused_by_name(fake: FakeServer) -> None:
    """Before anybody waits for it."""
    async with engine_at(fake) as engine:
        with pytest.raises(InvalidParameter, match="top_k"):
            await said(engine, asking(top_k=5))
        with pytest.raises(InvalidParameter, match="prompt"):
            await said(engine, make_prompt([1, 99999]))

    assert fake.asked == []


# ---- which server, and whether it is there -----------------------------------------------------------------------


async def test_a_server_that_is_away_is_waited_for() -> None:
    """It need not be there at the start; who asks meanwhile waits a while, and readiness says why."""
    fake = FakeServer(tokenizer=TOKENIZER)
    async with serving(fake):
        pass
    async with engine_at(fake, max_wait_s=0.2) as engine:
        with pytest.raises(EngineUnavailable, match=f"{fake.url} cannot be reached.*is the server running"):
            await said(engine, asking())
        assert fake.url in engine.problem
        async with serving(fake):
            await until(lambda: not engine.problem)
            assert await said(engine, asking()) == (fake.answer, "stop")
        with pytest.raises(EngineUnavailable):
            await said(engine, asking())
        await until(lambda: engine.problem)
        async with serving(fake):
            await until(lambda: not engine.problem)
            assert await said(engine, asking()) == (fake.answer, "stop")


async def test_the_key_goes_to_the_server_and_nothing_else(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a key that lies in the environment; a wrong one stops the start, without being said."""
    fake.key = "right-key"
    monkeypatch.setenv("OPENAI_API_KEY", "right-key")
    for key in ("", "wrong-key"):
        with pytest.raises(ModelLoadError, match=r"model\.api_key") as refusal:
            async with engine_at(fake, key=key):
                pass
        assert "invalid API key" not in str(refusal.value), "some servers say the key in their words"
        assert "wrong-key" not in str(refusal.value)
    async with engine_at(fake, key="right-key") as engine:
        assert await said(engine, asking()) == (fake.answer, "stop")


@pytest.mark.parametrize(("wanted", "has"), [("large", ("small", "tiny")), ("", ("small", "tiny")), ("", ())])
async def test_a_model_that_is_not_there_stops_the_start(fake: FakeServer, wanted: str, has: tuple[str, ...]) -> None:
    """The server's own are named."""
    fake.models = has
    with pytest.raises(ModelLoadError, match=r"model\.remote_name") as refusal:
        async with engine_at(fake, model=wanted):
            pass

    assert all(name in str(refusal.value) for name in has)


async def test_another_tokenizer_is_noticed(fake: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    """A server that counts a prompt's tokens otherwise is told of once."""
    fake.tokenizer = None  # counts characters
    async with engine_at(fake) as engine:
        await said(engine, asking())
        await said(engine, asking())

    assert caplog.text.count("model.prompt_form") == 1


async def test_runs_come_as_pieces_come(fake: FakeServer) -> None:
    """Nothing is held back: the first run is there while the server still works on the others."""
    fake.faults = [Fault(after=1, stall=True)]
    async with engine_at(fake) as engine, asyncio.timeout(DEADLINE_S), aclosing(engine.generate(asking())) as runs:
        assert await anext(runs) == Run(tuple(TOKENIZER.encode("H")))
