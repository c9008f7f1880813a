from __future__ import annotations

from tests.apps.gateway.harness import connected, gateway, text_of


async def test_a_conversation_of_several_turns() -> None:
    """Each turn is answered in order, with the whole conversation before it, and told event by event."""
    async with gateway() as running, connected(running) as client:
        first = await client.ask("hello there")
        second = await client.ask("and again")

    assert (text_of(first), text_of(second)) == ("You said: hello there", "You said: and again")
    assert [u.text for u in running.stages.turns[1].conversation] == [
        "hello there",
        "You said: hello there",
        "and again",
    ]
    assert client.told.types()[1:] == [*TURN, *TURN]


TURN = [
    "conversation.item.added",
    "conversation.item.done",
    "response.created",
    "rate_limits.updated",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    *["response.output_text.delta"] * 4,
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
]
