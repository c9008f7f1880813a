"""A whole deployment with supervised LLM workers against a real Kafka, and what its clients see when one is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from apps.supervisor.runtime import ask
from apps.supervisor.words import Report, Row, report_of
from tests.apps.clients import Client, session
from tests.apps.processes import Penstock, started
from tests.servers import unused_port

STARTED_S = 120.0
POLL_S = 0.02
TOLD_S = 5.0
"""Workers tell once a second what they have in hand; an answer that is over sooner was too short."""
ON_ITS_WAY_S = 0.02
"""A token that was published before its worker's death may reach the client so much later."""


class Deployment:
    """A gateway, the text and postprocessing stages, and a supervisor of LLM workers.

    `environment` names the Kafka, and a short folder of its own as XDG_RUNTIME_DIR.
    """

    def __init__(self, stack: AsyncExitStack, folder: Path, environment: dict[str, str]) -> None:
        self._stack, self._folder, self._environment = stack, folder, environment
        port = unused_port()
        self.gateway = self._start("gateway", "--port", str(port), port=port)
        self._others = [self._stage("text"), self._stage("postprocess")]

    def supervise(self, *options: str) -> Penstock:
        """Start a supervisor of LLM workers."""
        return self._stage("llm", *options)

    def _stage(self, *arguments: str) -> Penstock:
        port = unused_port()
        return self._start("stage", *arguments, "--health-port", str(port), port=port)

    def _start(self, *arguments: str, port: int) -> Penstock:
        return self._stack.enter_context(
            started(*arguments, folder=self._folder, port=port, environment=self._environment)
        )

    async def ready(self, *more: Penstock) -> None:
        """Return when everything serves."""
        for process in (self.gateway, *self._others, *more):
            await process.ready()

    def report(self) -> Report:
        """What the supervisor says of its workers."""
        (path,) = (Path(self._environment["XDG_RUNTIME_DIR"]) / "penstock").glob("*.sock")
        answer = ask(path)
        assert answer is not None
        return report_of(answer)

    async def until(self, holds: Callable[[list[Row]], bool], *, within_s: float = STARTED_S) -> list[Row]:
        """The workers, once `holds` is true of them."""
        async with asyncio.timeout(within_s):
            while not holds(rows := (await asyncio.to_thread(self.report)).workers):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
        return rows

    async def settled(self, replicas: int, standbys: int) -> list[Row]:
        """The workers, once so many serve and wait."""

        def all_there(rows: list[Row]) -> bool:
            roles = [row.role for row in rows]
            return roles.count("active") == replicas and roles.count("standby") == standbys

        return await self.until(all_there)


class Talk:
    """One client's answer in the making, with the time of each token."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.times: list[float] = []
        self.text = ""

    async def ask(self, response: dict[str, Any], *, began: asyncio.Event, characters: int) -> None:
        """Read one answer; `began` is set once so many characters of it have come."""
        self.times.clear()
        await self._client.ask(response)
        while (ended := await self._client._next()) is None:
            self.times.append(time.monotonic())
            if len(self._client.text) >= characters:
                began.set()
        assert ended["status"] in ("completed", "incomplete"), ended
        self.text = "".join(part["text"] for item in ended["output"] for part in item["content"])
        assert self.text == self._client.text

    def wait(self, at: float) -> float:
        """Seconds from `at` to the next token that was not on its way then; none if the answer was over."""
        return next((one - at for one in self.times if one > at + ON_ITS_WAY_S), 0.0)


async def answers(talks: Sequence[Talk], response: dict[str, Any]) -> None:
    """Let all ask at once, and read their answers to the end."""
    async with asyncio.TaskGroup() as tasks:
        for talk in talks:
            tasks.create_task(talk.ask(response, began=asyncio.Event(), characters=0))


async def struck(
    deployment: Deployment, talks: Sequence[Talk], response: dict[str, Any], number: signal.Signals, *, characters: int
) -> tuple[Row, float]:
    """Let all ask at once, and send a signal to the busiest worker when every answer has `characters`.

    Gives that worker, and how many seconds from then on the last of them waited for the next token.
    """
    begun = [asyncio.Event() for _ in talks]
    async with asyncio.TaskGroup() as tasks:
        for talk, began in zip(talks, begun, strict=True):
            tasks.create_task(talk.ask(response, began=began, characters=characters))
        for began in begun:
            await began.wait()
        rows = await deployment.until(lambda rows: any(row.in_hand for row in rows), within_s=TOLD_S)
        victim = max(rows, key=lambda row: row.in_hand)
        strike(victim, number)
        at = time.monotonic()
    return victim, max(talk.wait(at) for talk in talks)


def strike(row: Row, number: signal.Signals) -> None:
    """Send a worker a signal."""
    assert row.pid is not None
    os.kill(row.pid, number)


async def talks(stack: AsyncExitStack, url: str, count: int) -> list[Talk]:
    """So many sessions at the gateway."""
    return [Talk(await stack.enter_async_context(session(url))) for _ in range(count)]
