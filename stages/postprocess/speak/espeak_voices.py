"""Which voices espeak-ng's data folder holds: languages, and variants by which each can be spoken."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import SynthesisFailed


class EspeakVoice(NamedTuple):
    """A voice: its language as espeak-ng calls it, the file of that, and `+variant` or nothing."""

    language: str
    file: Path
    suffix: str


class EspeakVoices:
    """The voices below `data`, the folder `espeak-ng-data`."""

    def __init__(self, data: Path) -> None:
        self._languages = _languages(data / "lang")
        self._variants = {file.name.lower(): file.name for file in (data / "voices" / "!v").iterdir()}

    def find(self, name: str) -> EspeakVoice:
        """The voice called `name`: a language code (`en-us`, `de`) or its file (`gmw/en-US`), and maybe `+variant`.

        Raises:
            SynthesisFailed: there is none; the message names what is near.
        """
        language, plus, variant = name.partition("+")
        file = self._languages.get(language.lower())
        if file is None:
            raise SynthesisFailed(f"espeak-ng has no voice {name!r}{_near(language.lower(), self._languages)}")
        if not plus:
            return EspeakVoice(file.name.lower(), file, "")
        known = self._variants.get(variant.lower())
        if known is None:
            raise SynthesisFailed(f"espeak-ng has no variant {variant!r}{_near(variant.lower(), self._variants)}")
        return EspeakVoice(file.name.lower(), file, "+" + known)

    def __contains__(self, name: str) -> bool:
        language, plus, variant = name.lower().partition("+")
        return language in self._languages and (not plus or variant in self._variants)


def _languages(folder: Path) -> dict[str, Path]:
    """The file of each language, by the file's name, its path, and the codes for which it is preferred."""
    found: dict[str, tuple[int, Path]] = {}
    for file in sorted(folder.rglob("*")):
        if not file.is_file():
            continue
        names = {file.name: -2, file.relative_to(folder).as_posix(): -2}
        for code, rank in [*_codes(file), *names.items()]:
            before = found.get(code.lower())
            if before is None or rank < before[0]:
                found[code.lower()] = (rank, file)
    return {code: file for code, (_, file) in found.items()}


def _codes(file: Path) -> list[tuple[str, int]]:
    """The language codes of `file`, and how far behind others it is for each (0: it is the first choice)."""
    lines = [line.split() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    return [
        (words[1], int(words[2]) if words[2:] and words[2].isdecimal() else 5)
        for words in lines
        if words[1:] and words[0] == "language"
    ]


def _near(name: str, known: dict[str, Path] | dict[str, str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return f"; there is {', '.join(near)}" if near else "; `penstock settings` says what may be set"
