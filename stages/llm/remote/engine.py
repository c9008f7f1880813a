"""The second engine: streams from any OpenAI-compatible server, for models that outgrow one process.

The tokenizer is here, the model is there. The prompt, chat template applied, goes to the server's `/completions`, as
text or as token ids; what comes back becomes token ids again, so that all other stages, the takeover and the resume
work as with our own engine. The server batches, speculates and caches as it likes.

What holds of the guarantees:

- A client sees each piece once, in order, and one end. If the stream breaks off, or another worker takes over, the
  prompt with what was said so far is sent, and the answer goes on behind that.
- It is the undisturbed answer only if the server is greedy and deterministic and cuts the joint into the tokens that it
  had cut it into before; few servers are deterministic in a changing batch. Sampled, what follows is another draw from
  the same distribution: with a seed of its own, as the server would otherwise draw the same numbers a second time.
- Behind a cut the server takes what was said for prompt: penalties that count in the answer alone begin anew, and an
  answer of a given shape (JSON schema, regular expression) is refused, as its shape is only known from the start.
- So a turn is never computed anew from its start: this engine's stage is not chained with others.
- A seed gives the same answer only as far as the server keeps it. `speculation` is the server's business.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from pipeline.errors import EngineUnavailable, ModelLoadError, Overloaded, PenstockError, PromptTooLong, TurnRejected
from pipeline.messages import Prompt
from stages.llm.remote.answer import RemoteAnswer, TextCodec
from stages.llm.remote.client import Piece, Served, Server, StreamCut, named
from stages.llm.remote.dialect import DIALECTS, Dialect, Kind, asked, dialect_of
from stages.llm.remote.places import Places
from stages.llm.stage import Run

log = logging.getLogger(__name__)

Form = Literal["text", "ids"]

CUTS = 2
"""How often an answer that broke off is gone on with before it is somebody else's turn to try."""
LOOK_S = 10.0
"""Seconds between two looks at a server that answers."""
LOOK_AGAIN_S = 1.0
"""The same at one that does not."""
LISTED = 10
"""Of a server's models, so many are named."""


@dataclass
class Counts:
    """What was asked of the server since the start: `cuts` broke off, `errors` got no answer, `refused` had no room."""

    requests: int = 0
    cuts: int = 0
    errors: int = 0
    refused: int = 0


