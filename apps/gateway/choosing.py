"""How the tokens of an answer are chosen: what of a session's and a response's options makes a turn's sampling."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from apps.gateway.commands import Options
from apps.gateway.formats import TextOptions, check_text, grammar_of
from apps.gateway.refusal import Refusal
from apps.gateway.settings import GatewaySettings
from pipeline.messages import Sampling
from stages.llm.choosing.parameters import LARGEST_BIAS, LONGEST_STOP, MOST_BIASES, MOST_STOP_IDS, RANGES

MOST_STOPS = 16
LARGEST_SEED = 2**63 - 1
LARGEST_ID = 2**31 - 1
EXTENSIONS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "stop_ids",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "text",
    "speculation",
    "priority",
)
"""Options that the Realtime API does not know. Null is what the session says, and there the default."""

NUMBERS = ("top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "logprobs", "speculation")


def check_choosing(options: Options, settings: GatewaySettings, where: str) -> None:
    """Refuse what cannot be.

    Raises:
        Refusal: names the option under `where`.
    """
    ranged(options.temperature, 0.0, 2.0, f"{where}.temperature")
    ranged(options.top_p, 0.0, 1.0, f"{where}.top_p", open_below=True)
    ranged(options.seed, 0, LARGEST_SEED, f"{where}.seed")
    for name in NUMBERS:
        numbers = RANGES[name]
        ranged(getattr(options, name), numbers.least, numbers.most, f"{where}.{name}", open_below=numbers.open_below)
    ranged(options.priority, 0, settings.max_priority, f"{where}.priority")
    stops = [options.stop] if isinstance(options.stop, str) else options.stop or []
    if len(stops) > MOST_STOPS or not all(0 < len(stop) <= LONGEST_STOP for stop in stops):
        _refuse(f"{where}.stop", f"at most {MOST_STOPS} strings of 1 to {LONGEST_STOP} characters")
    _check_ids(f"{where}.stop_ids", options.stop_ids or (), MOST_STOP_IDS)
    bias = options.logit_bias or {}
    if not all(name.isascii() and name.isdigit() and len(name) <= len(str(LARGEST_ID)) for name in bias):
        _refuse(f"{where}.logit_bias", "its names are token ids, in decimal digits")
    _check_ids(f"{where}.logit_bias", [int(name) for name in bias], MOST_BIASES)
    if not all(abs(value) <= LARGEST_BIAS for value in bias.values()):
        _refuse(f"{where}.logit_bias", f"its values are numbers from -{LARGEST_BIAS:g} to {LARGEST_BIAS:g}")
    check_text(options.text, where)


def sampling_of(said: Mapping[str, Any], settings: GatewaySettings) -> Sampling:
    """How to choose the tokens of a response for which this was `said`, for itself or for its session."""
    limit, stop, most = said["max_output_tokens"], said["stop"], settings.max_output_tokens
    asked = {name: said[name] for name in (*NUMBERS, "priority") if said[name] is not None}
    text = said["text"]
    return Sampling(
        seed=secrets.randbits(63) if said["seed"] is None else said["seed"],
        max_output_tokens=most if limit in (None, "inf") else min(limit, most),
        temperature=settings.temperature if said["temperature"] is None else float(said["temperature"]),
        top_p=1.0 if said["top_p"] is None else float(said["top_p"]),
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        stop_ids=tuple(said["stop_ids"] or ()),
        logit_bias=tuple((int(name), float(bias)) for name, bias in (said["logit_bias"] or {}).items()),
        grammar=grammar_of(msgspec.convert(text, TextOptions) if isinstance(text, dict) else text),
        **asked,
    )


def ranged(value: object, least: float, most: float, param: str, *, open_below: bool = False) -> None:
    """Refuse a number that is not from `least` to `most`."""
    if not isinstance(value, int | float):
        return
    if not least <= value <= most or (open_below and value == least):
        code = "integer_below_min_value" if isinstance(value, int) and value < least else "invalid_value"
        code = "integer_above_max_value" if isinstance(value, int) and value > most else code
        above = "above" if open_below else "from"
        raise Refusal(code, f"{param} is a number {above} {least:g} to {most:g}", param=param)


def _check_ids(param: str, ids: Sequence[int], most: int) -> None:
    if len(ids) > most or not all(0 <= token <= LARGEST_ID for token in ids) or len({*ids}) < len(ids):
        _refuse(param, f"at most {most} token ids from 0 on, each once")


def _refuse(param: str, why: str) -> None:
    raise Refusal("invalid_value", f"{param}: {why}", param=param)
