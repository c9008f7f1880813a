"""The SDKs that people have, unmodified, against a gateway on a real port."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents.realtime import RealtimeAgent, RealtimeRunner
from openai import AsyncOpenAI
from websockets.exceptions import ConnectionClosedError

from tests.apps.gateway.checks import Told
from tests.apps.gateway.harness import DEADLINE_S, Running, gateway

MODEL = "penstock-demo"


def sdk(running: Running) -> AsyncOpenAI:
    """Return the SDK's client for this gateway."""
    return AsyncOpenAI(base_url=f"{running.http}/v1", api_key="none")


async def test_openai_sdk_holds_a_conversation() -> None:
    """The unmodified SDK holds a text conversation of several turns, and every event fits its own types."""
    told = Told()
    async with (
        gateway() as running,
        sdk(running) as client,
        client.realtime.connect(model="penstock-demo") as connection,
    ):
        answers = []
        await connection.session.update(
            session={"type": "realtime", "instructions": "Be kind.", "output_modalities": ["text"]}
        )
        for line in ("hello", "how are you?", "bye"):
            item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": line}]}
            await connection.conversation.item.create(item=item)
            await connection.response.create()
            async with asyncio.timeout(DEADLINE_S):
                async for event in connection:
                    told.add(event.to_dict(mode="json"))
                    if event.type == "response.output_text.done":
                        answers.append(event.text)
                    if event.type == "response.done":
                        assert event.response.status == "completed"
                        assert event.response.usage is not None
                        break

    assert answers == ["You said: hello", "You said: how are you?", "You said: bye"]
    last = running.stages.turns[-1].conversation
    assert [u.role for u in last] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert last[0].text == "Be kind."


async def test_openai_sdk_lists_the_models() -> None:
    """`client.models` lists and retrieves what is served."""
    async with gateway() as running, sdk(running) as client:
        listed = await client.models.list()
        one = await client.models.retrieve("penstock-demo")

    assert [model.id for model in listed.data] == ["penstock-demo", "penstock-tiny"]
    assert one.owned_by == "penstock"


async def test_openai_sdk_shows_an_unknown_model() -> None:
    """A model that is not served is told in an error event and in the close, and the SDK does not try again."""
    async with gateway() as running, sdk(running) as client, client.realtime.connect(model="gpt-9") as connection:
        event = await connection.recv()
        with pytest.raises(ConnectionClosedError, match="model_not_found"):
            await connection.recv()

    assert event.type == "error"
    assert event.error.code == "model_not_found"
    assert "penstock-demo" in event.error.message


async def test_sdk_extras_reach_the_stages() -> None:
    """`seed` and `temperature`, which the types do not know, are sent by the SDK and honoured."""
    async with gateway() as running, sdk(running) as client, client.realtime.connect(model="default") as connection:
        item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
        await connection.conversation.item.create(item=item)
        options: Any = {"seed": 7, "temperature": 0.5, "max_output_tokens": 9, "stop": "."}
        await connection.response.create(response=options)
        turn = await asyncio.wait_for(running.stages.asked.get(), DEADLINE_S)

    got = turn.sampling
    assert (got.seed, got.temperature, got.max_output_tokens, got.stop) == (7, 0.5, 9, (".",))


async def test_agents_sdk_runs_a_session() -> None:
    """The agents SDK's runner, with its defaults for speech, gets its answers in several turns and no error."""
    kinds: list[str] = []
    answers: list[str] = []
    async with gateway() as running:
        runner = RealtimeRunner(RealtimeAgent(name="A", instructions="Be brief."))
        config: Any = {"api_key": "none", "url": f"{running.ws}/v1/realtime?model=penstock-demo"}
        async with asyncio.timeout(DEADLINE_S), await runner.run(model_config=config) as session:
            for line in ("hello", "again"):
                await session.send_message(line)
                async for event in session:
                    kinds.append(event.type)
                    assert event.type != "error", event
                    if event.type == "raw_model_event":
                        raw: Any = event.data
                        kinds.append(raw.type)
                        assert raw.type not in ("error", "exception"), raw
                        if raw.type == "raw_server_event" and raw.data["type"] == "response.done":
                            answers.append(raw.data["response"]["output"][0]["content"][0]["text"])
                    if event.type == "agent_end":
                        break

    assert answers == ["You said: hello", "You said: again"]
    assert "output_text_delta" in kinds
    assert running.stages.turns[-1].conversation[0].text == "Be brief."
