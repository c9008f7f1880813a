"""Sounds to test with: a tone for speech, zeros for silence, and files of them."""

from __future__ import annotations

import math
import wave
from array import array
from pathlib import Path

RATE = 24_000


def tone(seconds: float, *, rate: int = RATE, loudness: int = 8000) -> bytes:
    """PCM16 of a 440 Hz tone."""
    samples = round(seconds * rate)
    return array("h", (round(loudness * math.sin(2 * math.pi * 440 * n / rate)) for n in range(samples))).tobytes()


def silence(seconds: float, *, rate: int = RATE) -> bytes:
    """PCM16 of nothing."""
    return bytes(2 * round(seconds * rate))


def wav(path: Path, sound: bytes, *, rate: int = RATE, channels: int = 1) -> Path:
    """Write PCM16 as a WAV file; a mono sound goes into each of the channels."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        samples = array("h", sound)
        file.writeframes(array("h", (s for one in samples for s in (one,) * channels)).tobytes())
    return path
