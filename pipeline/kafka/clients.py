"""aiokafka's clients: how one is told where to connect, is started within a deadline, and is stopped for good."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Protocol, TypeVar

from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError

from pipeline.errors import BusUnavailable
from pipeline.kafka.security import security, why_not
from pipeline.kafka.settings import KafkaSettings

log = logging.getLogger(__name__)

RETRY_S = 0.25
STOP_S = 5.0

T = TypeVar("T")


class Client(Protocol):
    """What aiokafka's producers and consumers have in common."""

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Disconnect."""


C = TypeVar("C", bound=Client)


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """What every client is told about where and how to connect."""
    return {
        "bootstrap_servers": settings.bootstrap,
        "client_id": settings.client_id,
        "request_timeout_ms": settings.request_timeout_ms,
        **security(settings),
    }


async def connected(build: Callable[[], C], settings: KafkaSettings, *, extra_s: float = 0.0) -> C:
    """A started client; tries anew for as long as a start may take, and `extra_s` longer.

    Raises:
        BusUnavailable: Kafka could not be reached in that time; it says what kept us from it, as far as we can tell.
        SettingsError: a file of a certificate cannot be used.
    """
    last = "no answer in time"
    try:
        async with asyncio.timeout(settings.start_timeout_ms / 1000 + extra_s):
            while True:
                try:
                    return await _started(build())
                except KafkaConnectionError:
                    last = ""
                except KafkaError as error:
                    last = str(error)
                await asyncio.sleep(RETRY_S)
    except TimeoutError:
        raise BusUnavailable(settings.bootstrap, last or await why_not(settings)) from None


async def _started(client: C) -> C:
    async with AsyncExitStack() as on_failure:
        on_failure.push_async_callback(stop, client)
        await client.start()
        on_failure.pop_all()
    return client


async def stop(client: Client, *, seconds: float = STOP_S) -> None:
    """Stop `client` within a deadline, and leave no task and no connection behind."""
    try:
        async with asyncio.timeout(seconds):
            await client.stop()
    except TimeoutError:
        log.warning("%s did not stop within %.0f s; its connections are cut", type(client).__name__, seconds)
    except KafkaError as error:
        log.warning("%s stopped with an error: %s", type(client).__name__, error)
    except asyncio.CancelledError:
        # aiokafka awaits a fetch that it has just cancelled: if that one was backing off, this looks like ours
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
    finally:
        await _cut(client)


async def _cut(client: Any) -> None:
    """End what `stop` may have left: aiokafka's own tasks, then the connections."""
    parts = [getattr(client, name, None) for name in ("_fetcher", "_coordinator", "_sender")]
    tasks = [task for part in parts for task in _tasks(part) if not task.done()]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=STOP_S)
    await (client.client if hasattr(client, "client") else client._client).close()  # noqa: SLF001 (no public way)


def _tasks(part: Any) -> list[asyncio.Task[Any]]:
    names = ("_fetch_task", "_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_sender_task")
    found = [getattr(part, name, None) for name in (*names, "_reset_committed_task")]
    return [task for task in (*found, *getattr(part, "_pending_tasks", ())) if task is not None]


async def in_time(work: Awaitable[T], settings: KafkaSettings, seconds: float) -> T:
    """The outcome of a request.

    Raises:
        BusUnavailable: there was none within `seconds`, or it was an error.
    """
    try:
        async with asyncio.timeout(seconds):
            return await work
    except (TimeoutError, KafkaTimeoutError):
        raise BusUnavailable(settings.bootstrap, f"no answer within {seconds:g} s") from None
    except KafkaError as error:
        raise BusUnavailable(settings.bootstrap, str(error)) from error
