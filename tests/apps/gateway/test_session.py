"""What a session does with what its client asks."""

from __future__ import annotations

import pytest

from tests.apps.gateway.desk import RATES, Desk, error_of, types
from tests.apps.gateway.harness import text_of, user


def test_an_assistant_may_speak_first() -> None:
    """Where nothing from the user waits for an answer, the response's own instructions are what is answered."""
    desk = Desk(instructions="Be kind.")

    desk.send("response.create", response={"instructions": "Greet the user."})
    greeting = desk.turns[-1]
    desk.answer(greeting, "Hello!")
    desk.send("response.create", response={"instructions": "Ask for the name."})

    assert [(u.role, u.text) for u in greeting.conversation] == [("system", "Be kind."), ("user", "Greet the user.")]
    assert [u.text for u in desk.turns[-1].conversation] == ["Be kind.", "Hello!", "Ask for the name."]


def test_a_greeting_stands_before_what_is_said_meanwhile() -> None:
    """An assistant's first words come first, so that the user's, sent at once, are answered next."""
    desk = Desk()
    desk.send("response.create", response={"instructions": "Say hello."})
    desk.say("what are your opening hours?", id="u1")

    opened = desk.delta(desk.turns[-1], 0, "Hello!")
    desk.finish(desk.turns[-1], length=6)
    desk.send("response.create")

    assert next(e for e in opened if e["type"] == "conversation.item.added")["previous_item_id"] is None
    assert [u.text for u in desk.turns[-1].conversation] == ["Hello!", "what are your opening hours?"]


def test_metadata_and_limits_are_echoed() -> None:
    """`response.created` shows the metadata, the limits of the client follow, and `response.done` repeats it."""
    desk = Desk()

    turn = desk.ask(metadata={"client_event_id": "e1"}, max_output_tokens=44)
    response = desk.answer(turn)

    created = next(event for event in desk.told.events if event["type"] == "response.created")
    assert created["response"]["metadata"] == response["metadata"] == {"client_event_id": "e1"}
    assert created["response"]["max_output_tokens"] == 44
    rates = next(event for event in desk.told.events if event["type"] == "rate_limits.updated")
    assert rates["rate_limits"] == RATES


def test_one_response_at_a_time_writes_to_the_conversation() -> None:
    """A second response is refused while the first is under way, by the code that clients know."""
    desk = Desk()
    turn = desk.ask()

    error = error_of(desk.send("response.create", event_id="second"))

    assert (error["code"], error["event_id"]) == ("conversation_already_has_active_response", "second")
    assert desk.answer(turn)["status"] == "completed"


def test_responses_beside_the_conversation() -> None:
    """With `conversation: none` a response runs beside, on its own input, and leaves no trace in the conversation."""
    desk = Desk()
    main = desk.ask("question")
    known = desk.session.conversation.ids[-1]
    items = [user("classify this"), {"type": "item_reference", "id": known}]
    desk.send("response.create", response={"conversation": "none", "input": items, "instructions": "Classify."})
    beside = desk.turns[-1]

    desk.delta(main, 0, "ma")
    desk.delta(beside, 0, "la")
    desk.delta(main, 2, "in")
    done = desk.finish(beside, length=2)[-1]["response"]
    desk.finish(main, length=4)

    assert [u.text for u in beside.conversation] == ["Classify.", "classify this", "question"]
    assert desk.keys[0] == "sess_1"
    assert desk.keys[1] == f"sess_1/{beside.turn}"
    assert done["conversation_id"] is None
    assert text_of(done) == "la"
    assert [item.text for item in desk.session.conversation] == ["question", "main"]


def test_responses_of_a_session_are_bounded() -> None:
    """Too many beside the conversation are refused with a hint when to come back; its own has its place always."""
    desk = Desk(max_responses=3)
    for _ in range(2):
        desk.send("response.create", response={"conversation": "none", "input": [user("x")]})

    error = error_of(desk.send("response.create", response={"conversation": "none"}))
    own = desk.ask("hi")

    assert error["code"] == "too_many_responses"
    assert error["retry_after"] > 0
    assert desk.answer(own)["status"] == "completed"


def test_items_by_the_clients_ids() -> None:
    """Items keep the client's ids, stand where it says, and can be retrieved and deleted."""
    desk = Desk()
    desk.say("first", id="item_a")
    desk.say("last", id="b" * 32)
    root = desk.send("conversation.item.create", item=user("zeroth", id="z"), previous_item_id="root")
    middle = desk.send("conversation.item.create", item=user("middle", id="m"), previous_item_id="item_a")

    assert types(root) == ["conversation.item.added", "conversation.item.done"]
    assert root[0]["previous_item_id"] is None
    assert middle[1]["previous_item_id"] == "item_a"
    assert [item.text for item in desk.session.conversation] == ["zeroth", "first", "middle", "last"]

    (shown,) = desk.send("conversation.item.retrieve", item_id="m")
    assert shown["item"]["content"] == [{"type": "input_text", "text": "middle"}]
    assert types(desk.send("conversation.item.delete", item_id="m")) == ["conversation.item.deleted"]
    assert error_of(desk.send("conversation.item.retrieve", item_id="m"))["code"] == "item_retrieve_invalid_item_id"


