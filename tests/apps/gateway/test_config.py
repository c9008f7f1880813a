"""How a session and its responses are configured."""

from __future__ import annotations

from typing import Any

import pytest

from apps.gateway.choosing import EXTENSIONS
from pipeline.messages import Grammar, Sampling
from tests.apps.gateway.desk import Desk

AGENTS_PY: dict[str, Any] = {
    "type": "realtime",
    "model": "gpt-realtime-2",
    "instructions": "Be brief.",
    "output_modalities": ["audio"],
    "tools": [
        {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
    ],
    "tool_choice": "auto",
    "tracing": "auto",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "transcription": {"model": "gpt-4o-mini-transcribe"},
            "turn_detection": {"type": "semantic_vad", "interrupt_response": True},
            "noise_reduction": None,
        },
        "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "ash", "speed": 1.0},
    },
}


def test_the_first_event_shows_the_whole_session() -> None:
    """`session.created` carries the configuration with all its defaults."""
    (created,) = Desk(instructions="Be kind.").told.events

    session = created["session"]
    assert session["id"] == "sess_1"
    assert session["model"] == "penstock-demo"
    assert session["output_modalities"] == ["text"]
    assert session["instructions"] == "Be kind."
    assert session["audio"]["input"]["turn_detection"]["interrupt_response"] is True


def test_what_the_agents_sdk_sends_by_default_is_accepted() -> None:
    """Speech settings, foreign voices and models, tools and tracing bring no error."""
    desk = Desk()

    (updated,) = desk.send("session.update", session=AGENTS_PY)

    assert updated["type"] == "session.updated"
    assert updated["session"]["model"] == "penstock-demo"
    assert updated["session"]["output_modalities"] == ["text"]
    assert updated["session"]["audio"]["output"]["voice"] == "ash"
    detection = updated["session"]["audio"]["input"]["turn_detection"]
    assert (detection["create_response"], detection["interrupt_response"]) == (True, True)


def test_whatever_the_api_knows_is_echoed() -> None:
    """Tools of servers and voices by id come back as they were given."""
    desk = Desk()
    given: dict[str, Any] = {
        "tools": [{"type": "mcp", "server_label": "s", "server_url": "https://s.example"}],
        "tool_choice": "none",
        "truncation": "auto",
        "max_output_tokens": 77,
        "audio": {
            "output": {"voice": {"id": "v1"}, "speed": 1.2},
            "input": {"noise_reduction": {"type": "near_field"}},
        },
    }

    (updated,) = desk.send("session.update", session=given)

    shown = updated["session"]
    assert {name: shown[name] for name in given if name != "audio"} == {n: v for n, v in given.items() if n != "audio"}
    assert shown["audio"]["output"]["voice"] == {"id": "v1"}
    (cleared,) = desk.send("session.update", session=dict.fromkeys(given))
    assert cleared["session"]["tools"] == []
    assert cleared["session"]["max_output_tokens"] == "inf"


def test_updates_merge_and_null_clears() -> None:
    """What an update does not name stays; null, "" and [] clear; turn detection is replaced as a whole."""
    desk = Desk()
    desk.send("session.update", session={**AGENTS_PY, "temperature": 0.7})

    desk.send("session.update", session={"type": "realtime", "tracing": {"workflow_name": "w"}})
    view = desk.session.config.view
    assert (view["instructions"], view["temperature"], len(view["tools"])) == ("Be brief.", 0.7, 1)

    detection = {"type": "server_vad", "threshold": 0.9}
    cleared: dict[str, Any] = {"type": "realtime", "instructions": "", "tools": [], "temperature": None}
    desk.send("session.update", session={**cleared, "audio": {"input": {"turn_detection": detection}}})
    view = desk.session.config.view
    assert (view["instructions"], view["tools"], view["temperature"]) == ("", [], None)
    assert view["audio"]["input"]["transcription"] == {"model": "gpt-4o-mini-transcribe"}
    assert view["audio"]["input"]["turn_detection"]["threshold"] == 0.9
    assert "eagerness" not in view["audio"]["input"]["turn_detection"]

    desk.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
    assert desk.session.config.view["audio"]["input"]["turn_detection"] is None


def test_turn_detection_is_merged_while_its_type_stays() -> None:
    """An update of the same type changes what it names; another type is taken as a whole, with its own defaults."""
    desk = Desk()

    def updated(**detection: Any) -> dict[str, Any]:
        desk.send("session.update", session={"audio": {"input": {"turn_detection": detection}}})
        shown: dict[str, Any] = desk.session.config.view["audio"]["input"]["turn_detection"]
        return shown

    first = updated(type="server_vad", threshold=0.9, idle_timeout_ms=6000)
    second = updated(type="server_vad", silence_duration_ms=200)
    third = updated(type="server_vad", threshold=None, idle_timeout_ms=None)
    other = updated(type="semantic_vad", eagerness="low")
    again = updated(type="server_vad")

    assert second == {**first, "silence_duration_ms": 200}
    assert (third["threshold"], third["idle_timeout_ms"], third["silence_duration_ms"]) == (0.5, None, 200)
    assert other == {
        "type": "semantic_vad",
        "eagerness": "low",
        "create_response": True,
        "interrupt_response": True,
    }
    assert (again["threshold"], again["silence_duration_ms"]) == (0.5, 500)


