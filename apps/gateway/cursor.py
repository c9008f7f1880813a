"""Where in the log a client stands: each event's id is a cursor, which only the gateways of one deployment can make.

An id holds a position and a tag (HMAC-SHA256, 96 bits) over it, whose key is made of the deployment's secret, the
tenant and the session: an id of another session, of another tenant, or made up, is none.
"""

from __future__ import annotations

import binascii
import hmac
import secrets
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple

from pipeline.errors import PenstockError

PREFIX = "event_"
PURPOSE = b"penstock cursor 1"
TAG_BYTES = 12
_POSITION = struct.Struct(">HQHIH")


class BadCursor(PenstockError):
    """An event id that was not made here for this session of this tenant."""


class Cursor(NamedTuple):
    """An event's place: its `number` among those made of the record at `offset` of `partition` of the replies.

    Whoever reads the log from `base` on finds a snapshot of the session, and all that came after it. `aside` counts
    what was said directly after the event and stands in no log.
    """

    partition: int
    offset: int
    number: int
    base: int
    aside: int = 0

    @property
    def place(self) -> tuple[int, int]:
        """What orders the events of a session."""
        return self.offset, self.number


class Stamp:
    """Makes and reads the ids of one session's events."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def id(self, cursor: Cursor) -> str:
        """The id of the event at `cursor`."""
        partition, offset, number, base, aside = cursor
        position = _POSITION.pack(partition, offset, number, min(offset - base, 0xFFFFFFFF), aside & 0xFFFF)
        return PREFIX + urlsafe_b64encode(position + self._tag(position)).decode()

    def aside(self, event_id: str, count: int) -> str:
        """The id of the `count`th thing that is said directly after an event, or of its `count`th part.

        Raises:
            BadCursor: the event has none in this session.
        """
        return self.id(self.read(event_id)._replace(aside=count))

    def read(self, event_id: str) -> Cursor:
        """The place of the event with this id.

        Raises:
            BadCursor: it has none in this session.
        """
        try:
            raw = urlsafe_b64decode(event_id.removeprefix(PREFIX).encode("ascii"))
            partition, offset, number, back, aside = _POSITION.unpack(raw[: _POSITION.size])
        except (binascii.Error, ValueError, struct.error):
            raise BadCursor from None
        cursor = Cursor(partition, offset, number, offset - back, aside)
        if not hmac.compare_digest(self.id(cursor).encode(), event_id.encode()):
            raise BadCursor
        return cursor

    def _tag(self, position: bytes) -> bytes:
        return hmac.digest(self._key, position, "sha256")[:TAG_BYTES]


class Signer:
    """Gives each session its stamp. Without a `secret` only this very signer can read what it has made."""

    def __init__(self, secret: str = "") -> None:
        self._key = hmac.digest(secret.encode() or secrets.token_bytes(32), PURPOSE, "sha256")

    def stamp(self, tenant: str, session: str) -> Stamp:
        """The stamp of a tenant's session."""
        return Stamp(hmac.digest(self._key, f"{len(tenant)}:{tenant}:{session}".encode(), "sha256"))