def test_an_item_is_added_once() -> None:
    """An item whose id is there already is refused, also while the answer that will have it is under way."""
    desk = Desk()
    desk.say("a", id="x")
    turn = desk.ask()

    assert error_of(desk.say("a", id="x"))["code"] == "item_create_duplicate_item_id"
    assert (
        error_of(desk.say("b", id="item_" + turn.turn.removeprefix("resp_")))["code"] == "item_create_duplicate_item_id"
    )


@pytest.mark.parametrize("event_id", ["", "same"])
def test_an_event_id_only_names_the_event(event_id: str) -> None:
    """Some clients give all their events one id: each is done, and an error names it."""
    desk = Desk()
    for _ in range(2):
        assert types(desk.send("conversation.item.create", event_id=event_id, item=user("hi")))
        assert types(desk.send("response.create", event_id=event_id))[0] == "response.created"
        desk.answer(desk.turns[-1])

    assert error_of(desk.send("response.cancel", event_id=event_id))["event_id"] == event_id
    assert [item.text for item in desk.session.conversation] == ["hi", "yes", "hi", "yes"]


def test_calls_stand_in_the_history() -> None:
    """Function calls and their results are items, and the model is told of them in words."""
    desk = Desk()
    call = {"type": "function_call", "name": "weather", "arguments": '{"at":"Rome"}', "call_id": "c1"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}

    added = desk.send("conversation.item.create", item=call)
    desk.send("conversation.item.create", item=output)
    turn = desk.ask("so?")

    assert added[0]["item"]["name"] == "weather"
    assert [u.text for u in turn.conversation] == [
        '[calls weather({"at":"Rome"})]',
        "[result of the call: sunny]",
        "so?",
    ]


def test_a_history_told_again_is_taken() -> None:
    """Assistant and system messages, and speech of which there is a transcript, are taken as text."""
    desk = Desk()
    parts = [
        ("system", {"type": "input_text", "text": "You are a pirate."}),
        ("user", {"type": "input_audio", "transcript": "hello", "audio": None}),
        ("assistant", {"type": "output_audio", "transcript": "ahoy"}),
        ("assistant", {"type": "output_text", "text": "matey"}),
    ]
    for role, part in parts:
        desk.send("conversation.item.create", item={"type": "message", "role": role, "content": [part]})

    turn = desk.ask("bye")

    assert [(u.role, u.text) for u in turn.conversation] == [
        ("system", "You are a pirate."),
        ("user", "hello"),
        ("assistant", "ahoy"),
        ("assistant", "matey"),
        ("user", "bye"),
    ]


@pytest.mark.parametrize(("end", "code"), [(0, "item_truncate_no_audio"), (-1, "integer_below_min_value")])
def test_text_cannot_be_truncated(end: int, code: str) -> None:
    """Truncation is for speech; of a text item it is refused with a typed error."""
    desk = Desk()
    item = desk.answer(desk.ask())["output"][0]["id"]

    told = desk.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=end)

    assert error_of(told)["code"] == code


def test_a_long_conversation_forgets_its_oldest_exchanges() -> None:
    """Beyond the bound the oldest exchanges go as wholes; the system's words and the newest stay."""
    desk = Desk(max_conversation_items=6, instructions="Prompt.")
    desk.send("conversation.item.create", item={**user("Rules."), "role": "system"})
    for number in range(9):
        desk.answer(desk.ask(f"q{number}"), f"a{number}")

    assert [u.text for u in desk.ask("q9").conversation] == ["Prompt.", "Rules.", "q7", "a7", "q8", "a8", "q9"]


def test_what_a_conversation_forgets_is_told() -> None:
    """An item that goes for want of room is deleted in the client's eyes, too, after what took its place was added."""
    desk = Desk(max_conversation_items=3)
    for number in range(3):
        desk.say(f"u{number}", id=f"u{number}")

    told = desk.say("u3", id="u3")
    opened = desk.delta(desk.ask("u4", conversation="auto"), 0, "yes")
    deleted = [e["item_id"] for e in desk.told.events if e["type"] == "conversation.item.deleted"]

    assert types(told) == ["conversation.item.added", "conversation.item.done", "conversation.item.deleted"]
    assert types(opened)[-1] == "conversation.item.deleted"
    assert deleted == ["u0", "u1", "u2"]
    assert "u2" not in desk.session.conversation


def test_too_much_input_is_refused() -> None:
    """The input of one response is bounded like a conversation."""
    desk = Desk(max_conversation_bytes=100_000)

    error = error_of(desk.send("response.create", response={"input": [user("x" * 40_000)] * 3}))

    assert (error["code"], error["param"]) == ("string_above_max_length", "response.input")
