"""espeak-ng in this process: libespeak-ng through ctypes, library and voices from `espeakng-loader`.

The library has global state and is not thread-safe: one utterance at a time in a process, which
the lock sees to. Calls block (10–20 ms for a sentence), so they do not belong on the event loop.
Source of the structures and constants: espeak-ng's `speak_lib.h`.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from typing import NamedTuple

SAMPLE_RATE = 22_050
SYNCHRONOUS = 2
BUFFER_MS = 60
PHONEME_EVENTS = 0x0001
DO_NOT_EXIT = 0x8000
UTF8 = 1


class EspeakError(RuntimeError):
    """libespeak-ng refused something; the message says what."""


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
    """How to speak: a voice file's name with or without `+variant`, words a minute, 0–100, 0–100, 10 ms units."""

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


def _marks(events: "ctypes._Pointer[_Event]") -> Iterator[Mark]:
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
    """The library, initialised once; `espeak()` gives the only one of this process."""

    def __init__(self) -> None:
        import espeakng_loader  # type: ignore[import-untyped]

        self._lock = threading.Lock()
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        path = espeakng_loader.get_data_path().encode()
        rate = self._library.espeak_Initialize(SYNCHRONOUS, BUFFER_MS, path, PHONEME_EVENTS | DO_NOT_EXIT)
        if rate != SAMPLE_RATE:
            raise EspeakError(f"espeak-ng did not start with the data in {path.decode()}: it returned {rate}")
        self._style: Style | None = None

    def stream(self, text: str, style: Style, take: Callable[[Piece], bool]) -> None:
        """Give each piece of `text`'s sound to `take` as it is made; a False from it ends the utterance.

        Raises:
            EspeakError: the voice is not known, or the text could not be spoken.
        """

        def receive(samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: "ctypes._Pointer[_Event]") -> int:
            pcm = ctypes.string_at(samples, 2 * count) if count > 0 else b""
            return 0 if take(Piece(pcm, tuple(_marks(events)))) else 1

        callback, encoded = _CALLBACK(receive), text.encode() + b"\0"
        with self._lock:
            self._choose(style)
            self._library.espeak_SetSynthCallback(callback)
            if self._library.espeak_Synth(encoded, len(encoded), 0, 0, 0, UTF8, None, None):
                raise EspeakError(f"espeak-ng could not speak {text[:60]!r}")

    def say(self, text: str, style: Style | None = None) -> Speech:
        """The whole utterance at once.

        Raises:
            EspeakError: the voice is not known, or the text could not be spoken.
        """
        speech, pcm = Speech(), bytearray()

        def take(piece: Piece) -> bool:
            pcm.extend(piece.pcm)
            speech.marks.extend(piece.marks)
            return True

        self.stream(text, style or Style(), take)
        speech.pcm = bytes(pcm)
        return speech

    def _choose(self, style: Style) -> None:
        """Set the voice and its parameters where they differ from the last utterance's."""
        if style == self._style:
            return
        self._style = None
        if self._library.espeak_SetVoiceByName(style.voice.encode()):
            raise EspeakError(f"espeak-ng has no voice {style.voice!r}; `espeak-ng --voices` lists them")
        values = (style.rate, style.volume, style.pitch, style.range, style.gap)
        for parameter, value in zip(Parameter, values, strict=True):
            self._library.espeak_SetParameter(int(parameter), value, 0)
        self._style = style


@cache
def espeak() -> Espeak:
    """The one instance of this process."""
    return Espeak()
