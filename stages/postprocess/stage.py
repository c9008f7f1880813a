"""The last stage of a turn's text: its Tokens and its Done in, its text in Deltas and one Finished out.

Of a turn that is spoken, too, its text also goes to the speak stage, in Sentences. A folding stage: all it knows of a
turn are the local variables of one call. Knows no model, only its vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from pipeline.errors import PenstockError
from pipeline.messages import Delta, Done, Finished, FinishReason, Message, Status, Tokens
from pipeline.stage import LATE, Stage, Stream
from pipeline.topics import TOKENS
from pipeline.voice import Sentence
from stages.detokenize import Vocabulary
from stages.postprocess.answer import Answer
from stages.postprocess.script import Script

STATUS_OF: Mapping[FinishReason, Status] = MappingProxyType(
    {"stop": "completed", "length": "incomplete", "cancelled": "cancelled", "deadline": "failed", "failed": "failed"}
)

GRACE_S = 2.0
"""Seconds after a turn's deadline in which the LLM stage's last word is waited for."""


class PostprocessStage:
    """Turn token ids back into text with `vocabulary`; `clock` tells the seconds since 1970."""

    def __init__(self, vocabulary: Vocabulary, *, clock: Callable[[], float] = time.time) -> None:
        self._vocabulary = vocabulary
        self._clock = clock

    async def __call__(self, messages: Stream) -> Stream:
        """Tell the text of one turn as it becomes certain, and what of it is to be spoken, then how the turn ended.

        Tokens that come again, after a takeover, are cut by their index. A turn whose first message is not its
        beginning was told to its end by a former owner: nothing is said.

        Raises:
            PenstockError: tokens are missing in the middle of the answer.
        """
        answer: Answer | None = None
        script = Script(None, self._clock)
        async for message in messages:
            if answer is None:
                if _begun_before(message):
                    return
                answer = Answer(self._vocabulary, stops=message.stop if isinstance(message, Tokens) else ())
                script = Script(message.voice, self._clock)
            if isinstance(message, Tokens):
                delta = _delta(message, answer)
                if delta is not None:
                    yield delta
                    for sentence in script.add(delta):
                        yield sentence
            else:
                for last in _end(message, answer, script):
                    yield last
                return


def postprocess_stage(vocabulary: Vocabulary, *, concurrency: int = 1024) -> Stage:
    """The stage for the loop; a turn ends with its Done, also one that is given up: that says what it has cost."""
    return Stage(
        name="postprocess",
        reads=TOKENS,
        folding=PostprocessStage(vocabulary),
        last=_is_done,
        cancellable=False,
        grace=GRACE_S,
        concurrency=concurrency,
    )


def _is_done(message: Message) -> bool:
    return isinstance(message, Done)


def _begun_before(message: Tokens | Done) -> bool:
    return (message.index if isinstance(message, Tokens) else message.usage.output_tokens) > 0


def _delta(message: Tokens, answer: Answer) -> Delta | None:
    """What `message` adds to the text that a client may see."""
    _check_gap(message, message.index, answer)
    at, known = answer.length, answer.tokens - message.index
    text = answer.add(message.ids[known:], message.likelihoods[known:])
    return _piece(message, at, text, answer) if text else None


def _piece(message: Message, at: int, text: str, answer: Answer) -> Delta:
    return Delta(message.session, message.turn, at, text, answer.index, answer.likelihoods())


def _end(done: Done, answer: Answer, script: Script) -> list[Delta | Sentence | Finished]:
    """The text that was held back, and the turn's one terminal event."""
    _check_gap(done, done.usage.output_tokens, answer)
    at = answer.length
    text = answer.finish()
    told: list[Delta | Sentence | Finished] = []
    reason: FinishReason = "stop" if answer.stopped else done.reason
    if text:
        delta = _piece(done, at, text, answer)
        told += [delta, *script.add(delta)]
    told += script.end(done, reason)
    told.append(
        Finished(
            done.session,
            done.turn,
            status=STATUS_OF[reason],
            reason=reason,
            usage=done.usage,
            length=answer.length,
            problem=LATE if reason == "deadline" else done.problem,
        )
    )
    return told


def _check_gap(message: Message, index: int, answer: Answer) -> None:
    if index > answer.tokens:
        raise PenstockError(
            f"turn {message.turn!r} of session {message.session!r}: tokens {answer.tokens} to {index - 1} are missing"
        )
