"""How the fake realtime server behaves, as a test sets it."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

ANSWER = "We are open Monday to Friday from nine to six, and Saturday from ten to four. On Sunday we are closed."


@dataclass
class Script:
    """How a server behaves.

    `words` are what is said turn by turn, `answers` what is answered; of both the last one counts for all further ones.
    An answer lasts `answer_s`; its sound comes `lead_s` before it is heard. It may give `marks` of the words' places
    in the sound and say what it remembers of an answer, as ours does; refuse to listen (`deaf`) or to speak (`dumb`);
    or take sound and never react (`absent`).
    """

    words: list[str] = field(default_factory=lambda: ["when are you open on Saturday"])
    answers: list[str] = field(default_factory=lambda: [ANSWER])
    answer_s: float = 6.0
    lead_s: float = 0.3
    marks: bool = False
    absent: bool = False
    deaf: bool = False
    dumb: bool = False
    samples: int = 0
    _ids: itertools.count[int] = field(default_factory=itertools.count)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def new(self, prefix: str) -> str:
        """Give a new id."""
        return f"{prefix}_{next(self._ids)}"

    def next_words(self) -> list[str]:
        """Give the words of the next turn, each with the white space before it."""
        words = self.words.pop(0) if len(self.words) > 1 else self.words[0]
        return re.findall(r"\s*\S+", words)

    def next_answer(self) -> str:
        """Give the next answer."""
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something meanwhile."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def end(self) -> None:
        """Do nothing more."""
        for task in [*self._tasks]:
            task.cancel()
