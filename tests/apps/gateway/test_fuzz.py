"""Whatever a client sends in whatever order, the session lives and says only what the protocol has."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.gateway.protocols.realtime import TYPES
from pipeline.messages import Turn
from tests.apps.gateway.desk import Desk

IDS = st.sampled_from(["a", "b", "c", "item_1", "root", "", "resp_x"])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**63)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
FIELDS = [
    "event_id",
    "item",
    "session",
    "response",
    "item_id",
    "previous_item_id",
    "audio",
    "content_index",
    "audio_end_ms",
]
NESTED = st.dictionaries(
    st.sampled_from(
        [
            "type",
            "role",
            "content",
            "id",
            "metadata",
            "input",
            "instructions",
            "audio",
            "tools",
            "temperature",
            "stop",
            "seed",
            "stop_ids",
            "logit_bias",
            "logprobs",
            "text",
            "format",
            "priority",
        ]
    ),
    JSON | st.sampled_from(["message", "user", "assistant", "realtime", "function_call"]),
    max_size=6,
)
WILD = st.fixed_dictionaries({"type": st.sampled_from(TYPES) | st.text(max_size=10)}).flatmap(
    lambda base: st.dictionaries(st.sampled_from(FIELDS), JSON | NESTED, max_size=4).map(lambda more: {**more, **base})
)
PARTS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["input_text", "output_text", "input_audio", "text"])},
        optional={"text": st.text(max_size=20), "transcript": st.text(max_size=5)},
    ),
    max_size=3,
)
ITEM = st.fixed_dictionaries(
    {"type": st.just("message"), "role": st.sampled_from(["user", "assistant", "system"]), "content": PARTS},
    optional={"id": IDS},
)
SANE = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("conversation.item.create"), "item": ITEM}, optional={"previous_item_id": IDS, "event_id": IDS}
    ),
    st.fixed_dictionaries(
        {"type": st.just("response.create")},
        optional={
            "event_id": IDS,
            "response": st.fixed_dictionaries(
                {}, optional={"conversation": st.sampled_from(["auto", "none"]), "input": st.lists(ITEM, max_size=2)}
            ),
        },
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["conversation.item.delete", "conversation.item.retrieve"]), "item_id": IDS}
    ),
    st.fixed_dictionaries({"type": st.just("response.cancel")}, optional={"response_id": IDS}),
    st.fixed_dictionaries({"type": st.just("session.update"), "session": NESTED}),
)
STAGE = st.sampled_from(["delta", "again", "gap", "done", "cancelled", "failed", "late"])
STEPS = st.lists(st.one_of(SANE, WILD, STAGE, st.text(max_size=30), st.binary(max_size=10)), max_size=25)


def stage(desk: Desk, turn: Turn, what: str, said: dict[str, int]) -> None:
    """Let the stages do something with a turn, sensible or not."""
    at = said.get(turn.turn, 0)
    if what == "delta":
        desk.delta(turn, at, "some text")
        said[turn.turn] = at + 9
    elif what == "again":
        desk.delta(turn, max(0, at - 3), "ext")
    elif what == "gap":
        desk.delta(turn, at + 5, "x")
    elif what == "late":
        desk.later(1000.0)
    else:
        status = {"done": "completed"}.get(what, what)
        desk.finish(turn, status=status, length=at if what == "done" else None)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_nothing_ends_the_session(steps: list[Any]) -> None:
    """Any frames and any records in any order: no exception, only valid events, and every turn gets its one end."""
    desk, said = Desk(), dict[str, int]()
    for step in steps:
        if isinstance(step, str) and step in ("delta", "again", "gap", "done", "cancelled", "failed", "late"):
            for turn in desk.turns[-2:]:
                stage(desk, turn, step, said)
        elif isinstance(step, dict):
            desk.frame(msgspec.json.encode(step).decode())
        else:
            desk.frame(step)
    desk.later(1000.0)
    desk.later(1000.0)  # for one that waited for the end of another

    created = [event["response"]["id"] for event in desk.told.events if event["type"] == "response.created"]
    done = [event["response"]["id"] for event in desk.told.events if event["type"] == "response.done"]
    assert sorted(created) == sorted(done)
    assert len(desk.session.turns) == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), max_size=20))
def test_text_is_seen_once_and_in_order(cuts: list[tuple[int, int]]) -> None:
    """However an answer is cut and repeated, the client sees its beginning without a gap or a repetition."""
    text = "the quick brown fox jumps over the lazy dog"
    desk = Desk()
    turn = desk.ask()
    for at, length in cuts:
        if piece := text[at : at + length]:
            desk.delta(turn, at, piece)

    seen = "".join(event["delta"] for event in desk.told.events if event["type"] == "response.output_text.delta")
    assert text.startswith(seen)
