"""Answers match their grammar, whatever is guessed ahead and wherever they are taken up again."""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import torch

from pipeline.errors import EngineUnavailable, InvalidParameter, Overloaded
from pipeline.messages import Grammar
from stages.llm.choosing import grammar as grammar_module
from stages.llm.choosing.grammar import Grammars, Matcher
from stages.llm.engine import TorchEngine
from stages.llm.models.model import LoadedModel, load_model
from tests.stages import models
from tests.stages.llm.running import DEADLINE_S, answer, make_prompt, some_ids

DATE = Grammar("regex", r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
PERSON = Grammar(
    "json_schema",
    json.dumps(
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 6},
                "age": {"type": "integer", "minimum": 0, "maximum": 150},
                "tags": {"type": "array", "items": {"enum": ["a", "bc"]}, "maxItems": 2},
            },
            "required": ["name", "age", "tags"],
            "additionalProperties": False,
        }
    ),
)
TREE = Grammar(
    "json_schema",
    json.dumps(
        {
            "$defs": {
                "node": {
                    "type": "object",
                    "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                    "required": ["next"],
                    "additionalProperties": False,
                }
            },
            "$ref": "#/$defs/node",
        }
    ),
)


@pytest.fixture
def grammars(model: LoadedModel) -> Generator[Grammars, None, None]:
    """For the tokens of the tiny model."""
    made = Grammars(model)
    yield made
    made.close()


async def matcher(grammars: Grammars, grammar: Grammar) -> Matcher:
    """A matcher for an answer to no prompt at all."""
    made = await grammars.matcher(make_prompt([], grammar=grammar))
    assert made is not None
    return made


def tokens(model: LoadedModel, mask: torch.Tensor | None) -> set[int]:
    """The ids that `mask` allows."""
    assert mask is not None
    return {token for token in range(model.tokens) if mask[token >> 5] >> (token & 31) & 1}


def matches(grammar: Grammar, text: str) -> bool:
    """Whether `text` is what the grammar says, by other people's programs."""
    if grammar.kind == "regex":
        return re.fullmatch(grammar.text, text) is not None
    jsonschema.validate(json.loads(text), json.loads(grammar.text))
    return True


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        (DATE, "2024-12-31"),
        (PERSON, '{"name": "Zoë", "age": 7, "tags": []}'),
        (PERSON, '{"name":"","age":150,\n "tags":["a","bc"]}'),
        (TREE, '{"next":{"next":null}}'),
    ],
)
async def test_what_matches_may_be_said(model: LoadedModel, grammars: Grammars, grammar: Grammar, text: str) -> None:
    """Each token of a text that matches is allowed in its turn, and the end only where the grammar may end."""
    follower = await matcher(grammars, grammar)
    ids: list[int] = []
    for byte in text.encode():  # byte by byte, as no tokenizer would cut it, unless there is one way only
        allowed = tokens(model, follower.mask(ids, ()))
        (token,) = [token for token in range(model.tokens) if model.vocabulary.bytes_of(token) == bytes((byte,))]
        if token not in allowed:
            assert len(allowed) == 1
            return
        assert not follower.ended(ids)
        assert not allowed & model.eos
        ids.append(token)

    assert follower.ended(ids)
    assert tokens(model, follower.mask(ids, ())) == model.eos


@pytest.mark.parametrize("grammar", [DATE, PERSON, TREE, Grammar("regex", "[äöü]{2,4}€")])
async def test_drafts_are_taken_back(model: LoadedModel, grammars: Grammars, grammar: Grammar) -> None:
    """After any drafts, right, wrong or none, the mask is that of a matcher that never saw a draft."""
    drawn = random.Random(3)
    plain, drafted = await matcher(grammars, grammar), await matcher(grammars, grammar)
    ids: list[int] = []
    for _ in range(30):
        expected = plain.mask(ids, ())
        drafts: list[int] = []
        for _ in range(drawn.randrange(4)):
            mask = drafted.mask(ids, drafts)
            if mask is None:
                break
            allowed = sorted(tokens(model, mask))
            drafts.append(drawn.choice(allowed) if drawn.random() < 0.7 else drawn.randrange(model.tokens))
        for count in range(len(drafts) + 1):
            drafted.mask(ids, drafts[:count])
        got = drafted.mask(ids, ())
        assert expected is not None
        assert got is not None
        assert torch.equal(expected, got)
        choices = sorted(tokens(model, expected) - model.eos)
        right = [token for token in drafts[:1] if token in choices]
        ids.append(right[0] if right else drawn.choice(choices))
        assert plain.ended(ids) == drafted.ended(ids)
        if plain.ended(ids):
            break
    assert (plain.error, drafted.error) == (None, None)


