"""Work that cannot be stopped in its middle, such as loading a model: who has given it up need not wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

NAME = "penstock-unstoppable"
NAMES = (NAME, "penstock-asr")
"""What such threads are called, here and in the stages: a recogniser's batch may take seconds, too."""


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns, from a thread of its own. Cancelled, it ends at once, and `work` goes on unheard.

    (asyncio's own threads are waited for when the event loop ends.)
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix=NAME)
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, lambda: work(*args, **kwargs))
    finally:
        pool.shutdown(wait=False)


def goes_on() -> bool:
    """Whether there is such work: Python would wait for it before it ends, so the program has to leave by itself."""
    return any(thread.name.startswith(NAMES) for thread in threading.enumerate())