@pytest.mark.parametrize("audio", [None, {"input": None, "output": None}])
def test_null_clears_the_audio(audio: Any) -> None:
    """Null for audio, or for a side of it, is the audio of a new session."""
    desk = Desk()
    fresh = desk.session.config.view["audio"]
    desk.send("session.update", session=AGENTS_PY)
    assert desk.session.config.view["audio"] != fresh

    desk.send("session.update", session={"audio": audio})

    assert desk.session.config.view["audio"] == fresh


def test_an_update_in_mid_conversation_counts_from_the_next_turn() -> None:
    """New instructions and sampling hold for the next turn; the conversation stays."""
    desk = Desk()
    desk.answer(desk.ask("one"))

    desk.send(
        "session.update", session={"type": "realtime", "instructions": "Rhyme.", "seed": 3, "max_output_tokens": 5}
    )
    turn = desk.ask("two")

    assert [u.text for u in turn.conversation] == ["Rhyme.", "one", "yes", "two"]
    assert (turn.sampling.seed, turn.sampling.max_output_tokens) == (3, 5)


def test_a_response_may_override_the_session() -> None:
    """Instructions and sampling of one response hold for it alone; null means: as in the session."""
    desk = Desk(instructions="Be kind.", max_output_tokens=100)

    first = desk.ask(instructions="Shout.", max_output_tokens=3, stop="!")
    desk.answer(first)
    second = desk.ask(instructions=None, max_output_tokens="inf", stop=None, temperature=None)

    assert (first.conversation[0].text, first.sampling.max_output_tokens) == ("Shout.", 3)
    assert first.sampling.stop == ("!",)
    assert (second.conversation[0].text, second.sampling.max_output_tokens) == ("Be kind.", 100)


EVERYTHING: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "seed": 3,
    "stop": "x",
    "stop_ids": [7, 9],
    "repetition_penalty": 1.1,
    "presence_penalty": -0.5,
    "frequency_penalty": 0.25,
    "logit_bias": {"7": -100, "9": 1.5},
    "logprobs": 2,
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "integer"}, "strict": True}},
    "speculation": 0,
    "priority": 3,
}
SAMPLING = Sampling(
    seed=3,
    max_output_tokens=512,
    temperature=0.5,
    top_p=0.9,
    stop=("x",),
    top_k=40,
    min_p=0.05,
    repetition_penalty=1.1,
    presence_penalty=-0.5,
    frequency_penalty=0.25,
    logit_bias=((7, -100.0), (9, 1.5)),
    stop_ids=(7, 9),
    logprobs=2,
    grammar=Grammar("json_schema", '{"type":"integer"}'),
    speculation=0,
    priority=3,
)


def asked(desk: Desk, options: dict[str, Any]) -> Sampling:
    """How the tokens of a response with these options are to be chosen."""
    desk.say("hi")
    desk.send("response.create", response=options)
    return desk.turns[-1].sampling


@pytest.mark.parametrize("where", ["session", "response"])
def test_all_that_may_be_asked_of_the_tokens_reaches_the_stages(where: str) -> None:
    """Every option makes its field of the sampling, said for the session or for one response; none is forgotten."""
    desk = Desk(max_priority=5)
    assert set(EVERYTHING) == set(EXTENSIONS)

    if where == "session":
        (updated,) = desk.send("session.update", session=EVERYTHING)
        assert {name: updated["session"][name] for name in EVERYTHING} == EVERYTHING

    assert asked(desk, EVERYTHING if where == "response" else {}) == SAMPLING


def test_null_takes_what_the_session_says_and_there_the_default() -> None:
    """A response's null is the session's value, and a session's null is nothing asked."""
    desk = Desk(max_priority=5)
    desk.send("session.update", session=EVERYTHING)
    first = asked(desk, dict.fromkeys(EVERYTHING))
    desk.answer(desk.turns[-1])
    desk.send("session.update", session=dict.fromkeys(EVERYTHING))

    assert first == SAMPLING
    assert asked(desk, {"seed": 1}) == Sampling(seed=1, max_output_tokens=512)


@pytest.mark.parametrize(
    ("form", "grammar"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, Grammar("json_schema", '{"type":"object"}')),
        ({"type": "regex", "pattern": "[a-z]+"}, Grammar("regex", "[a-z]+")),
        (None, None),
    ],
)
def test_text_may_have_a_form(form: Any, grammar: Grammar | None) -> None:
    """Plain text, any JSON object, or what a regular expression says; a response can be free of its session's."""
    desk = Desk()
    assert asked(desk, {"text": {"format": form}}).grammar == grammar


def test_a_response_may_be_free_of_its_sessions_form() -> None:
    """The session's schema holds for each response that does not say otherwise."""
    desk = Desk()
    desk.send("session.update", session={"text": EVERYTHING["text"]})
    first = asked(desk, {})
    desk.answer(desk.turns[-1])
    second = asked(desk, {"text": {"format": {"type": "text"}}})

    assert (first.grammar, second.grammar) == (SAMPLING.grammar, None)