async def test_drafts_beside_the_grammar_have_no_mask(model: LoadedModel, grammars: Grammars) -> None:
    """What follows a draft that is not allowed, or one that ends the answer, is never chosen, so anything may be."""
    follower = await matcher(grammars, Grammar("regex", "(ab)*"))
    (a,) = [token for token in range(model.tokens) if model.vocabulary.bytes_of(token) == b"a"]
    (end,) = model.eos

    assert follower.mask([], [a, a]) is None
    assert follower.mask([], [end]) is None
    assert tokens(model, follower.mask([], ())) >= {a, end}
    assert follower.error is None


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        (Grammar("regex", "("), "unclosed group"),
        (Grammar("regex", r"(a)\1"), "backreferences"),
        (Grammar("regex", r"[^\s\S]"), "no text matches it"),
        (Grammar("json_schema", "{"), "is no JSON schema"),
        (Grammar("json_schema", "[]"), "object schema"),
        (Grammar("json_schema", '{"type": "frog"}'), "frog"),
        (Grammar("json_schema", '{"minimum": 3, "maximum": 2, "type": "integer"}'), "greater than maximum"),
        (Grammar("json_schema", '{"$ref": "#"}'), "no text matches it"),
        (Grammar("json_schema", '{"$ref": "http://127.0.0.1/x.json"}'), "retriev"),
        (Grammar("json_schema", '{"type": "array", "uniqueItems": true}'), "uniqueItems"),
    ],
)
async def test_grammars_that_cannot_be_are_refused(grammars: Grammars, grammar: Grammar, words: str) -> None:
    """Wrong, impossible and unenforceable ones are told in a line, which names the parameter."""
    with pytest.raises(InvalidParameter, match=words) as told:
        await matcher(grammars, grammar)

    assert told.value.param == "grammar"
    assert "\n" not in str(told.value)


