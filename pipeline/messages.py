"""The whole vocabulary of the route: what stands in a topic, and nothing of how it gets there. Sound is in `voice.py`.

Every message names its `session` and its `turn`. The codec is derived from the types (msgpack, tagged by type), see
`topics.py`. Adding an optional field is compatible in both directions; anything else needs a new type.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "cancelled", "deadline", "failed"]
Status = Literal["completed", "cancelled", "incomplete", "failed"]
Encoding = Literal["pcm16", "pcmu", "pcma"]
"""Of sound: 16-bit little-endian samples at 24 kHz, or G.711 at 8 kHz (mu-law, A-law); one channel."""


class Message(msgspec.Struct, frozen=True, tag=str.lower, omit_defaults=True):
    """What all messages have: the session they belong to, and the turn in it."""

    session: str
    turn: str


class Utterance(msgspec.Struct, frozen=True):
    """One thing said in a conversation."""

    role: Role
    text: str


class Grammar(msgspec.Struct, frozen=True):
    """What the answer must look like: text that matches a JSON schema, or a regular expression."""

    kind: Literal["json_schema", "regex"]
    text: str


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to choose the answer's tokens.

    `seed` keys the randomness together with the position, so it is always set: the same seed gives the same answer on
    any worker. Temperature 0 is greedy. `top_p` is the smallest probability mass to choose from, in (0, 1]; `top_k` the
    number of tokens (0: all); `min_p` the least probability as a share of the likeliest one's. Penalties and bias act
    on the logits before all that: `repetition_penalty` on what stands in the prompt or the answer (1: none), the other
    two on what stands in the answer. An answer ends at a `stop` string or a token of `stop_ids`. `logprobs` asks for
    the log-probability of each token and so many of the likeliest ones beside it. `speculation` is how many tokens may
    be guessed ahead (0: none, None: as many as pay). Of prompts that wait, those of the higher `priority` come first.
    """

    seed: int = 0
    max_output_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    stop_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    grammar: Grammar | None = None
    speculation: int | None = None
    priority: int = 0


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens that went in and came out; `cached_tokens` of the prompt needed no computing."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


class Voice(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an answer is spoken: by whom ("": the usual voice), how fast (1: as usual), and in which encoding."""

    name: str = ""
    speed: float = 1.0
    encoding: Encoding = "pcm16"


class Turn(Message, frozen=True):
    """gateway → text: one turn, complete in itself: the conversation so far and how to answer it.

    With a `voice` the answer is spoken, too.
    """

    conversation: tuple[Utterance, ...]
    sampling: Sampling = Sampling()
    model: str | None = None
    voice: Voice | None = None


class Likelihood(msgspec.Struct, frozen=True, omit_defaults=True):
    """How likely a token was at its place: the logarithm of the model's own probability, before any sampling parameter.

    `top` are the likeliest tokens there. `data` are the UTF-8 bytes that the token stands for, once they are known.
    """

    id: int
    logprob: float
    top: tuple[Likelihood, ...] = ()
    data: bytes = b""


class Prompt(Message, frozen=True):
    """text → LLM: token ids to continue. `emitted` were already published by a former owner of the turn."""

    ids: tuple[int, ...]
    sampling: Sampling = Sampling()
    emitted: tuple[int, ...] = ()
    voice: Voice | None = None


class Tokens(Message, frozen=True):
    """LLM → postprocess: a run of the answer's token ids, the first of which is its token number `index`.

    `likelihoods` are those of `ids`, one for each, if they were asked for. What an answer begins with also says where
    it ends (`stop`) and how it is spoken.
    """

    index: int
    ids: tuple[int, ...]
    stop: tuple[str, ...] = ()
    likelihoods: tuple[Likelihood, ...] = ()
    voice: Voice | None = None


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why something failed: a `code` for programs, a text for people."""

    code: str
    message: str
    param: str | None = None
    retry_after: float | None = None


class Done(Message, frozen=True):
    """LLM → postprocess: the answer has ended after `usage.output_tokens` tokens; `problem` says why it failed.

    That of an answer without tokens also says how it was to be spoken.
    """

    reason: FinishReason
    usage: Usage = Usage()
    problem: Problem | None = None
    voice: Voice | None = None


class Delta(Message, frozen=True):
    """postprocess → gateway: a piece of the answer's text.

    `at` is the number of characters of the answer before it, so a repeated piece can be told and cut; `index` is the
    number of the answer's first token that is not yet wholly in the text up to and including this piece. `likelihoods`,
    if they were asked for, are those of the last tokens before `index` that no earlier piece had.
    """

    at: int
    text: str
    index: int
    likelihoods: tuple[Likelihood, ...] = ()


class Finished(Message, frozen=True):
    """any stage → gateway: the turn's one terminal event. `length` is the answer's length in characters."""

    status: Status
    reason: FinishReason | None = None
    usage: Usage = Usage()
    length: int | None = None
    problem: Problem | None = None


class Told(Message, frozen=True):
    """gateway → gateway, through the log: events of the gateway's own, in the order in which the client gets them.

    It counts only if `owner` is whom the session belonged to there. `asked` names the client's event that is answered,
    and `ends_at` is when the turn that begins with it must have ended, in seconds since 1970. `takes` lines that
    waited are not waiting any more. `line` is one that waits from here on, and `refused` are the code and the message
    with which another one will be refused when it is its turn. `audio` names the stream that the session's audio is in,
    and how far that has come at least, `heard_at` when it had, in seconds since 1970. `wanted` is a response that waits
    until it can begin, and `served` says that the one that waited has begun, or never will; both are of those `beside`
    the conversation, if so. No more is told of the response that it `cuts` off, nor of its audio: its id, and why.
    """

    events: tuple[dict[str, Any], ...]
    owner: str = ""
    asked: str = ""
    ends_at: float | None = None
    takes: int = 0
    line: str | None = None
    refused: tuple[str, str] | None = None
    audio: tuple[str, int] | None = None
    wanted: dict[str, Any] | None = None
    served: bool = False
    cuts: tuple[str, str] | None = None
    heard_at: float = 0.0
    beside: bool = False


class Claimed(Message, frozen=True):
    """gateway → gateway: from here on the session belongs to `owner`, and what others say of it does not count.

    `audio` names the stream that the session's audio is in, and how far that has come: so much of it stands in the log.
    """

    owner: str
    audio: tuple[str, int] | None = None


class Snapshot(Message, frozen=True):
    """gateway → gateway: a session as it stood after the record at offset `at`, so that nothing before must be read.

    Without an `at` the session begins here and belongs to `owner`. `last` tells which event was the last one before:
    the offset of its record, and its number there. `state` is the gateway's own.
    """

    owner: str
    state: bytes
    at: int | None = None
    last: tuple[int, int] | None = None


class Cancel(Message, frozen=True):
    """gateway → every stage: give the turn up."""

    reason: str = "client_cancelled"


class DeadLetter(Message, frozen=True):
    """any stage → operator: a record that failed for good, with why, how often, and from where.

    `value` is empty where it had no room in the letter. `traceback` says where in the program, if the stage tells.
    """

    stage: str
    topic: str
    partition: int
    offset: int
    key: str
    value: bytes
    headers: dict[str, str]
    error: str
    attempts: int
    traceback: str = ""
