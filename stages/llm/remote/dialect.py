"""What can be asked of which server: the parameters of OpenAI's completions, and what each kind of server adds to them.

A server ignores what it does not know, and then answers by other rules than were asked for. So a parameter goes out
only where the kind of server is known to honour it, and is refused by name elsewhere. What a server fills in from its
model's own settings if it is not told (top_k, min_p, repetition_penalty) is always told.

Read from the request types of vLLM, SGLang, LMDeploy, TensorRT-LLM, llama.cpp and llama-cpp-python, as of late 2026.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.errors import InvalidParameter
from pipeline.messages import Grammar, Sampling

Kind = Literal["openai", "vllm", "sglang", "lmdeploy", "tensorrt-llm", "llama.cpp", "llama-cpp-python"]

SEEDS = 1 << 31
"""Some servers take no larger ones."""
STEP = 0x9E3779B1
"""Odd and large (2³² over the golden ratio), so that seeds of neighbouring positions have nothing in common."""

Shaping = Callable[[str], dict[str, Any]]
"""The fields that make an answer match a JSON schema or a regular expression, given as text."""


@dataclass(frozen=True)
class Dialect:
    """What a kind of server understands beyond OpenAI's completions.

    `fields` are its names for our parameters, `all_tokens` is the top_k that leaves all to choose from. `unheaded` are
    the fields that keep it from putting the first token before a prompt; without, it does as its tokenizer does.
    `ids_back` is asked for with `return_token_ids`, and the field of a choice that then holds them.
    """

    kind: Kind
    owner: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    all_tokens: int = 0
    shapes: Mapping[str, Shaping] = field(default_factory=dict)
    unheaded: Mapping[str, Any] = field(default_factory=dict)
    ids_back: str = ""


_THREE = {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty"}
_LLAMA = {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"}
_STOPS = {"stop_ids": "stop_token_ids"}

DIALECTS: Mapping[str, Dialect] = {
    one.kind: one
    for one in (
        Dialect("openai"),
        Dialect(
            "vllm",
            owner="vllm",
            fields=_THREE | _STOPS,
            all_tokens=-1,
            shapes={
                "json_schema": lambda text: {"structured_outputs": {"json": json.loads(text)}},
                "regex": lambda text: {"structured_outputs": {"regex": text}},
            },
            unheaded={"add_special_tokens": False},
            ids_back="token_ids",
        ),
        Dialect(
            "sglang",
            owner="sglang",
            fields=_THREE | _STOPS,
            all_tokens=-1,
            shapes={"json_schema": lambda text: {"json_schema": text}, "regex": lambda text: {"regex": text}},
            ids_back="token_ids",
        ),
        Dialect("lmdeploy", owner="lmdeploy", fields=_THREE, ids_back="gen_tokens"),
        Dialect(
            "tensorrt-llm",
            owner="tensorrt_llm",
            fields=_THREE | _STOPS,
            shapes={
                "json_schema": lambda text: {"response_format": {"type": "json", "schema": json.loads(text)}},
                "regex": lambda text: {"response_format": {"type": "regex", "regex": text}},
            },
            unheaded={"add_special_tokens": False},
        ),
        Dialect(
            "llama.cpp",
            owner="llamacpp",
            fields=_LLAMA,
            shapes={"json_schema": lambda text: {"json_schema": json.loads(text)}},
        ),
        Dialect("llama-cpp-python", owner="me", fields=_LLAMA),
    )
}


def dialect_of(owner: str) -> Dialect:
    """The dialect of a server that says `owner` of its models; the plain one if nobody is known to say so."""
    return next((one for one in DIALECTS.values() if owner and one.owner == owner), DIALECTS["openai"])


def asked(sampling: Sampling, dialect: Dialect, *, room: int, said: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """How to choose the answer's tokens: OpenAI's parameters, and those of the server's kind.

    `said` tokens of the answer are known, and `room` more may come. A seed's randomness is not drawn a second time
    after a takeover: the server counts its draws from the request's start, so each start has a seed of its own.

    Raises:
        InvalidParameter: the server has no such parameter; says which.
    """
    own: dict[str, Any] = {
        "max_tokens": room,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": (sampling.seed + said * STEP) % SEEDS,
        "stream_options": {"include_usage": True},
    }
    if sampling.stop:
        own["stop"] = list(sampling.stop)
    if sampling.presence_penalty:
        own["presence_penalty"] = sampling.presence_penalty
    if sampling.frequency_penalty:
        own["frequency_penalty"] = sampling.frequency_penalty
    if sampling.logit_bias:
        own["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    if sampling.logprobs is not None:
        raise InvalidParameter("logprobs", "an engine elsewhere gives none")
    return own, _extras(sampling, dialect) | _shape(sampling.grammar, dialect)


def _extras(sampling: Sampling, dialect: Dialect) -> dict[str, Any]:
    """Ours by the server's names: always those that it has, since what it takes for granted may be something else."""
    values: dict[str, Any] = {
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "stop_ids": list(sampling.stop_ids),
    }
    neutral = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "stop_ids": []}
    extras: dict[str, Any] = {}
    for name, value in values.items():
        if name in dialect.fields:
            extras[dialect.fields[name]] = dialect.all_tokens if name == "top_k" and not value else value
        elif value != neutral[name]:
            raise InvalidParameter(name, _unknown(dialect))
    return extras


def _shape(grammar: Grammar | None, dialect: Dialect) -> dict[str, Any]:
    if grammar is None:
        return {}
    if grammar.kind not in dialect.shapes:
        raise InvalidParameter(grammar.kind, _unknown(dialect))
    try:
        return dialect.shapes[grammar.kind](grammar.text)
    except ValueError as error:
        raise InvalidParameter(grammar.kind, f"is no JSON: {error}") from error


def _unknown(dialect: Dialect) -> str:
    return f"the model's server has no such parameter (it counts as {dialect.kind!r}: see model.server)"
