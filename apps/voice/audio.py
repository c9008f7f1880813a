"""Sound files and standard input as pieces of PCM16 at 24 kHz, mono: whatever FFmpeg decodes. Knows no client."""

from __future__ import annotations

import os
import sys
import threading
import wave
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import av
from av.audio.resampler import AudioResampler
from av.container import InputContainer

from pipeline.errors import PenstockError
from pipeline.voice import RATE

STDIN = "-"
BYTES_PER_SAMPLE = 2
KNOWN = "WAV, MP3, FLAC, Ogg, M4A and most others can be read; bare 16-bit samples with --raw RATE"
MICROSECONDS = 1_000_000
BUFFER, LITTLE = 1 << 16, 1 << 12
LIVE: Mapping[str, str] = MappingProxyType({"probesize": "4096", "analyzeduration": "0"})
"""So that a live source is not listened to for seconds before its first samples are given."""


class UnreadableAudio(PenstockError):
    """There is no sound to be had from `name`, or not all of it."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"cannot read {name}: {why}")


class UnwritableFile(PenstockError):
    """A result cannot be put where it was asked for."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"cannot write {name}: {why}")


class Recording:
    """Sound to be read once, piece by piece. `seconds` is how long it is, or None where nobody knows.

    Args:
        container: what PyAV has opened.
        name: for messages.
    """

    def __init__(self, container: InputContainer, name: str) -> None:
        self._container = container
        self._decoding = threading.Lock()
        self._decoded_s = 0.0
        self._damaged: list[float] = []
        self.name = name
        length = container.duration
        self.seconds = None if length is None or length <= 0 else length / MICROSECONDS

    @property
    def sounds(self) -> bool:
        """Whether there is any sound in it."""
        return bool(self._container.streams.audio)

    def pieces(self, samples: int) -> Iterator[bytes]:
        """The sound in pieces of `samples` samples, the last of which may be shorter. Blocks while it decodes.

        Raises:
            UnreadableAudio: some of it is damaged; all that can be decoded was given before.
        """
        size, buffer = samples * BYTES_PER_SAMPLE, bytearray()
        try:
            decoded = self._decoded()
            while (data := self._next(decoded)) is not None:
                buffer += data
                while len(buffer) >= size:
                    yield bytes(buffer[:size])
                    del buffer[:size]
        except av.FFmpegError as error:
            why = f"it is damaged after {self._decoded_s:.1f} s ({_short(error)})"
            raise UnreadableAudio(self.name, why) from error
        if buffer:
            yield bytes(buffer)
        if self._damaged:
            why = f"{len(self._damaged)} of its frames are damaged, the first after {self._damaged[0]:.1f} s"
            raise UnreadableAudio(f"all of {self.name}", why)

    def close(self) -> None:
        """Close the file; where another thread is just reading it, that closes it when it has done so.

        (A live source may keep that thread for ever, and its memory must stay as long.)
        """
        if self._decoding.acquire(blocking=False):
            self._container.close()

    def _next(self, decoded: Iterator[bytes]) -> bytes | None:
        with self._decoding:
            return next(decoded, None)

    def _decoded(self) -> Iterator[bytes]:
        resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
        for frame in self._frames():
            for ours in resampler.resample(frame):
                self._decoded_s += ours.samples / RATE
                yield ours.to_ndarray().tobytes()
        for ours in resampler.resample(None):
            yield ours.to_ndarray().tobytes()

    def _frames(self) -> Iterator[av.AudioFrame]:
        """The frames that can be decoded; of the others is noted where they are."""
        for packet in self._container.demux(audio=0):
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                self._damaged.append(self._decoded_s)
                continue
            yield from frames


@contextmanager
def opened(name: str, *, raw: int | None = None) -> Iterator[Recording]:
    """Open the file `name`, or standard input for `-`; `raw` is the sampling rate of bare 16-bit mono samples.

    Raises:
        UnreadableAudio: it is not there, or no sound.
    """
    title = "standard input" if name == STDIN else name
    with closing(Recording(_container(name, title, raw), title)) as recording:
        if not recording.sounds:
            raise UnreadableAudio(title, "there is no sound in it")
        yield recording


def _container(name: str, title: str, raw: int | None) -> InputContainer:
    source: str | _Stream = _Stream(sys.stdin.buffer) if name == STDIN else name
    form, options = ("s16le", {"sample_rate": str(raw), "ch_layout": "mono"}) if raw else (None, {})
    if name == STDIN:
        options |= LIVE
    try:
        return av.open(source, mode="r", format=form, options=options, buffer_size=LITTLE if name == STDIN else BUFFER)
    except (av.FFmpegError, OSError) as error:
        raise UnreadableAudio(title, _why(error, name)) from error


def whole(name: str) -> bytes:
    """All of a file's sound.

    Raises:
        UnreadableAudio: it is not there, or no sound.
    """
    with opened(name) as recording:
        return b"".join(recording.pieces(RATE))


def write_wav(path: Path, sound: bytes) -> None:
    """Write `sound` as a WAV file.

    Raises:
        UnwritableFile: it cannot be written there.
    """
    try:
        with path.open("wb") as opened_file, wave.open(opened_file, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(BYTES_PER_SAMPLE)
            file.setframerate(RATE)
            file.writeframes(sound)
    except OSError as error:
        raise UnwritableFile(str(path), error.strerror or str(error)) from error


class _Stream:
    """A pipe as FFmpeg wants it: something that is read and cannot be wound back."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe

    def read(self, size: int) -> bytes:
        """What is there, and at least a byte before the end: a live source is not waited for until `size` are full."""
        return os.read(self._pipe.fileno(), size)


def _why(error: Exception, name: str) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if name != STDIN and Path(name).is_file() and not Path(name).stat().st_size:
        return "it is empty"
    if isinstance(error, IsADirectoryError | PermissionError):
        return (error.strerror or str(error)).lower()
    return f"that is no sound ({_short(error)}); {KNOWN}"


def _short(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
