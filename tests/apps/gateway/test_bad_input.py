"""Frames that are wrong, each with the error that names what is wrong, and a session that lives on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.apps.gateway.desk import Desk, error_of

UNREADABLE = [
    ("", "invalid_json"),
    ("hello", "invalid_json"),
    ('{"type": "response.create"', "invalid_json"),
    ('{"type": "response.create", "x": NaN}', "invalid_json"),
    ('"\\ud800"', "invalid_json"),
    ('{"type": "\\ud800", "x": NaN}', "invalid_json"),
    ('{"type": "\\ud800"', "invalid_json"),
    ('{"type": "\\ud800", "a": ' + "[" * 100_000, "invalid_json"),
    ("[" * 100_000, "invalid_event"),
    ('{"type": "x", "a": ' + "[" * 100_000, "invalid_json"),
    ("[]", "invalid_event"),
    ("null", "invalid_event"),
    ("7", "invalid_event"),
    ('"response.create"', "invalid_event"),
    (b"\x00\x01", "invalid_frame"),
    (b'{"type": "response.create"}', "invalid_frame"),
]


@pytest.mark.parametrize(("frame", "code"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_is_no_event_is_complained_about(frame: str | bytes, code: str) -> None:
    """A frame that is no JSON object is answered directly, and the session goes on."""
    desk = Desk()

    assert error_of(desk.frame(frame))["code"] == code
    assert desk.answer(desk.ask())["status"] == "completed"


def item(**fields: Any) -> dict[str, Any]:
    """Return an event that adds a user's item with some fields changed."""
    said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
    return {"type": "conversation.item.create", "item": {**said, **fields}}


def function_call(**fields: Any) -> dict[str, Any]:
    """Return an event that adds a function call with some fields changed."""
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    return {"type": "conversation.item.create", "item": {**call, **fields}}


def response(**fields: Any) -> dict[str, Any]:
    """Return an event that asks for a response with some options."""
    return {"type": "response.create", "response": fields}


def session(**fields: Any) -> dict[str, Any]:
    """Return an event that changes the session."""
    return {"type": "session.update", "session": {"type": "realtime", **fields}}


def listening(**fields: Any) -> dict[str, Any]:
    """Return an event that changes how the session listens."""
    return session(audio={"input": fields})


NESTED: dict[str, Any] = {}
for _ in range(70):
    NESTED = {"items": NESTED}

