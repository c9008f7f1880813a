from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.messages import Encoding
from pipeline.voice import RATE
from stages import g711
from stages.preprocess.speech.ear import FRAME, MEMORY, RESET, Ear, Frame
from stages.preprocess.speech.resample import Samples
from stages.preprocess.speech.vad import Memory
from tests.stages.preprocess.speech.fakes import silence, tone


class Brooding:
    """A network that never forgets by itself: what it says depends on all windows since it began."""

    def listen(self, windows: Samples, memory: Memory) -> tuple[NDArray[np.float32], Memory]:
        """See `Vad`."""
        total = memory.h[0, 0, 0]
        said = []
        for window in windows:
            total = np.float32(total * 0.999 + np.abs(window).mean() + np.abs(memory.context).mean())
            said.append(total)
            memory = Memory(memory.h, memory.c, window[-64:])
        return np.array(said, np.float32), Memory(np.full((1, 1, 128), total, np.float32), memory.c, memory.context)


def _noise(seconds: float) -> NDArray[np.int16]:
    return np.random.default_rng(7).normal(0, 3000, round(seconds * RATE)).astype(np.int16)


def _bytes(samples: NDArray[np.int16], encoding: Encoding) -> bytes:
    return samples.tobytes() if encoding == "pcm16" else g711.encode(samples[::3], encoding)


def _same(some: list[Frame], others: list[Frame]) -> bool:
    return [frame.end for frame in some] == [frame.end for frame in others] and all(
        one.voice == other.voice and np.array_equal(one.samples, other.samples)
        for one, other in zip(some, others, strict=True)
    )


@pytest.mark.parametrize("encoding", ["pcm16", "pcmu", "pcma"])
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 2 * RATE), max_size=40))
def test_it_does_not_matter_how_sound_is_cut(encoding: Encoding, cuts: list[int]) -> None:
    """The same frames to the bit, whatever the pieces, be they of an odd number of bytes."""
    data = _bytes(_noise(1.0), encoding)
    whole = Ear(Brooding(), encoding, 0).hear(data)
    ear = Ear(Brooding(), encoding, 0)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [frame for begin, end in pairwise(edges) for frame in ear.hear(data[begin:end])]
    assert len(whole) == RATE // FRAME
    assert _same(whole, pieces)


@pytest.mark.parametrize("encoding", ["pcm16", "pcmu", "pcma"])
def test_who_begins_in_the_middle_soon_hears_the_same(encoding: Encoding) -> None:
    """From the first place of forgetting on that has enough before it, all is the same to the bit."""
    sound = _noise(7.0)
    whole = Ear(Brooding(), encoding, 0).hear(_bytes(sound, encoding))
    place = 2 * RESET * FRAME
    begins = place - MEMORY - 21 * 3
    late = Ear(Brooding(), encoding, begins).hear(_bytes(sound[begins:], encoding))
    assert _same([f for f in whole if f.end > place], [f for f in late if f.end > place])
    assert not _same([f for f in whole if f.end > begins + FRAME], [f for f in late if f.end > begins + FRAME])


def test_a_steady_offset_is_taken_away() -> None:
    """What a bad sound card adds is gone after half a second, and its coming and going leaves no step."""
    offset = np.full(2 * RATE, 9_000, np.int16)
    frames = Ear(Brooding(), "pcm16", 0).hear(np.concatenate([silence(1), offset]).tobytes())
    assert max(np.abs(frame.samples).max() for frame in frames[-30:]) < 0.002
    steps = np.abs(np.diff(np.concatenate([frame.samples for frame in frames[40:]])))
    assert steps.max() < 0.001


def test_a_tone_keeps_its_power() -> None:
    """Taking the offset away leaves sound as it is; G.711 makes it three times as many samples."""
    for encoding in ("pcm16", "pcmu", "pcma"):
        frames = Ear(Brooding(), encoding, 0).hear(_bytes(tone(2, 500), encoding))
        power = np.sqrt(np.mean(np.square(np.concatenate([frame.samples for frame in frames[20:]]))))
        assert power == pytest.approx(0.3 / np.sqrt(2), rel=0.02)


def test_it_knows_where_it_is() -> None:
    """The position counts whole samples, at 24 kHz; frames end at multiples of theirs, wherever it began."""
    ear = Ear(Brooding(), "pcm16", 1_000)
    assert ear.at == 1_000
    assert ear.hear(b"\0" * 101) == []
    assert ear.at == 1_050
    assert [frame.end for frame in ear.hear(b"\0" * 2_001)] == [2 * FRAME]
    assert ear.at == 2_051
    ear = Ear(Brooding(), "pcmu", 999)
    ear.hear(b"\xff" * 7)
    assert ear.at == 999 + 21