async def test_a_grammar_is_compiled_once(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second request with the same grammar gets a copy, which stands at the beginning whatever the first did."""
    first = await matcher(grammars, DATE)
    mask = first.mask([], ())
    assert mask is not None
    monkeypatch.setattr(grammars, "_compile", None)

    second = await matcher(grammars, DATE)

    got = second.mask([], ())
    assert got is not None
    assert torch.equal(got, mask)


async def test_what_is_compiled_waits_for_no_other(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a grammar is being compiled for long, one that was compiled before is had at once."""
    await matcher(grammars, DATE)
    done, compile_it = threading.Event(), Grammars._compile
    monkeypatch.setattr(Grammars, "_compile", lambda *of: done.wait(DEADLINE_S) and compile_it(*of))
    slow = asyncio.create_task(matcher(grammars, PERSON))
    await asyncio.sleep(0)

    try:
        async with asyncio.timeout(DEADLINE_S / 2):
            await matcher(grammars, DATE)
        assert not slow.done()
    finally:
        done.set()
        await slow


async def test_prompts_that_wait_for_their_grammar_are_counted(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many prompts are taken at once, those whose grammars are still to be compiled among them."""
    done, compile_it = threading.Event(), Grammars._compile
    monkeypatch.setattr(Grammars, "_compile", lambda *of: done.wait(DEADLINE_S) and compile_it(*of))
    async with TorchEngine(model, most=1, queue=1) as engine:
        asked = [make_prompt([7], session=f"s{n}", grammar=DATE, max_output_tokens=1) for n in range(engine.takes)]
        waiting = [asyncio.create_task(answer(engine, one)) for one in asked]
        await asyncio.sleep(0)
        try:
            with pytest.raises(Overloaded):
                await answer(engine, make_prompt([7]))
        finally:
            done.set()
            await asyncio.gather(*waiting, return_exceptions=True)


async def test_only_the_latest_grammars_are_kept(grammars: Grammars) -> None:
    """The memory for compiled grammars is bounded."""
    for number in range(grammar_module.KEPT + 3):
        await matcher(grammars, Grammar("regex", f"x{{{number + 1}}}"))

    assert len(grammars._compiled) == grammar_module.KEPT


@pytest.fixture(scope="module")
def draft(load: Callable[[str], LoadedModel], tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A model that is seldom right."""
    return load_model(
        models.save(tmp_path_factory.mktemp("bad"), seed=1, num_hidden_layers=1, hidden_size=32), device="cpu"
    )


@pytest.fixture
async def engine(model: LoadedModel, draft: LoadedModel) -> AsyncGenerator[TorchEngine, None]:
    """With a draft model."""
    async with TorchEngine(model, draft=draft) as made:
        yield made


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("grammar", [DATE, PERSON, TREE], ids=["regex", "schema", "recursive"])
async def test_answers_match(engine: TorchEngine, model: LoadedModel, grammar: Grammar, temperature: float) -> None:
    """An answer that ends by itself matches, alone and in company; it ends when nothing more may follow."""
    ask: dict[str, Any] = {"grammar": grammar, "max_output_tokens": 150, "temperature": temperature}
    prompts = [make_prompt(some_ids(10, n), session=f"s{n}", seed=n, **ask) for n in range(4)]
    others = [make_prompt(some_ids(10, 9), session="other", max_output_tokens=30)]

    *answers, _ = await asyncio.gather(*(answer(engine, prompt) for prompt in [*prompts, *others]))

    assert any(finish == "stop" for _, finish, _ in answers)
    for ids, finish, _ in answers:
        assert not set(ids) & model.eos
        assert finish == "length" or matches(grammar, str(model.tokenizer.decode(ids)))


async def test_a_bad_grammar_fails_alone(engine: TorchEngine) -> None:
    """The request with it is refused; the one beside it goes on."""
    good = make_prompt(some_ids(10, 1), grammar=DATE, max_output_tokens=20)
    bad = make_prompt(some_ids(10, 1), session="b", grammar=Grammar("regex", "("))

    told = await asyncio.gather(answer(engine, good), answer(engine, bad), return_exceptions=True)

    assert isinstance(told[1], InvalidParameter)
    assert not isinstance(told[0], BaseException)
    assert told[0][1] == "stop"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
async def test_another_goes_on_within_the_grammar(engine: TorchEngine, share: float) -> None:
    """Given what a former owner emitted, the rest is the same, also where nothing is left but the end."""
    ask: dict[str, Any] = {"grammar": PERSON, "max_output_tokens": 250, "temperature": 0.8, "seed": 6}
    whole, finish, _ = await answer(engine, make_prompt(some_ids(30, 3), session="a", **ask))
    assert finish == "stop"
    at = round(share * len(whole))

    rest = await answer(engine, make_prompt(some_ids(30, 3), session="b", emitted=whole[:at], **ask))

    assert rest[:2] == (whole[at:], finish)


async def test_what_a_former_owner_said_must_match(engine: TorchEngine) -> None:
    """An answer that has left its grammar already (its model has been changed, say) is not gone on with."""
    with pytest.raises(InvalidParameter, match="does not match"):
        await answer(engine, make_prompt(some_ids(10, 1), grammar=DATE, emitted=some_ids(5, 5)))


async def test_a_stopped_engine_says_so(model: LoadedModel) -> None:
    """Nothing compiles any more, which is nobody's fault."""
    async with TorchEngine(model) as engine:
        pass
    with pytest.raises(EngineUnavailable):
        await answer(engine, make_prompt([7, 8], grammar=DATE))


async def test_tokens_that_are_no_bytes_take_no_grammar(tmp_path: Any) -> None:
    """Where a token's text depends on its neighbours, a grammar is refused in words that say so."""
    folder = models.save(tmp_path)
    models.word_piece().save_pretrained(folder)
    grammars = Grammars(load_model(folder, device="cpu"))

    with pytest.raises(InvalidParameter, match="not spelt in bytes"):
        await matcher(grammars, DATE)
    grammars.close()


async def test_a_grammar_that_becomes_too_complex_fails_alone(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the library gives up in mid-answer, that answer is refused, the others go on, and nobody is alarmed."""
    plain = make_prompt(some_ids(10, 2), session="b", max_output_tokens=20)
    expected = await answer(engine, plain)
    check = Matcher._check

    def failing(follower: Matcher) -> None:
        check(follower)
        if follower._certain > 3:
            follower._fail("it is too complex")

    monkeypatch.setattr(Matcher, "_check", failing)
    bad = make_prompt(some_ids(10, 1), grammar=Grammar("regex", "[a-z]{20}"), max_output_tokens=20)
    told = await asyncio.gather(answer(engine, plain), answer(engine, bad), return_exceptions=True)

    assert not isinstance(told[0], BaseException)
    assert told[0][:2] == expected[:2]
    assert isinstance(told[1], InvalidParameter)
    assert "too complex" in str(told[1])
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