WRONG: list[tuple[dict[str, Any], str, str | None]] = [
    ({}, "missing_required_parameter", "type"),
    ({"type": 7}, "missing_required_parameter", "type"),
    ({"type": "response.destroy"}, "unknown_event", "type"),
    ({"type": "x" * 10_000}, "unknown_event", "type"),
    ({"type": "session.update"}, "missing_required_parameter", "session"),
    ({"type": "session.update", "session": []}, "invalid_type", "session"),
    ({"type": "conversation.item.create"}, "missing_required_parameter", "item"),
    (item(content=[{"type": "input_text", "text": "cut \ud83d"}]), "invalid_value", "item.content[0].text"),
    ({"type": "\udc00"}, "invalid_value", "type"),
    ({"type": "response.create", "\ud83d": 1}, "invalid_value", None),
    ({**response(), "x": [0] * 20_000 + ["\ud83d"]}, "invalid_value", None),
    (response(metadata={"a": [{}, {"b": "\ud83d"}]}), "invalid_value", "response.metadata.a[1].b"),
    (item(type="poem"), "invalid_value", "item.type"),
    (item(role="devil"), "invalid_value", "item.role"),
    (item(content="x"), "invalid_type", "item.content"),
    (item(content=[]), "empty_text", "item.content"),
    (item(content=[{"type": "input_text", "text": "  "}]), "empty_text", "item.content"),
    (item(content=[{"type": "input_text", "text": "\u200b\x00 \u2060"}]), "empty_text", "item.content"),
    (item(id="root"), "invalid_value", "item.id"),
    (item(content=[{"type": "input_text", "text": 7}]), "invalid_type", "item.content[0].text"),
    (item(content=[{"type": "input_text"}]), "missing_required_parameter", "item.content[0].text"),
    (item(content=[{"type": "smell", "text": "x"}]), "invalid_value", "item.content[0].type"),
    (item(content=[{"type": "input_audio", "audio": "AAAA"}]), "audio_not_supported", "item.content[0]"),
    (item(content=[{"type": "input_image", "image_url": "data:,"}]), "image_not_supported", "item.content[0]"),
    (item(content=[{"type": "input_text", "text": "x"}] * 300), "invalid_value", "item.content"),
    (item(role="x" * 900_000), "invalid_value", "item.role"),
    (function_call(call_id="x" * 300), "invalid_value", "item.call_id"),
    (function_call(name=""), "invalid_value", "item.name"),
    (function_call(arguments="x" * 70_000), "string_above_max_length", "item.arguments"),
    (item(id=""), "invalid_value", "item.id"),
    (item(id="x" * 300), "invalid_value", "item.id"),
    (item(content=[{"type": "input_text", "text": "x" * 70_000}]), "string_above_max_length", "item.content"),
    ({**item(), "previous_item_id": "gone"}, "item_create_invalid_previous_item_id", "previous_item_id"),
    ({"type": "conversation.item.delete", "item_id": "gone"}, "item_delete_invalid_item_id", "item_id"),
    ({"type": "conversation.item.retrieve", "item_id": "gone"}, "item_retrieve_invalid_item_id", "item_id"),
    ({"type": "conversation.item.retrieve"}, "missing_required_parameter", "item_id"),
    (
        {"type": "conversation.item.truncate", "item_id": "gone", "content_index": 0, "audio_end_ms": 0},
        "item_truncate_invalid_item_id",
        "item_id",
    ),
    (response(temperature=-1), "invalid_value", "response.temperature"),
    (response(temperature=2.5), "invalid_value", "response.temperature"),
    (response(temperature="hot"), "invalid_type", "response.temperature"),
    (response(top_p=0.0), "invalid_value", "response.top_p"),
    (response(top_k=-1), "integer_below_min_value", "response.top_k"),
    (response(top_k=1.5), "invalid_type", "response.top_k"),
    (response(min_p=1.5), "invalid_value", "response.min_p"),
    (response(repetition_penalty=0.0), "invalid_value", "response.repetition_penalty"),
    (session(presence_penalty=-2.5), "invalid_value", "session.presence_penalty"),
    (response(frequency_penalty=3), "invalid_value", "response.frequency_penalty"),
    (response(logit_bias={"x": 1.0}), "invalid_value", "response.logit_bias"),
    (response(logit_bias={"-1": 1.0}), "invalid_value", "response.logit_bias"),
    (response(logit_bias={"9" * 5000: 1.0}), "invalid_value", "response.logit_bias"),
    (response(logit_bias={"7": 1.0, "07": 1.0}), "invalid_value", "response.logit_bias"),
    (response(logit_bias={"7": 101}), "invalid_value", "response.logit_bias"),
    (response(logit_bias={"7": "much"}), "invalid_type", "response.logit_bias[...]"),
    (session(logit_bias={str(n): 1 for n in range(301)}), "invalid_value", "session.logit_bias"),
    (response(stop_ids=[-1]), "invalid_value", "response.stop_ids"),
    (response(stop_ids=[10**400]), "invalid_value", "response.stop_ids"),
    (response(stop_ids=list(range(65))), "invalid_value", "response.stop_ids"),
    (response(logprobs=21), "integer_above_max_value", "response.logprobs"),
    (response(logprobs=True), "invalid_type", "response.logprobs"),
    (response(speculation=17), "integer_above_max_value", "response.speculation"),
    (response(priority=1), "integer_above_max_value", "response.priority"),
    (response(text={"format": {"type": "poem"}}), "invalid_value", "response.text.format.type"),
    (response(text={"format": {"type": "json_schema"}}), "missing_required_parameter", "response.text.format.schema"),
    (response(text={"format": {"type": "regex", "pattern": ""}}), "invalid_value", "response.text.format.pattern"),
    (
        session(text={"format": {"type": "regex", "pattern": "x" * 65_537}}),
        "invalid_value",
        "session.text.format.pattern",
    ),
    (
        response(text={"format": {"type": "json_schema", "schema": NESTED}}),
        "invalid_value",
        "response.text.format.schema",
    ),
    (response(seed=-1), "integer_below_min_value", "response.seed"),
    (response(seed=2**70), "integer_above_max_value", "response.seed"),
    (response(seed=10**400), "integer_above_max_value", "response.seed"),
    (response(max_output_tokens=-(10**400)), "integer_below_min_value", "response.max_output_tokens"),
    (session(max_output_tokens=10**400), "integer_above_max_value", "session.max_output_tokens"),
    (session(seed=10**400), "integer_above_max_value", "session.seed"),
    (response(seed=1.5), "invalid_type", "response.seed"),
    (response(max_output_tokens=0), "integer_below_min_value", "response.max_output_tokens"),
    (response(max_output_tokens=4097), "integer_above_max_value", "response.max_output_tokens"),
    (response(max_output_tokens="many"), "invalid_value", "response.max_output_tokens"),
    (response(stop=[""]), "invalid_value", "response.stop"),
    (response(stop=["x"] * 17), "invalid_value", "response.stop"),
    (response(metadata={"a": 1}), "invalid_type", "response.metadata[...]"),
    (response(metadata={"a" * 65: "b"}), "invalid_value", "response.metadata"),
    (response(metadata={str(n): "" for n in range(17)}), "invalid_value", "response.metadata"),
    (response(conversation="other"), "invalid_value", "response.conversation"),
    (response(input=[{"type": "item_reference", "id": "gone"}]), "invalid_value", "response.input[0].id"),
    (response(input=[item(content=[])["item"]]), "empty_text", "response.input[0].content"),
    (response(output_modalities=["smell"]), "invalid_value", "response.output_modalities[0]"),
    ({"type": "response.cancel"}, "response_cancel_not_active", None),
    ({"type": "response.cancel", "response_id": "resp_gone"}, "response_cancel_not_active", "response_id"),
    (session(tools=[{"type": 5}]), "invalid_type", "session.tools[0].type"),
    (session(tools=[{"type": "function", "name": "f", "parameters": {"maximum": 10**30}}]), "invalid_value", "session"),
    (session(tools=[{"type": "function", "name": "f", "description": "x" * 300_000}]), "invalid_value", "session"),
    (session(tools=[{"type": "function"}]), "missing_required_parameter", "session.tools[0].name"),
    (session(tools=[{"type": "function", "name": ""}]), "invalid_value", "session.tools[0].name"),
    (
        session(tools=[{"type": "function", "name": "f", "parameters": True}]),
        "invalid_type",
        "session.tools[0].parameters",
    ),
    (session(tool_choice="required"), "tools_not_supported", "session.tool_choice"),
    (session(tool_choice={"type": "function", "name": "f"}), "tools_not_supported", "session.tool_choice"),
    (session(tool_choice={"type": "mcp", "server_label": "s"}), "tools_not_supported", "session.tool_choice"),
    (response(tool_choice="required"), "tools_not_supported", "response.tool_choice"),
    (session(truncation="disabled"), "truncation_not_supported", "session.truncation"),
    (
        session(truncation={"type": "retention_ratio", "retention_ratio": 0.8}),
        "truncation_not_supported",
        "session.truncation",
    ),
    (session(audio={"output": {"speed": 9}}), "invalid_value", "session.audio.output.speed"),
    (session(audio={"output": {"speed": 1e308}}), "invalid_value", "session.audio.output.speed"),
    (response(audio={"output": {"speed": 0.1}}), "invalid_value", "response.audio.output.speed"),
    (session(type="transcription"), "audio_not_supported", "session.type"),
    (session(instructions="x" * 70_000), "string_above_max_length", "session.instructions"),
    (
        session(audio={"input": {"format": {"type": "audio/pcm", "rate": 8}}}),
        "invalid_value",
        "session.audio.input.format.rate",
    ),
    (
        session(audio={"input": {"turn_detection": {"type": "psychic"}}}),
        "invalid_value",
        "session.audio.input.turn_detection.type",
    ),
    ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "audio_not_supported", "type"),
    ({"type": "input_audio_buffer.append"}, "missing_required_parameter", "audio"),
    ({"type": "input_audio_buffer.commit"}, "audio_not_supported", "type"),
    ({"type": "input_audio_buffer.clear"}, "audio_not_supported", "type"),
    ({"type": "output_audio_buffer.clear"}, "audio_not_supported", "type"),
]


