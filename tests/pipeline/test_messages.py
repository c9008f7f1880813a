"""The vocabulary and its codec."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UndecodableMessage
from pipeline.messages import (
    Cancel,
    Claimed,
    DeadLetter,
    Delta,
    Done,
    Finished,
    Grammar,
    Likelihood,
    Message,
    Problem,
    Prompt,
    Sampling,
    Snapshot,
    Tokens,
    Told,
    Turn,
    Usage,
    Utterance,
    Voice,
)
from pipeline.topics import ROUTE, TOKENS, TOPIC_OF
from pipeline.voice import (
    Detection,
    Listening,
    Sentence,
    Sound,
    SpeechStarted,
    SpeechStopped,
    Spoken,
    Transcribed,
    Transcript,
    Word,
)

EVERYTHING = Sampling(
    seed=2**63,
    max_output_tokens=9,
    temperature=0.5,
    top_p=0.9,
    stop=("\n",),
    top_k=40,
    min_p=0.05,
    repetition_penalty=1.1,
    presence_penalty=-0.5,
    frequency_penalty=0.25,
    logit_bias=((3, -100.0), (4, 1.5)),
    stop_ids=(9, 11),
    logprobs=2,
    grammar=Grammar("regex", "[a-z]+"),
    speculation=0,
    priority=3,
)
SPOKEN = Voice("marin", 1.25, "pcmu")
HOW = Listening("pcma", Detection(0.25, 200, 700, "low"), "en", "names: Anna", partials=False)
EXAMPLES: list[Message] = [
    Sound("s", "t", 24_000, b"\xff\x00", HOW, "commit", "item_1"),
    SpeechStarted("s", "t", "item_1", 7_200),
    SpeechStopped("s", "t", "item_1", 48_000),
    Transcript("s", "t", "item_1", 5, " there", (Word(" there", 9_600, 12_000),)),
    Transcribed("s", "t", "item_1", "hi there", (Word("hi", 1, 2),), 40_800, "en", Problem("code", "text")),
    Sentence("s", "t", 1, 12, "Hello there.", SPOKEN, 1.5, last=True),
    Spoken("s", "t", 4_800, b"\x00\x80", ((5, 2_400), (12, 4_800)), last=True, problem=Problem("code", "text")),
    Turn(
        "s",
        "t",
        (Utterance("system", "be kind"), Utterance("user", "你好 👋🏽")),
        Sampling(7, 9, 0.5, 0.9, ("\n",)),
        "m",
        SPOKEN,
    ),
    Prompt("s", "t", (1, 2), EVERYTHING, emitted=(3,), voice=SPOKEN),
    Tokens(
        "s", "t", 5, (1, 2, 3), ("stop",), (Likelihood(1, -0.5, (Likelihood(1, -0.5), Likelihood(7, -2.0))),), SPOKEN
    ),
    Done("s", "t", "failed", Usage(10, 20, 5), Problem("code", "text"), SPOKEN),
    Delta("s", "t", 12, "héllo\n", 4, (Likelihood(1, -0.5, (Likelihood(7, -0.25, (), b"\n"),), b"h\xc3"),)),
    Finished("s", "t", "failed", "deadline", Usage(1, 2, 3), 9, Problem("code", "text", "param", 1.5)),
    Told(
        "s",
        "t",
        ({"type": "session.created", "session": {"id": "s", "temperature": 0.5, "tools": []}},),
        "owner",
        "response.create e1",
        1.5,
        1,
        "a line",
        ("code", "text"),
        ("audio_1", 24_000),
        {"type": "response.create"},
        True,
        ("resp_1", "client_cancelled"),
        1763760000.5,
        beside=True,
    ),
    Claimed("s", "", "owner", audio=("audio_1", 48_000)),
    Snapshot("s", "", "owner", b"\xc1", 7, (6, 2)),
    Cancel("s", "t", "turn_detected"),
    DeadLetter(
        "s", "t", "llm", "prompts", 3, 99, "key", b"\xc1\x00", {"turn": "t"}, "KeyError: x", 5, "File x.py, line 3"
    ),
]


def test_every_message_of_the_route_has_an_example() -> None:
    """A new type cannot be forgotten here."""
    assert {type(example) for example in EXAMPLES} == set(TOPIC_OF) == {kind for topic in ROUTE for kind in topic.types}


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_went(message: Message) -> None:
    """Every field survives the wire, and none of the examples leaves one at its default unnoticed."""
    topic = TOPIC_OF[type(message)]
    assert topic.decode(topic.encode(message)) == message
    assert len(msgspec.msgpack.decode(topic.encode(message))) == len(message.__struct_fields__) + 1


def test_the_example_of_a_sampling_has_everything() -> None:
    """No field of what one may ask is left at its default in the example, so that a lost one would show."""
    default = Sampling()
    assert all(getattr(EVERYTHING, name) != getattr(default, name) for name in Sampling.__struct_fields__)


@given(st.binary(max_size=64))
@settings(max_examples=300)
def test_garbage_is_refused_by_name(value: bytes) -> None:
    """Bytes that are no message raise one error, which names the topic."""
    with pytest.raises(UndecodableMessage, match="'tokens'"):
        TOKENS.decode(value + b"\xc1")


def test_a_message_of_another_topic_is_refused() -> None:
    """A topic takes its own types only."""
    with pytest.raises(UndecodableMessage):
        TOKENS.decode(TOPIC_OF[Cancel].encode(Cancel("s", "t")))
