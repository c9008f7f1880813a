"""The LLM stage: one Prompt in, its Tokens out, then one Done.

Knows nothing of Kafka, Redis, WebSockets or torch: an `Engine` continues the prompt, whatever it is made of.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

import msgspec

from pipeline.errors import EmptyTurn, PromptTooLong
from pipeline.messages import Done, FinishReason, Likelihood, Message, Prompt, Tokens, Usage
from pipeline.stage import Stage, StopReason
from pipeline.topics import PROMPTS, TOKENS
from stages.llm.choosing.parameters import check

MOST_LIKELIHOODS = 64
"""Tokens of one message, where each has its likelihoods with it."""


@dataclass(frozen=True, slots=True)
class Run:
    """Token ids that follow those before; `finish` is set on an answer's last run, which may hold none.

    `cached_tokens` of the prompt needed no computing, as the last run of an answer tells. `likelihoods` are those of
    `ids`, one for each, if they were asked for.
    """

    ids: tuple[int, ...]
    finish: FinishReason | None = None
    cached_tokens: int = 0
    likelihoods: tuple[Likelihood, ...] = ()


class Engine(Protocol):
    """A model that continues prompts. `engine.py` is the torch one, `instant.py` the one for tests."""

    def generate(self, prompt: Prompt) -> AsyncGenerator[Run, None]:
        """Continue `prompt` after `prompt.emitted`, in runs, the last of which has a `finish`.

        Closing the generator gives the answer up; the engine drops it at its next step.

        Raises:
            Overloaded: there is no room now.
            EngineUnavailable: the engine is stopping, or broken.
        """
        ...


class LLMStage:
    """Answer prompts of at most `max_prompt` tokens with `engine`."""

    def __init__(self, engine: Engine, *, max_prompt: int) -> None:
        self._engine = engine
        self._max_prompt = max_prompt

    async def __call__(self, prompt: Prompt) -> AsyncGenerator[Tokens | Done, None]:
        """Stream the answer to `prompt`; the tokens a former owner published are not said again.

        Raises:
            EmptyTurn: the prompt has no tokens.
            PromptTooLong: it has more than the model's context holds.
            InvalidParameter: its sampling cannot be honoured.
        """
        if not prompt.ids:
            raise EmptyTurn
        if len(prompt.ids) > self._max_prompt:
            raise PromptTooLong(got=len(prompt.ids), limit=self._max_prompt)
        check(prompt.sampling)
        sent = begin = len(prompt.emitted)
        async with aclosing(self._engine.generate(prompt)) as answer:
            async for run in answer:
                for ids, likelihoods in _pieces(run):
                    stop = prompt.sampling.stop if sent == 0 else ()
                    voice = prompt.voice if sent == begin else None
                    yield Tokens(prompt.session, prompt.turn, sent, ids, stop, likelihoods, voice)
                    sent += len(ids)
                if run.finish is not None:
                    yield _done(prompt, run.finish, output=sent, cached=run.cached_tokens)
                    return


def resume(prompt: Prompt, published: Sequence[Message]) -> Prompt | None:
    """`prompt` with what a former owner `published` of its answer; None if the answer had ended."""
    if any(isinstance(message, Done) for message in published):
        return None
    return msgspec.structs.replace(prompt, emitted=_known(prompt, published))


def stopped(prompt: Message, published: Sequence[Message], reason: StopReason) -> Done:
    """The end of an answer that is given up after what was `published` of it."""
    assert isinstance(prompt, Prompt)
    ends = [message for message in published if isinstance(message, Done)]
    return ends[0] if ends else _done(prompt, reason, output=len(_known(prompt, published)), cached=0)


def llm_stage(engine: Engine, *, max_prompt: int, concurrency: int = 256) -> Stage:
    """The stage for the loop; up to `concurrency` prompts are given to `engine` at once, which queues some."""
    return Stage(
        name="llm",
        reads=PROMPTS,
        each=LLMStage(engine, max_prompt=max_prompt),
        stopped=stopped,
        journal=TOKENS,
        resume=resume,
        concurrency=concurrency,
    )


def _pieces(run: Run) -> Iterator[tuple[tuple[int, ...], tuple[Likelihood, ...]]]:
    """The ids of `run` with their likelihoods, in pieces of which each fits into a record and into a frame."""
    size = MOST_LIKELIHOODS if run.likelihoods else max(1, len(run.ids))
    for at in range(0, len(run.ids), size):
        yield run.ids[at : at + size], run.likelihoods[at : at + size]


def _known(prompt: Prompt, published: Sequence[Message]) -> tuple[int, ...]:
    """The answer's tokens that stand in `prompt` and in `published`, up to the first gap."""
    ids = list(prompt.emitted)
    for message in published:
        if isinstance(message, Tokens) and message.index <= len(ids):
            ids.extend(message.ids[len(ids) - message.index :])
    return tuple(ids)


def _done(prompt: Prompt, reason: FinishReason, *, output: int, cached: int) -> Done:
    usage = Usage(prompt_tokens=len(prompt.ids), output_tokens=output, cached_tokens=cached)
    return Done(prompt.session, prompt.turn, reason=reason, usage=usage, voice=None if output else prompt.voice)