@pytest.mark.parametrize(("event", "code", "param"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_in_an_event_is_named(event: dict[str, Any], code: str, param: str | None) -> None:
    """An event with something wrong is refused with its id, a code and the path, and the session goes on."""
    desk = Desk()
    before = desk.session.config.view

    error = error_of(desk.frame(json.dumps({"event_id": "mine", **event})))

    assert (error["code"], error["param"], error["event_id"]) == (code, param, "mine")
    assert error["message"]
    assert len(error["message"]) < 1000
    assert desk.session.config.view is before
    assert desk.answer(desk.ask())["status"] == "completed"


@pytest.mark.parametrize("event_id", [7, [], {}, "x" * 1000])
def test_a_strange_event_id_is_refused(event_id: Any) -> None:
    """An `event_id` that is no string, or a very long one, is refused."""
    error = error_of(Desk().frame(json.dumps({"type": "response.create", "event_id": event_id})))

    assert error["param"] == "event_id"


def test_an_event_id_of_half_a_character_is_named_by_its_place() -> None:
    """Half of an emoji, which JSON can spell and no text can hold, is told where it stands even in the id itself."""
    error = error_of(Desk().frame(json.dumps({"type": "response.create", "event_id": "mine \ud83d"})))

    assert (error["code"], error["param"], error["event_id"]) == ("invalid_value", "event_id", None)
    assert "\\ud83d is half a surrogate pair" in error["message"]


def test_a_cancel_without_response_says_so_as_clients_expect() -> None:
    """The message of a failed cancel begins as the SDKs look for it."""
    assert error_of(Desk().send("response.cancel"))["message"].startswith("Cancellation failed: ")


def test_a_large_event_is_refused_by_name() -> None:
    """An event above the limit is not carried out, but the error knows which it was."""
    desk = Desk(max_message_bytes=1000)

    error = error_of(desk.say("x" * 2000, id="big"))

    assert error["code"] == "message_too_large"
    assert len(desk.session.conversation) == 0


def test_half_of_a_wrong_update_is_not_taken_over() -> None:
    """A session.update with one thing wrong changes nothing."""
    desk = Desk()

    desk.send("session.update", session={"type": "realtime", "instructions": "new", "temperature": 9.5})

    assert desk.session.config.view["instructions"] == ""
