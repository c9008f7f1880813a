"""One prompt, answered in this process: no server, no bus. What `penstock generate` runs.

The same text stage, LLM stage and detokenizer as in the pipe, so the answer is the one that a client would get.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from apps.parts import Parts
from apps.settings import StageSettings
from pipeline.errors import EmptyTurn
from pipeline.messages import Done, Prompt, Sampling, Turn, Utterance
from stages.detokenize import Vocabulary
from stages.stops import StopFinder


@dataclass
class Answer:
    """What came of a prompt. Times are in seconds from the moment at which the engine was asked.

    `steps` is how often tokens came; with speculation several may come at once.
    """

    prompt: Prompt
    text: str = ""
    ids: list[int] = field(default_factory=list)
    done: Done | None = None
    first_s: float | None = None
    last_s: float = 0.0
    steps: int = 0

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second after the first ones; None where there was one step alone."""
        if self.first_s is None or self.steps < 2 or self.last_s <= self.first_s:
            return None
        return (len(self.ids) - len(self.ids) / self.steps) / (self.last_s - self.first_s)

    def figures(self) -> dict[str, float | int | str | None]:
        """What there is to know besides the text, for people and programs."""
        return {
            "finish": self.done.reason if self.done else None,
            "prompt_tokens": len(self.prompt.ids),
            "cached_tokens": self.done.usage.cached_tokens if self.done else 0,
            "output_tokens": len(self.ids),
            "seed": self.prompt.sampling.seed,
            "first_token_s": self.first_s,
            "tokens_per_s": self.tokens_per_s,
            "steps": self.steps,
            "tokens_per_step": len(self.ids) / self.steps if self.steps else None,
        }


async def prompt_of(parts: Parts, text: str, sampling: Sampling, *, system: str | None, raw: bool) -> Prompt:
    """`text` as the model's prompt: as a user's message in its chat template, or `raw` as it stands.

    Raises:
        EmptyTurn: there is no text.
        PromptTooLong: it does not fit.
    """
    if raw:
        ids = parts.tokenizer(text, add_special_tokens=True)["input_ids"]
        if not ids:
            raise EmptyTurn
        return Prompt("generate", "generate", tuple(ids), sampling)
    said = (*((Utterance("system", system),) if system else ()), Utterance("user", text))
    each = parts.stage("text", StageSettings()).each
    assert each is not None
    async with aclosing(each(Turn("generate", "generate", said, sampling))) as prompts:
        prompt = await anext(prompts)
        assert isinstance(prompt, Prompt)
        return prompt


async def generate(parts: Parts, answer: Answer, write: Callable[[str], None]) -> None:
    """Continue `answer.prompt` and fill `answer` in; each new piece of text goes to `write` as it comes.

    Raises:
        TurnRejected: the engine cannot do what the prompt asks for.
    """
    prompt = answer.prompt
    detokenizer, stops = Vocabulary(parts.tokenizer).start(), StopFinder(prompt.sampling.stop)
    began = time.perf_counter()

    def say(text: str) -> None:
        answer.text += text
        if text:
            write(text)

    each = parts.stage("llm", StageSettings()).each
    assert each is not None
    async with aclosing(each(prompt)) as messages:
        async for message in messages:
            if isinstance(message, Done):
                answer.done = message
                say(stops.flush())
                continue
            answer.last_s = time.perf_counter() - began
            answer.first_s = answer.last_s if answer.first_s is None else answer.first_s
            answer.steps += 1
            answer.ids += message.ids
            say("".join(stops.feed(detokenizer.feed(token)) for token in message.ids))