class OpenAIEngine:
    """Answer prompts through `server`; see `Engine`. Use as an async context manager: it keeps an eye on the server.

    Args:
        server: Belongs to the engine from now on.
        codec: The tokenizer, which is the model's own.
        model: What the server calls the model; none is the one called like the tokenizer, or its only one.
        kind: What the server is; none is what it says it is.
        form: How prompts are sent: as text, or as token ids to a server that takes them.
        context: Tokens that prompt and answer may have together.
        most: Requests at once.
        queue: Prompts that wait for one of them; more are refused.
        max_wait_s: How long a prompt waits for that, or for a server that does not answer.
    """

    def __init__(
        self,
        server: Server,
        codec: TextCodec,
        *,
        model: str = "",
        kind: Kind | None = None,
        form: Form = "text",
        context: int,
        most: int = 32,
        queue: int = 256,
        max_wait_s: float = 10.0,
    ) -> None:
        self._server, self._codec = server, codec
        self._model, self._kind, self._form = model, kind, form
        self._context = context
        self._max_wait_s = max_wait_s
        self.places = Places(most, queue=queue, max_wait_s=max_wait_s)
        self.counts = Counts()
        self.takes = 2 * (most + queue)
        """Prompts that may come at once: those that run or wait, and as many of which some must be refused."""
        self.problem = f"{server.url} has not answered yet"
        """Why the server cannot be used; nothing if it can."""
        self._served = Served("")
        self._up = asyncio.Event()
        self._look_now = asyncio.Event()
        self._heard = -math.inf
        self._counted_otherwise = False
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Look at the server. One that does not answer yet is waited for later.

        Raises:
            ModelLoadError: it answers, and has no such model or lets nobody in with this key.
        """
        try:
            await self._look()
        except EngineUnavailable as error:
            self._lose(error)
        except BaseException:  # a cancel, too, must leave no connection open
            await self._server.close()
            raise
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._watching is not None
        self._watching.cancel()
        await asyncio.wait([self._watching])
        self._watching = None
        await self._server.close()

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Run, None]:
        """Continue `prompt`; see `Engine`."""
        if self._watching is None:
            raise EngineUnavailable("the engine is not running")
        if len(prompt.ids) >= self.context:  # the server may have said only now how much it takes
            raise PromptTooLong(got=len(prompt.ids), limit=self.context - 1)
        answer = RemoteAnswer(prompt, self._codec, self.context)
        if answer.finish is not None:
            yield Run((), answer.finish)
            return
        if self._served.name:  # what cannot be asked for need not wait in line
            asked(prompt.sampling, self._dialect, room=1, said=0)
        await self._ready()  # all wait for a server that is away: nobody is refused for want of a place there
        async with self.places.place(priority=prompt.sampling.priority, begun=bool(prompt.emitted)):
            await self._ready()
            async with aclosing(self._continued(answer)) as runs:
                async for run in runs:
                    yield run

    async def _continued(self, answer: RemoteAnswer) -> AsyncGenerator[Run, None]:
        """The rest of `answer`, behind each cut anew."""
        why = ""
        for _ in range(1 + CUTS):
            try:
                async with aclosing(self._once(answer)) as runs:
                    async for run in runs:
                        yield run
                return
            except StreamCut as cut:
                self.counts.cuts += 1
                why = str(cut)
                log.warning("%s; going on behind %d tokens", cut, len(answer.ids))
            if answer.room < 1:
                yield Run((), "length")
                return
        raise EngineUnavailable(f"{why}; so {1 + CUTS} times")

    async def _once(self, answer: RemoteAnswer) -> AsyncGenerator[Run, None]:
        """What one request brings of `answer`."""
        self.counts.requests += 1
        first = not answer.ids
        try:
            async with aclosing(self._asked(answer)) as pieces:
                async for piece in pieces:
                    self._heard = time.monotonic()
                    run = answer.take(piece)
                    if run.finish is not None and first:
                        self._compare(answer, piece)
                    if run.ids or run.finish is not None:
                        yield run
                    if run.finish is not None:
                        return
        except Overloaded as error:
            if answer.ids:
                raise EngineUnavailable(f"{error}; the answer has begun") from error
            self.counts.refused += 1
            raise
        except EngineUnavailable:
            self.counts.errors += 1
            self._look_now.set()
            raise

    def _asked(self, answer: RemoteAnswer) -> AsyncGenerator[Piece, None]:
        """The pieces that follow what is known of `answer`."""
        dialect, prompt = self._dialect, answer.prompt
        if answer.ids and prompt.sampling.grammar is not None:
            raise TurnRejected("the answer broke off, and one of a given shape cannot be gone on with; ask again")
        own, extra = asked(prompt.sampling, dialect, room=answer.room, said=len(answer.ids))
        if self._form == "ids":
            ids = [*prompt.ids, *answer.ids]
            back = {"return_token_ids": True} if dialect.ids_back else {}
            return self._server.stream(self._served.name, ids, own, extra | back, dialect)
        text = self._codec.prompt.spell(prompt.ids, answer.text, headed=not dialect.unheaded)
        return self._server.stream(self._served.name, text, own, {**extra, **dialect.unheaded}, dialect)

    @property
    def refused(self) -> int:
        """Turns for which there was no room, here or there."""
        return self.counts.refused + self.places.refused

    @property
    def _dialect(self) -> Dialect:
        return DIALECTS[self._kind] if self._kind else dialect_of(self._served.owner)

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together: no more than the server says it takes."""
        return min(self._context, self._served.context or self._context)

    def _compare(self, answer: RemoteAnswer, end: Piece) -> None:
        """Say once that the server's tokenizer is another one, or that it puts something before or around a prompt."""
        ours = len(answer.prompt.ids)
        if self._counted_otherwise or end.prompt_tokens in (0, ours):
            return
        self._counted_otherwise = True
        log.warning(
            "%s counts %d tokens in a prompt of %d: is %r the tokenizer of its model? If it puts tokens or a template "
            "around prompts, switch that off there, or set model.prompt_form to ids if it takes them",
            *(self._server.url, end.prompt_tokens, ours, self._codec.name),
        )

    async def _ready(self) -> None:
        """Wait for a server that does not answer.

        Raises:
            EngineUnavailable: it still does not after `max_wait_s`; says why.
        """
        try:
            async with asyncio.timeout(self._max_wait_s):
                await self._up.wait()
        except TimeoutError:
            raise EngineUnavailable(self.problem) from None

    async def _watch(self) -> None:
        """Know whether the server can be used, until cancelled. One that is answering is not disturbed."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_S if self.problem else LOOK_S):
                    await self._look_now.wait()
            answering = not self.problem and time.monotonic() - self._heard < LOOK_S
            if answering and not self._look_now.is_set():
                continue
            self._look_now.clear()
            try:
                await self._look()
            except (EngineUnavailable, ModelLoadError) as error:
                self._lose(error)

    async def _look(self) -> None:
        served = await self._server.models()
        found = named(served, self._model, self._codec.name)
        if found is None:
            names = ", ".join(one.name for one in served[:LISTED]) or "none that it tells of (is the URL right?)"
            wanted = f"has no model {self._model!r}" if self._model else "does not have just one model"
            raise ModelLoadError(self._server.url, f"it {wanted}; it has {names}; name one in model.remote_name")
        if self.problem:
            log.info("%s serves %s (%s)", self._server.url, found.name, self._kind or dialect_of(found.owner).kind)
        self._served, self.problem = found, ""
        self._up.set()

    def _lose(self, error: PenstockError) -> None:
        if str(error) != self.problem:
            log.warning("%s; waiting for it", error)
        self.problem = str(error)
        self._up.clear()
