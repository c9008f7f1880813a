"""A gateway is killed with -9 while somebody speaks, who goes on at another one: processes, sockets and Kafka."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from pipeline.messages import Message, Turn
from pipeline.voice import Spoken
from tests.apps.gateway.checks import Event
from tests.apps.gateway.deployed import Deployment, deployed
from tests.apps.gateway.harness import echo
from tests.apps.gateway.test_resume_kafka import DEADLINE_S, Talker
from tests.apps.gateway.voice_desk import MS, silence
from tests.apps.gateway.voiced import Ears, utterance
from tests.services import KafkaService

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

HEARS_AND_SPEAKS = {"PENSTOCK_GATEWAY_AUDIO_HEARS": "true", "PENSTOCK_GATEWAY_AUDIO_SPEAKS": "true"}
TRANSCRIPTION = "conversation.item.input_audio_transcription."


@pytest.fixture
async def deployment(kafka: KafkaService, tmp_path: Path) -> AsyncIterator[Deployment]:
    """Give a deployment of two gateways that hear and speak."""
    async with deployed(kafka, tmp_path, **HEARS_AND_SPEAKS) as running:
        yield running


async def speak(talker: Talker, sound: bytes) -> None:
    """Send audio in pieces."""
    for at in range(0, len(sound), 100 * MS * 2):
        piece = b64encode(sound[at : at + 100 * MS * 2]).decode()
        await talker.send({"type": "input_audio_buffer.append", "audio": piece})


def spoken(turn: Turn) -> list[Message]:
    """Return the answer to a turn, in words and 300 ms of sound in three pieces."""
    assert turn.voice is not None
    return [*echo(turn), *(Spoken(turn.session, turn.turn, n * 100 * MS, silence(100), last=n == 2) for n in range(3))]


def last(talker: Talker, kind: str) -> Event:
    """Return the last event of a kind."""
    return [event for event in talker.told.events if event["type"] == kind][-1]


async def test_a_gateway_is_killed_in_mid_word(deployment: Deployment) -> None:
    """What was begun is heard to its end, the answer in mid-word is spoken on, and what is said then is heard."""
    first, second = deployment.gateways
    ears = Ears(deployment.stages.bus)
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
        hearing = tasks.create_task(ears.run())
        await asyncio.gather(first.ready(), second.ready(), ears.ready.wait())
        talker = Talker(stack)
        await talker.connect(first)
        audio = {"input": {"transcription": {"model": "any"}}}
        await talker.send({"type": "session.update", "session": {"type": "realtime", "audio": audio}})
        await speak(talker, utterance("one", "two", after_ms=0))
        await talker.until(f"{TRANSCRIPTION}delta")
        await asyncio.to_thread(first.kill)
        with pytest.raises(ConnectionClosed):
            await talker.until("response.done")
        await talker.connect(second)
        await talker.until(f"{TRANSCRIPTION}completed")
        heard = last(talker, f"{TRANSCRIPTION}completed")["transcript"]

        turn = await deployment.stages.asked.get()
        pieces, reply_to = spoken(turn), deployment.stages.headers[-1]["reply-to"]
        await deployment.say(pieces[:-2], reply_to)
        await talker.until("response.output_audio.delta")
        third = deployment.start()
        await third.ready()
        await asyncio.to_thread(second.kill)
        await deployment.say(pieces[-3:], reply_to)
        with pytest.raises(ConnectionClosed):
            await talker.until("response.done")
        await talker.connect(third)
        await talker.until("response.done")
        await speak(talker, utterance("three"))
        await talker.until(f"{TRANSCRIPTION}completed")
        hearing.cancel()

    response = last(talker, "response.done")["response"]
    assert heard == "one two"
    assert response["output"][0]["content"][0]["transcript"] == "You said: one two"
    assert talker.told.audio(response["output"][0]["id"]) == silence(300)
    assert last(talker, f"{TRANSCRIPTION}completed")["transcript"] == "three"
