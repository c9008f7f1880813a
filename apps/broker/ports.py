"""Ports that nobody listens on."""

from __future__ import annotations

import contextlib
import socket
from random import SystemRandom

HOST = "127.0.0.1"

_given: set[int] = set()
"""Whoever has got one of these may not listen on it yet."""


def unused_port() -> int:
    """A port that nobody listens on, below those that the system gives to outgoing connections.

    A client that retries a dead port of that range can meet its own other end, or take the port from a restart. No port
    is given twice by one process.
    """
    while True:
        port = SystemRandom().randrange(20_000, 32_000)
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            _given.add(port)
            return port
