"""espeak-ng in this process: libespeak-ng through ctypes, library and voices from `espeakng-loader`.

The library has global state and is not thread-safe: one utterance at a time in a process, which the lock sees to. It is
loaded anew for each utterance (a millisecond), for only then the same text has the same sound: the flutter of a voice
goes on from where the last utterance left it. Calls block (10–20 ms for a sentence), so they do not belong on the event
loop. Source of the structures and constants: espeak-ng's `speak_lib.h`.
"""

from __future__ import annotations

import _ctypes
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import SynthesisFailed
from stages.postprocess.speak.espeak_voices import EspeakVoices

SAMPLE_RATE = 22_050
SYNCHRONOUS = 2
BUFFER_MS = 60
PHONEME_EVENTS = 0x0001
DO_NOT_EXIT = 0x8000
UTF8 = 0x0001
SEED = 1

_UNSPEAKABLE = dict.fromkeys((*range(0x20), 0x7F), " ") | dict.fromkeys(range(0xD800, 0xE000), "?")
"""Control characters are commands to espeak-ng, or the end of the text; half a surrogate pair is no text."""


class Parameter(IntEnum):
    """What `espeak_SetParameter` sets."""

    RATE = 1
    VOLUME = 2
    PITCH = 3
    RANGE = 4
    GAP = 7


class Kind(IntEnum):
    """Which events carry something here."""

    WORD = 1
    PHONEME = 7


class Style(NamedTuple):
    """How to speak: a language with or without `+variant`, 80–450 words a minute, 0–100, 0–100, 10 ms between words."""

    voice: str = "en-us"
    rate: int = 175
    pitch: int = 50
    range: int = 50
    gap: int = 0
    volume: int = 100


class Mark(NamedTuple):
    """Something begins at sample `at` of the utterance: a word (its place in the text) or a phoneme (its name)."""

    at: int
    kind: Kind
    start: int = 0
    length: int = 0
    name: str = ""


class Piece(NamedTuple):
    """Some sound as it is made: int16 mono at SAMPLE_RATE, and the marks that became known with it."""

    pcm: bytes
    marks: tuple[Mark, ...]


@dataclass
class Speech:
    """A whole utterance."""

    pcm: bytes = b""
    marks: list[Mark] = field(default_factory=list)


class _Identity(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identity),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def _marks(events: ctypes._Pointer[_Event]) -> Iterator[Mark]:
    """The words and phonemes of a list of events, which ends with type 0."""
    at = 0
    while events[at].type:
        event = events[at]
        if event.type == Kind.WORD:
            yield Mark(event.sample, Kind.WORD, event.text_position - 1, event.length)
        elif event.type == Kind.PHONEME:
            yield Mark(event.sample, Kind.PHONEME, name=event.id.string.decode(errors="replace"))
        at += 1


class Espeak:
    """The library; `espeak()` gives the only one of this process.

    Raises:
        ImportError: `espeakng-loader` is not installed.
    """

    def __init__(self) -> None:
        import espeakng_loader  # type: ignore[import-untyped]

        self._lock = threading.Lock()
        self._path: str = espeakng_loader.get_library_path()
        self._data: str = espeakng_loader.get_data_path()
        self.voices = EspeakVoices(Path(self._data))

    def stream(self, text: str, style: Style, take: Callable[[Piece], bool]) -> None:
        """Give each piece of `text`'s sound to `take` as it is made; a False from it ends the utterance.

        Raises:
            SynthesisFailed: the voice is not known, or the text could not be spoken.
        """

        def receive(samples: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
            pcm = ctypes.string_at(samples, 2 * count) if count > 0 else b""
            return 0 if take(Piece(pcm, tuple(_marks(events)))) else 1

        callback, encoded = _CALLBACK(receive), text.translate(_UNSPEAKABLE).encode() + b"\0"
        with self._lock, self._loaded() as library:
            self._choose(library, style)
            library.espeak_SetSynthCallback(callback)
            if library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded)), 0, 0, 0, UTF8, None, None):
                raise SynthesisFailed(f"espeak-ng could not speak {text[:60]!r}")

    def say(self, text: str, style: Style | None = None) -> Speech:
        """The whole utterance at once.

        Raises:
            SynthesisFailed: the voice is not known, or the text could not be spoken.
        """
        speech, pcm = Speech(), bytearray()

        def take(piece: Piece) -> bool:
            pcm.extend(piece.pcm)
            speech.marks.extend(piece.marks)
            return True

        self.stream(text, style or Style(), take)
        speech.pcm = bytes(pcm)
        return speech

    @contextmanager
    def _loaded(self) -> Generator[ctypes.CDLL, None, None]:
        """The library as it is at the start of a process."""
        library = ctypes.CDLL(self._path)
        try:
            rate = library.espeak_Initialize(SYNCHRONOUS, BUFFER_MS, self._data.encode(), PHONEME_EVENTS | DO_NOT_EXIT)
            if rate != SAMPLE_RATE:
                raise SynthesisFailed(f"espeak-ng did not start with the data in {self._data}: it returned {rate}")
            try:
                library.espeak_ng_SetRandSeed(ctypes.c_long(SEED))
                yield library
            finally:
                library.espeak_Terminate()
        finally:
            _unload(library)

    def _choose(self, library: ctypes.CDLL, style: Style) -> None:
        """Set the voice and its parameters.

        Raises:
            SynthesisFailed: there is no such voice.
        """
        voice = self.voices.find(style.voice)
        with open(voice.file, "rb") as file:
            # As a file it is found without a look at all the others, of which the library forgets to free something. It
            # makes the name small letters, so that most have to come in by their number.
            by_number = f"/dev/fd/{file.fileno()}"
            if os.path.exists(by_number):
                error = library.espeak_SetVoiceByFile((by_number + voice.suffix).encode())
            else:
                error = library.espeak_SetVoiceByName((voice.language + voice.suffix).encode())
        if error:
            raise SynthesisFailed(f"espeak-ng refuses the voice {style.voice!r}")
        values = (style.rate, style.volume, style.pitch, style.range, style.gap)
        for parameter, value in zip(Parameter, values, strict=True):
            library.espeak_SetParameter(int(parameter), value, 0)


def _unload(library: ctypes.CDLL) -> None:
    """Forget `library` and its state, if nobody else in the process has it."""
    handle = library._handle  # noqa: SLF001 - ctypes has no other way
    if sys.platform == "win32":
        _ctypes.FreeLibrary(handle)
    else:
        _ctypes.dlclose(handle)


@cache
def espeak() -> Espeak:
    """The one instance of this process."""
    return Espeak()
