"""Whose turn is being worked on, and until when: what a stage may ask for, although no message says so.

The loop sets it for the task in which a stage works on a turn; it is the same however many stages are chained there.
"""

from __future__ import annotations

import math
from contextvars import ContextVar
from typing import NamedTuple

NOBODY = "default"
"""The tenant of turns that name none."""


class Request(NamedTuple):
    """The tenant whose turn it is, and when the turn must have ended, in seconds since 1970."""

    tenant: str = NOBODY
    deadline: float = math.inf


_current: ContextVar[Request] = ContextVar("penstock_request")


def current() -> Request:
    """The request that this task works on."""
    return _current.get(Request())


def begin(request: Request) -> None:
    """This task works on `request` from now on."""
    _current.set(request)
