"""What a session hands to the log."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from pipeline.messages import Message
from pipeline.topics import Topic

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Outgoing(NamedTuple):
    """A message on its way to a topic. `partition` None means: by the key."""

    topic: Topic
    message: Message
    key: str
    partition: int | None = None
    headers: Mapping[str, str] = NO_HEADERS
