"""Members of a group that are processes of their own, stopped and killed by the kernel."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from pipeline.kafka import KafkaSettings
from tests.pipeline.buses import MANY, PARTITIONS, Peer, eventually, fill, kafka_bus, settings_for, take
from tests.services import KafkaService

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(120)]

STARTED = 40.0
"""Seconds that a process on a busy machine may take to start and join."""

MEMBER = """
import asyncio, sys
from pipeline.kafka import KafkaBus, KafkaSettings
from tests.pipeline.buses import Peer

async def main():
    settings = KafkaSettings(bootstrap=sys.argv[1], topic_prefix=sys.argv[2], group_instance_id=sys.argv[3] or None,
                             session_timeout_ms=int(sys.argv[4]))
    async with KafkaBus(settings) as bus, bus.member("g", ["many"], Peer()) as member:
        print("joined", flush=True)
        while True:
            await member.poll(limit=10, timeout=0.2)

try:
    asyncio.run(main())
except Exception as error:
    print(type(error).__name__, flush=True)
"""


@asynccontextmanager
async def member(settings: KafkaSettings) -> AsyncGenerator[asyncio.subprocess.Process, None]:
    """A process that has joined the group `g`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        MEMBER,
        settings.bootstrap,
        settings.topic_prefix,
        settings.group_instance_id or "",
        str(settings.session_timeout_ms),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert await said(process) == "joined"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def said(process: asyncio.subprocess.Process) -> str:
    """The next line that a process prints."""
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), STARTED)).decode().strip()


async def test_a_killed_process_is_followed_at_once_under_its_static_identity(kafka: KafkaService) -> None:
    """A session timeout of half a minute does not matter to who takes over the identity."""
    settings = settings_for(kafka, session_timeout_ms=30_000, group_instance_id="one")
    async with kafka_bus(settings) as bus:
        await fill(bus, MANY, 20)
        async with member(settings) as process:
            process.kill()
            await process.wait()
            began = time.monotonic()
            peer = Peer()
            async with bus.member("g", ["many"], peer) as heir:
                took = time.monotonic() - began
                assert len(await take(heir, 20)) == 20

    assert len(peer.parts) == PARTITIONS
    assert took < 15


async def test_a_stopped_process_that_wakes_up_does_no_harm(kafka: KafkaService) -> None:
    """Stopped by the kernel, followed by another under its identity, and awake again: it ends with the reason."""
    settings = settings_for(kafka, session_timeout_ms=30_000, group_instance_id="one")
    async with kafka_bus(settings) as bus, member(settings) as process:
        process.send_signal(signal.SIGSTOP)
        peer = Peer()
        async with bus.member("g", ["many"], peer) as heir:
            process.send_signal(signal.SIGCONT)
            assert await said(process) == "OwnershipLost"
            await process.wait()
            await fill(bus, MANY, 20)
            records = await take(heir, 20)
            await heir.commit({record.part: record.offset + 1 for record in records})

    assert [what for what, _ in peer.calls] == ["assigned"]


async def test_the_group_goes_on_without_a_dynamic_member_that_hangs(kafka: KafkaService) -> None:
    """Its partitions go to the others after the session timeout; when it wakes up it comes back as a new member."""
    settings = settings_for(kafka)
    peer = Peer()
    async with kafka_bus(settings) as bus, bus.member("g", ["many"], peer), member(settings) as process:
        await eventually(lambda: len(peer.parts) == PARTITIONS // 2)
        process.send_signal(signal.SIGSTOP)
        await eventually(lambda: len(peer.parts) == PARTITIONS)
        process.send_signal(signal.SIGCONT)
        await eventually(lambda: len(peer.parts) == PARTITIONS // 2)
