"""Let a stream run ahead of who reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def ahead(source: AsyncGenerator[T, None], most: int) -> AsyncGenerator[T, None]:
    """What comes of `source`, which goes on in a task of its own until it is `most` ahead (0: to its end).

    Its error comes after what came before it. When nobody reads on, the task is ended.
    """
    queue: asyncio.Queue[T] = asyncio.Queue(most)

    async def run() -> None:
        async with aclosing(source):
            async for item in source:
                await queue.put(item)

    running = asyncio.create_task(run())
    try:
        while (item := await _next(queue, running)) is not None:
            yield item
        await running
    finally:
        running.cancel()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # who stops reading does not want to hear of it


async def _next(queue: asyncio.Queue[T], running: asyncio.Task[None]) -> T | None:
    """The next of `queue`, or None if `running` has ended and left nothing there."""
    if not queue.empty():
        return queue.get_nowait()
    getting = asyncio.ensure_future(queue.get())
    try:
        await asyncio.wait({getting, running}, return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            return getting.result()
        return None if queue.empty() else queue.get_nowait()
    finally:
        getting.cancel()
