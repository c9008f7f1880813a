"""Whatever is heard, said and sent in whatever order: the session lives, every turn ends, and the log tells it all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.gateway.items import untranscribed
from pipeline.messages import Finished, Problem
from tests.apps.gateway.test_arrival import body, resumed
from tests.apps.gateway.voice_desk import VoiceDesk

ITEMS = st.sampled_from(["i1", "i2", "i3"])
MS = st.integers(0, 2000)
WORDS = st.sampled_from(["", "one", "one two", "one two three"])
DETECTION = st.sampled_from(
    [
        None,
        {"type": "server_vad"},
        {"type": "server_vad", "create_response": False, "idle_timeout_ms": 500},
        {"type": "semantic_vad", "interrupt_response": False},
    ]
)
FORMAT = st.sampled_from([{"type": "audio/pcm"}, {"type": "audio/pcmu"}, {"type": "audio/pcma"}])
AUDIO = st.sampled_from(["", "AA==", "AAAA", "AAA", "AAAA" * 2000, "?"])
SENT = st.one_of(
    st.fixed_dictionaries({"type": st.just("input_audio_buffer.append"), "audio": AUDIO}),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(
                ["input_audio_buffer.commit", "input_audio_buffer.clear", "response.create", "response.cancel"]
            )
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("session.update"),
            "session": st.fixed_dictionaries(
                {},
                optional={
                    "type": st.sampled_from(["realtime", "transcription"]),
                    "output_modalities": st.sampled_from([["text"], ["audio"]]),
                    "audio": st.fixed_dictionaries(
                        {}, optional={"input": st.fixed_dictionaries({"turn_detection": DETECTION, "format": FORMAT})}
                    ),
                },
            ),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("conversation.item.truncate"),
            "item_id": ITEMS | st.just("last"),
            "content_index": st.integers(-1, 1),
            "audio_end_ms": st.integers(-1, 500),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("conversation.item.create"),
            "item": st.fixed_dictionaries(
                {
                    "type": st.just("message"),
                    "role": st.just("user"),
                    "content": st.lists(
                        st.fixed_dictionaries({"type": st.just("input_audio"), "audio": AUDIO}), min_size=1, max_size=2
                    ),
                }
            ),
        }
    ),
)
HEARD = st.one_of(
    st.tuples(st.just("started"), ITEMS, MS),
    st.tuples(st.just("stopped"), ITEMS, MS),
    st.tuples(st.just("partial"), ITEMS, st.integers(0, 5), WORDS),
    st.tuples(st.just("transcribed"), ITEMS | st.just("pending"), WORDS),
    st.tuples(st.just("broken")),
)
SAID = st.sampled_from(["delta", "sound", "again", "last", "unspoken", "done", "cancelled", "failed"])
STEPS = st.lists(st.one_of(SENT, SENT, HEARD, SAID, SAID, st.sampled_from(["later", "remember"])), max_size=40)


def heard(desk: VoiceDesk, step: tuple[Any, ...]) -> None:
    """Let the speech stage say something, sensible or not."""
    kind, *rest = step
    if not desk.sounds:
        desk.hear(100)
    if kind == "broken":
        desk.read(Finished("sess_1", desk.stream, status="failed", problem=Problem("overloaded", "no", retry_after=1)))
        return
    if rest[0] == "pending":
        rest[0] = next((turn.name for turn in desk.session.account.ears.pending), "i1")
    method: Callable[..., Any] = getattr(desk, kind)
    method(*rest)


def said(desk: VoiceDesk, what: str, done: dict[str, list[int]]) -> None:
    """Let the stages do something with the last turn, sensible or not."""
    turn = desk.turns[-1]
    state = done.setdefault(turn.turn, [0, 0])
    if what == "delta":
        desk.delta(turn, state[0], "some text ")
        state[0] += 10
    elif what in ("sound", "again"):
        desk.spoken(turn, max(0, state[1] - (50 if what == "again" else 0)), 100, (state[0], state[1] + 100))
        state[1] = max(state[1], state[1] + (50 if what == "again" else 100))
    elif what in ("last", "unspoken"):
        problem = Problem("speech_failed", "no") if what == "unspoken" else None
        desk.spoken(turn, state[1], 0, last=True, problem=problem)
    else:
        status = {"done": "completed"}.get(what, what)
        desk.finish(turn, status=status, length=state[0] if what == "done" else None)


def play(desk: VoiceDesk, steps: list[Any]) -> None:
    """Let all that happen, then time pass."""
    done: dict[str, list[int]] = {}
    for step in steps:
        if isinstance(step, tuple):
            heard(desk, step)
        elif isinstance(step, dict):
            kind, *_ = {**step}.values()
            fields = {name: value for name, value in step.items() if name != "type"}
            if fields.get("item_id") == "last":
                fields["item_id"] = next((item.id for item in reversed([*desk.session.conversation])), "none")
            desk.send(kind, **fields)
        elif step == "later":
            desk.later(0.1)
        elif step == "remember":
            desk.session.remember(desk.offset, 0)
            desk.pump()
        elif desk.turns:
            said(desk, step, done)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.integers(0, 10**6))
def test_nothing_ends_the_session_and_the_log_tells_it_all(steps: list[Any], cut: int) -> None:
    """Only valid events, every response its end, no transcript awaited for ever; whoever reads the log is as wise."""
    desk = VoiceDesk({"ahead_s": 1e6})
    play(desk, steps)
    told = list(desk.told.events)
    last = told[cut % len(told)]
    there = resumed(desk, last["event_id"])
    assert body(there.missed) == body(told[cut % len(told) + 1 :])
    assert [item.view for item in there.session.conversation] == [item.view for item in desk.session.conversation]
    assert vars(there.session.account.ears.waiting) == vars(desk.session.account.ears.waiting)

    for seconds in (100.0, 200.0, 300.0):
        desk.later(seconds)
    created = [event["response"]["id"] for event in desk.told.events if event["type"] == "response.created"]
    done = [event["response"]["id"] for event in desk.told.events if event["type"] == "response.done"]
    assert sorted(created) == sorted(done)
    assert not any(untranscribed(item) for item in desk.session.conversation)
