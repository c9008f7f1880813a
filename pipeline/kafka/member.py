"""A group's member: rebalances as aiokafka does them, made safe for work in hand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, RebalanceInProgressError

from pipeline.bus import NO_NOTES, Listener, Part
from pipeline.errors import BusUnavailable, OwnershipLost
from pipeline.kafka.clients import connected, in_time, stop
from pipeline.kafka.lookup import Lookup
from pipeline.kafka.settings import KafkaSettings
from pipeline.kafka.source import Source

log = logging.getLogger(__name__)

HEARTBEAT_MS = 500
"""Also how soon a member hears of a rebalance, while the others wait for it."""

COMMIT_RETRY_S = 0.05


class KafkaMember(Source):
    """See `Member`.

    A dynamic member that the group has given up (it or the broker was away too long) lets go of all that it held and
    joins anew. A static one is not let in again by itself, as aiokafka would do: it might rob its successor, and
    nothing tells it whether there is one. It ends with `OwnershipLost`.
    """

    def __init__(
        self, settings: KafkaSettings, lookup: Lookup, group: str, topics: Collection[str], listener: Listener
    ) -> None:
        super().__init__(settings, lookup)
        self._group = group
        self._topics = topics
        self._listener = listener
        self._between = asyncio.Event()  # cleared between a revocation and the next assignment
        self._between.set()
        self._generation: int | None = None
        self._life = 0  # counts how often everything was given up
        self._expelled = False
        self._lost: OwnershipLost | None = None
        self._failure: Exception | None = None

    async def join(self) -> None:
        """Return when the group has assigned partitions, and the listener knows."""
        patience = self._settings.rebalance_timeout_ms / 1000
        self._generation = None
        await connected(self._build, self._settings, extra_s=patience)
        try:
            async with asyncio.timeout(patience):
                await self._settled.wait()
        except TimeoutError:
            raise BusUnavailable(self._settings.bootstrap, f"group {self._group!r} assigned nothing in time") from None
        self._refuse()

    def _build(self) -> AIOKafkaConsumer:
        name = self._settings.topic_prefix
        self._consumer = AIOKafkaConsumer(
            **self._options(),
            group_id=name + self._group,
            group_instance_id=self._settings.group_instance_id,
            session_timeout_ms=self._settings.session_timeout_ms,
            heartbeat_interval_ms=min(HEARTBEAT_MS, self._settings.session_timeout_ms // 3),
            rebalance_timeout_ms=self._settings.rebalance_timeout_ms,
            partition_assignment_strategy=(_own_assignor(),),
        )
        self._consumer.subscribe([name + topic for topic in self._topics], listener=_Hooks(self))
        return self._consumer

    def _refuse(self) -> None:
        if self._lost is not None:
            raise OwnershipLost(self._lost.group, self._lost.why)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _lose(self, why: str) -> OwnershipLost:
        """From now on everything here says so."""
        if self._lost is None:
            self._lost = OwnershipLost(self._group, why)
            log.error("%s", self._lost)
        self._between.set()
        self._nudge()
        return self._lost

    def _expel(self, why: str) -> None:
        """The group does not know this member any more."""
        if self._settings.group_instance_id is not None:
            self._lose(why)
        elif not self._expelled:
            log.warning("group %r has given this member up, which joins anew: %s", self._group, why)
            self._expelled = self._broken = True
            self._settled.clear()
            self._between.set()
            self._nudge()

    def _failed(self, error: KafkaError) -> Exception:
        # errors of the coordination that aiokafka has no name for come as "UnknownError"; a fenced id is one of them
        if self._settings.group_instance_id is not None and "UnknownError" in str(error):
            return self._lose(f"the group refuses {self._settings.group_instance_id!r}: {error}")
        return super()._failed(error)

    async def revoked(self) -> None:
        """The consumer is about to join anew: to take part in a rebalance, or because the group has given it up."""
        coordinator = self._consumer._coordinator  # noqa: SLF001 (nothing public tells the two apart)
        if self._generation is None:
            return
        if not coordinator.member_id:
            self._expel("it was silent too long, or another has its identity")
            raise asyncio.CancelledError  # ends aiokafka's coordination, which would otherwise rejoin
        self._settled.clear()
        await self._tell(self._listener.revoked(list(self._parts)))
        self._between.clear()

    async def assigned(self, taps: Collection[Any]) -> None:
        """The group has decided."""
        coordinator = self._consumer._coordinator  # noqa: SLF001
        generation = coordinator.generation
        missed = self._generation is not None and generation - self._generation not in (0, 1)
        self._generation = generation
        self._own(taps)
        self._between.set()
        if missed:  # in a generation without us, others may have owned what we hold: give all up before taking it again
            await self._give_all_up()
        await self._tell(self._listener.assigned(list(self._parts)))
        self._settled.set()

    async def _give_all_up(self) -> None:
        self._life += 1
        await self._tell(self._listener.assigned([]))

    async def _tell(self, telling: Any) -> None:
        """What the listener raises, aiokafka would log and forget; here it is the next poll's error."""
        try:
            await telling
        except Exception as error:  # noqa: BLE001 - whatever it is, the next poll raises it
            self._failure = error
            self._nudge()

    async def note(self, part: Part) -> str:
        """See `Member.note`."""
        if (tap := self._parts.get(part)) is None:
            return ""
        coordinator = self._consumer._coordinator  # noqa: SLF001 (`committed` tells the offset alone)
        asking = coordinator.fetch_committed_offsets([tap])
        found = await in_time(asking, self._settings, self._settings.request_timeout_ms / 1000)
        return str(found[tap].metadata) if tap in found else ""

    async def commit(self, offsets: Mapping[Part, int], notes: Mapping[Part, str] = NO_NOTES) -> None:
        """See `Member.commit`. During a rebalance it waits; then what went to others is left out."""
        self._refuse()
        if self._between.is_set() and (foreign := offsets.keys() - self._parts.keys()):
            raise OwnershipLost(self._group, f"{min(foreign)} belongs to another member")
        patience = self._settings.request_timeout_ms / 1000
        try:
            async with asyncio.timeout(patience):
                life = self._life
                while not await self._committed(offsets, notes, life):  # noqa: ASYNC110 (the next attempt is a request)
                    await asyncio.sleep(COMMIT_RETRY_S)
        except TimeoutError:
            raise BusUnavailable(self._settings.bootstrap, f"no commit within {patience:g} s") from None

    async def _committed(self, offsets: Mapping[Part, int], notes: Mapping[Part, str], life: int) -> bool:
        """Commit; False if a rebalance came in between. Of what has been given up since, nothing is committed."""
        await self._between.wait()
        self._refuse()
        if self._expelled or life != self._life:
            return True
        held = self._parts
        ours = {held[part]: (offset, notes.get(part, "")) for part, offset in offsets.items() if part in held}
        if not ours:
            return True
        try:
            await self._consumer.commit(ours)
        except IllegalStateError:
            return False
        except CommitFailedError as error:
            if isinstance(error.__cause__, RebalanceInProgressError):
                return False
            self._expel(f"a commit was refused: {error.__cause__}")
            self._refuse()
        except KafkaError as error:
            raise BusUnavailable(self._settings.bootstrap, str(error)) from error
        return True

    async def _start_of(self, part: Part) -> int:
        asking = self._consumer.committed(self._parts[part])
        committed = await in_time(asking, self._settings, self._settings.request_timeout_ms / 1000)
        return await super()._start_of(part) if committed is None else int(committed)

    async def _renew(self) -> None:
        if not self._expelled:
            await self._tell(self._listener.revoked(list(self._parts)))
        self._expelled = False
        self._settled.clear()
        self._between.clear()
        await stop(self._consumer)
        await self._give_all_up()
        await self.join()

    async def close(self) -> None:
        """Leave the group (a static member only disconnects)."""
        if self._consumer is not None:
            await stop(self._consumer)


class _Hooks(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Passes aiokafka's calls on."""

    def __init__(self, member: KafkaMember) -> None:
        self._member = member

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        """Called before joining."""
        await self._member.revoked()

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        """Called after joining."""
        await self._member.assigned(assigned)


def _own_assignor() -> type[Any]:
    """A sticky assignor of its own for each member: aiokafka's keeps the last assignment in its class."""
    return type("OwnStickyAssignor", (StickyPartitionAssignor,), {"member_assignment": None, "generation": -1})
