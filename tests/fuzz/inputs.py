"""What is thrown at the decoders: valid examples, the same damaged, well-formed nonsense, and noise."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from apps.gateway.protocols.realtime import TYPES
from pipeline.headers import CLAIM, DEADLINE, EPOCH, REPLY_TO, RETRIED, RETRY, TENANT, TRACE, TURN
from pipeline.topics import TOPIC_OF
from tests.apps.gateway.test_fuzz import SANE, WILD
from tests.pipeline.test_messages import EXAMPLES

LONG = 5000
"""Digits and levels beyond what Python converts and nests without a word."""

VALID_RECORDS: dict[str, list[bytes]] = {topic.name: [] for topic in TOPIC_OF.values()}
for _example in EXAMPLES:
    VALID_RECORDS[TOPIC_OF[type(_example)].name].append(TOPIC_OF[type(_example)].encode(_example))

NUMBERS = st.one_of(
    st.integers().map(str),
    st.sampled_from([1, 18, 19, 20, 4300, 4301, LONG]).map(lambda count: "9" * count),
    st.sampled_from(["", "-1", "1e999", "nan", "inf", "-inf", "0x10", "٣", "²", "1_000", " 1", "1.5", "\x00"]),
)
TEXTS = st.text(max_size=40) | NUMBERS
HEADERS = st.dictionaries(
    st.sampled_from([REPLY_TO, TURN, DEADLINE, TENANT, TRACE, RETRY, RETRIED, EPOCH, CLAIM]) | st.text(max_size=8),
    TEXTS,
    max_size=6,
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def damaged(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """A valid input with some bytes changed, taken out, put in or doubled."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["change", "cut", "put", "double", "end"])):
            case "change" if data:
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 8))]
            case "put":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "double":
                data[at:at] = data[at : at + draw(st.integers(1, 16))]
            case _:
                del data[at:]
    return bytes(data)


def records(topic: str) -> st.SearchStrategy[bytes]:
    """Records of `topic`: valid, damaged, nonsense of the right form, nested too deeply, and noise."""
    valid = st.sampled_from(VALID_RECORDS[topic])
    return st.one_of(
        damaged(valid),
        TREES.map(_packed),
        st.integers(1, LONG).map(lambda levels: b"\x91" * levels),
        st.binary(max_size=60),
        valid,
    )


def _packed(tree: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(tree)
    except (OverflowError, TypeError):
        return b""


EVENTS = st.one_of(SANE, WILD).map(lambda event: msgspec.json.encode(event))
FRAMES = st.one_of(
    damaged(EVENTS).map(lambda raw: raw.decode("utf-8", "replace")),
    damaged(EVENTS),
    EVENTS.map(bytes.decode),
    st.tuples(st.sampled_from(TYPES), st.sampled_from(["[", '{"a":']), st.integers(1, LONG)).map(
        lambda parts: f'{{"type":"{parts[0]}","item":{parts[1] * parts[2]}'
    ),
    st.sampled_from(TYPES).map(lambda kind: f'{{"type":"{kind}","item_id":"\\ud800"}}'),
    st.text(max_size=60),
    st.text(st.characters(codec=None), max_size=20),
    st.binary(max_size=60),
)
"""What a client may send: text, which may hold halves of characters, or bytes."""


def latin(raw: st.SearchStrategy[bytes]) -> st.SearchStrategy[str]:
    """Bytes as the text that HTTP makes of them."""
    return raw.map(lambda data: data.decode("latin-1"))
