"""G.711, the 8-bit encoding of telephones at 8 kHz: mu-law (`pcmu`) and A-law (`pcma`).

Bit for bit as the reference of ITU-T G.191 has it: a segment of the magnitude, and a place in it.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Law = Literal["pcmu", "pcma"]

RATE = 8_000
"""Samples in a second."""

BIAS = 132
"""What mu-law adds to a magnitude of 16 bits, so that each segment begins at a power of two."""

TOGGLED = 0x55
"""The bits that A-law turns over on the line."""


def decode(data: bytes, law: Law) -> NDArray[np.int16]:
    """The 16-bit samples that `data` stands for, one for each byte."""
    return _decoding(law)[np.frombuffer(data, np.uint8)]


def encode(samples: NDArray[np.int16], law: Law) -> bytes:
    """16-bit `samples` at 8 kHz, a byte for each."""
    return _encoding(law)[samples.astype(np.int16, copy=False).view(np.uint16)].tobytes()


@cache
def _decoding(law: Law) -> NDArray[np.int16]:
    """The sample for each byte: a table of 256."""
    codes = np.arange(256) ^ (0xFF if law == "pcmu" else TOGGLED)
    segment, place = (codes >> 4) & 7, codes & 15
    if law == "pcmu":
        magnitude = (((place << 3) + BIAS) << segment) - BIAS
        negative = codes >= 0x80
    else:
        magnitude = ((place << 4) + 8 + 256 * (segment > 0)) << np.maximum(segment - 1, 0)
        negative = codes < 0x80
    samples: NDArray[np.int16] = np.where(negative, -magnitude, magnitude).astype(np.int16)
    return samples


@cache
def _encoding(law: Law) -> NDArray[np.uint8]:
    """The byte for each sample, by its bits taken as a number without sign: a table of 65536."""
    samples = np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.where(samples < 0, ~samples, samples)
    if law == "pcmu":
        magnitude = np.minimum(magnitude, 0x7FFF - BIAS) + BIAS
        segment = _segment(magnitude, 256)
        codes = (segment << 4) | ((magnitude >> (segment + 3)) & 15)
        return ((codes | np.where(samples < 0, 0x80, 0)) ^ 0xFF).astype(np.uint8)
    segment = _segment(magnitude, 256)
    codes = (segment << 4) | ((magnitude >> np.maximum(segment + 3, 4)) & 15)
    return ((codes | np.where(samples < 0, 0, 0x80)) ^ TOGGLED).astype(np.uint8)


def _segment(magnitude: NDArray[np.int32], first: int) -> NDArray[np.int64]:
    """In which doubling from `first` on each magnitude is; 0 is all below."""
    return np.searchsorted(first << np.arange(7), magnitude, side="right")
