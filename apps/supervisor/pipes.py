"""The ends of a pipe on the event loop, for lines in one direction. Knows nothing of what the lines say."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator

LONGEST = 1 << 20
"""Bytes of a line; what is longer comes in pieces of this length."""
CHUNK = 1 << 16
BACKLOG = 1 << 18
"""Bytes that may wait for a reader that does not read."""


class Lines:
    """Cuts what comes into lines. Does no reading of its own."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends."""
        self._rest += data
        *lines, rest = bytes(self._rest).split(b"\n")
        while len(rest) > self._longest:
            lines.append(rest[: self._longest])
            rest = rest[self._longest :]
        self._rest[:] = rest
        return lines

    def rest(self) -> list[bytes]:
        """What came after the last line's end, if anything."""
        return [bytes(self._rest)] if self._rest else []


async def lines(fd: int, *, longest: int = LONGEST) -> AsyncGenerator[bytes, None]:
    """The lines that come out of the pipe `fd`, up to its end. Closes it."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0))
    cut = Lines(longest)
    try:
        while data := await reader.read(CHUNK):
            for one in cut.feed(data):
                yield one
        for one in cut.rest():
            yield one
    finally:
        transport.close()


class Sender:
    """The writing end of a pipe. Never waits: what a reader that is stuck does not fetch is dropped at the bound."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport

    @classmethod
    async def on(cls, fd: int) -> Sender:
        """The end `fd`, which is closed with it."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(fd, "wb", 0))
        return cls(transport)

    @property
    def waiting(self) -> bool:
        """Whether something that was sent has not been fetched yet."""
        return self._transport.get_write_buffer_size() > 0

    def send(self, data: bytes) -> bool:
        """Hand `data` over; False if the reader is gone, or far behind."""
        if self._transport.is_closing() or self._transport.get_write_buffer_size() > BACKLOG:
            return False
        self._transport.write(data)
        return True

    def close(self) -> None:
        """Close it, and drop what was not fetched."""
        if not self._transport.is_closing():
            self._transport.abort()
