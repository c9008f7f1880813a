"""Where the runs of one answer wait for their reader. Lives on the event loop.

Runs that were not fetched are joined, so a slow reader gets fewer and longer ones; an answer's length is the bound.
"""

from __future__ import annotations

import asyncio

from stages.llm.stage import Run


class Mailbox:
    """`ended` is true once a last run or an error was put in; what comes after is dropped."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._error: Exception | None = None
        self._filled = asyncio.Event()
        self.ended = False

    def put(self, what: Run | Exception) -> None:
        """Add a run, or what went wrong."""
        if self.ended:
            return
        if isinstance(what, Exception):
            self._error, self.ended = what, True
        else:
            before = self._run or Run(())
            likelihoods = before.likelihoods + what.likelihoods
            self._run = Run(before.ids + what.ids, what.finish, what.cached_tokens, likelihoods)
            self.ended = what.finish is not None
        self._filled.set()

    async def next(self) -> Run:
        """The run that has come together; waits for one. An error is raised after the runs before it."""
        await self._filled.wait()
        if self._run is None:
            assert self._error is not None
            raise self._error
        run, self._run = self._run, None
        if self._error is None:
            self._filled.clear()
        return run
