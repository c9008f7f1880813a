"""The chat in a real browser when its gateway dies: it comes back by itself, and nothing is lost or twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from apps.gateway.asgi import StaticMount
from apps.local import PAGES
from tests.apps.chat.conftest import Visit
from tests.apps.gateway.deployed import ANSWER, Deployment, deployed
from tests.apps.gateway.harness import gateway
from tests.servers import unused_port
from tests.services import KafkaService

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.slow, pytest.mark.timeout(180)]

DEADLINE_S = 100


@pytest_asyncio.fixture(loop_scope="package")
async def deployment(kafka: KafkaService, tmp_path: Path) -> AsyncIterator[Deployment]:
    """Give a deployment of two gateways."""
    async with deployed(kafka, tmp_path) as running:
        yield running


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_a_gateway_that_restarts_in_mid_answer(deployment: Deployment, browse: Visit, how: str) -> None:
    """The page whose gateway is killed or stopped, and started again, shows the whole answer, each word once."""
    async with asyncio.timeout(DEADLINE_S):
        gateway = deployment.gateways[0]
        await gateway.ready()
        visitor = await browse(gateway.url.replace("ws://", "http://"))
        await visitor.ask("hi")
        pieces, reply_to = await deployment.asked()
        await deployment.say(pieces[:2], reply_to)
        await expect(visitor.answers).to_have_text("one two")

        await asyncio.to_thread(gateway.kill if how == "killed" else gateway.stop)
        await deployment.say(pieces[2:4], reply_to)
        await visitor.sees_state("Reconnecting…")
        await deployment.start(gateway.port).ready()
        await visitor.page.evaluate("dispatchEvent(new Event('online'))")  # it need not wait for its next attempt
        await expect(visitor.answers).to_have_text("one two three four")
        await deployment.say(pieces[4:], reply_to)
        await expect(visitor.answers).to_have_text(ANSWER)
        await expect(visitor.stop).to_be_hidden()

        await visitor.ask("more")
        await deployment.say(*await deployment.asked())
        await expect(visitor.answers).to_have_text([ANSWER, ANSWER])

    assert [said.text for said in deployment.stages.turns[-1].conversation] == ["hi", ANSWER, "more"]
    assert len(deployment.stages.turns) == 2
    assert deployment.stages.cancels.empty()


async def test_a_question_that_the_gateway_died_on(deployment: Deployment, browse: Visit) -> None:
    """A question sent just as the gateway died is answered once, whether or not the gateway had taken it."""
    async with asyncio.timeout(DEADLINE_S):
        gateway = deployment.gateways[0]
        await gateway.ready()
        visitor = await browse(gateway.url.replace("ws://", "http://"))
        await visitor.sees_state("Online")
        await visitor.page.evaluate("document.querySelector('penstock-chat').send('hi')")
        await asyncio.to_thread(gateway.kill)
        await visitor.sees_state("Reconnecting…")
        await deployment.start(gateway.port).ready()
        await visitor.page.evaluate("dispatchEvent(new Event('online'))")
        await deployment.say(*await deployment.asked())
        await expect(visitor.answers).to_have_text(ANSWER)

    assert len(deployment.stages.turns) == 1


async def test_a_session_that_is_gone(browse: Visit) -> None:
    """Where a restart has forgotten the session, the chat begins a new one by itself and tells it what was said."""
    port = unused_port()
    pages = (StaticMount(PAGES),)
    async with asyncio.timeout(DEADLINE_S):
        async with gateway(port=port, static=pages, patience_s=DEADLINE_S) as first:
            visitor = await browse(first.http)
            await visitor.ask("hi")
            await expect(visitor.answers).to_have_text("You said: hi")
        async with gateway(port=port, static=pages, patience_s=DEADLINE_S) as second:
            await visitor.page.evaluate("dispatchEvent(new Event('online'))")
            await visitor.ask("more")
            await expect(visitor.answers).to_have_text(["You said: hi", "You said: more"])

    assert second.count("refused_total", why="resume_failed") == 1
    assert [said.text for said in second.stages.turns[-1].conversation] == ["hi", "You said: hi", "more"]
