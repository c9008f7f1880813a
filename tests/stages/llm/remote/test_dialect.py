"""What is asked of which kind of server, and what is refused because it would be ignored there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.errors import InvalidParameter
from pipeline.messages import Grammar, Sampling
from stages.llm.remote.dialect import DIALECTS, SEEDS, Dialect, asked, dialect_of

PLAIN = DIALECTS["openai"]
SCHEMA = Grammar("json_schema", '{"type": "object"}')
REGEX = Grammar("regex", "[a-z]+")
BEYOND: dict[str, Any] = {
    "top_k": 5,
    "min_p": 0.1,
    "repetition_penalty": 1.2,
    "stop_ids": (7, 8),
    "json_schema": SCHEMA,
    "regex": REGEX,
}


def sampling_with(name: str) -> Sampling:
    """One parameter beyond OpenAI's."""
    return Sampling(**{"grammar" if isinstance(BEYOND[name], Grammar) else name: BEYOND[name]})


def beyond(dialect: Dialect, sampling: Sampling) -> dict[str, Any]:
    """What goes out besides OpenAI's parameters."""
    return asked(sampling, dialect, room=9, said=0)[1]


def test_openais_own_parameters_go_out() -> None:
    """Those that would change nothing are left out: there are servers that refuse what they do not know."""
    own, extra = asked(
        Sampling(
            seed=5,
            temperature=0.7,
            top_p=0.9,
            stop=("a", "b"),
            presence_penalty=0.5,
            frequency_penalty=-0.5,
            logit_bias=((3, -1.5),),
        ),
        PLAIN,
        room=9,
        said=0,
    )

    assert own == {
        "max_tokens": 9,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 5,
        "stop": ["a", "b"],
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "logit_bias": {"3": -1.5},
        "stream_options": {"include_usage": True},
    }
    assert extra == {}
    plain, _ = asked(Sampling(), PLAIN, room=9, said=0)
    assert set(plain) == {"max_tokens", "temperature", "top_p", "seed", "stream_options"}


@pytest.mark.parametrize("kind", sorted(DIALECTS))
@pytest.mark.parametrize("name", sorted(BEYOND))
def test_what_a_server_does_not_know_is_refused_by_name(kind: str, name: str) -> None:
    """Everything goes out under some name, or is refused under its own; nothing is dropped."""
    dialect = DIALECTS[kind]
    neutral = beyond(dialect, Sampling())
    if name in dialect.fields or name in dialect.shapes:
        assert beyond(dialect, sampling_with(name)) != neutral
    else:
        with pytest.raises(InvalidParameter, match=name) as refusal:
            beyond(dialect, sampling_with(name))
        assert "model.server" in str(refusal.value)


@pytest.mark.parametrize("kind", sorted(set(DIALECTS) - {"openai"}))
def test_what_a_server_takes_for_granted_is_told_it(kind: str) -> None:
    """A model's own top_k or penalty does not apply unless it is asked for."""
    extra = beyond(DIALECTS[kind], Sampling())

    assert extra["top_k"] in (0, -1)
    assert extra["min_p"] == 0
    assert extra.get("repetition_penalty", extra.get("repeat_penalty")) == 1


def test_the_names_are_the_servers() -> None:
    """As their request types have them."""
    vllm = beyond(DIALECTS["vllm"], Sampling(top_k=5, stop_ids=(7,), grammar=REGEX))
    assert (vllm["top_k"], vllm["stop_token_ids"]) == (5, [7])
    assert vllm["structured_outputs"] == {"regex": REGEX.text}
    assert beyond(DIALECTS["vllm"], Sampling(grammar=SCHEMA))["structured_outputs"] == {"json": json.loads(SCHEMA.text)}
    assert beyond(DIALECTS["sglang"], Sampling(grammar=SCHEMA))["json_schema"] == SCHEMA.text
    assert beyond(DIALECTS["llama.cpp"], Sampling(grammar=SCHEMA))["json_schema"] == json.loads(SCHEMA.text)
    assert beyond(DIALECTS["llama.cpp"], Sampling(repetition_penalty=1.3))["repeat_penalty"] == 1.3


def test_a_schema_that_is_no_json_is_refused() -> None:
    """Here, not by the server in its words."""
    with pytest.raises(InvalidParameter, match="json_schema"):
        beyond(DIALECTS["vllm"], Sampling(grammar=Grammar("json_schema", "{")))


def test_log_probabilities_are_refused() -> None:
    """The ids are ours where a piece holds several tokens: theirs would belong to others."""
    with pytest.raises(InvalidParameter, match="logprobs"):
        asked(Sampling(logprobs=0), DIALECTS["vllm"], room=9, said=0)


def test_each_start_has_a_seed_of_its_own() -> None:
    """A server counts its draws from the request's start: behind a takeover the same seed would draw the same again."""
    seeds = [asked(Sampling(seed=2**63 - 1), PLAIN, room=9, said=said)[0]["seed"] for said in range(1000)]

    assert len(set(seeds)) == 1000
    assert all(0 <= seed < SEEDS for seed in seeds)


@pytest.mark.parametrize(
    ("owner", "kind"),
    [("vllm", "vllm"), ("sglang", "sglang"), ("llamacpp", "llama.cpp"), ("me", "llama-cpp-python"), ("", "openai")],
)
def test_a_server_says_what_it_is(owner: str, kind: str) -> None:
    """Whose its models are tells; of anybody else no more is taken for granted than OpenAI's parameters."""
    assert dialect_of(owner).kind == kind
    assert dialect_of("library").kind == "openai"
