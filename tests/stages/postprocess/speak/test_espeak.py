"""The binding of espeak-ng, on the real library."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import SynthesisFailed
from stages.postprocess.speak.espeak import SAMPLE_RATE, Espeak, Kind, Mark, Piece, Speech, Style, espeak

TEXT = "Hello there, Mr. Müller: it costs 3.50 dollars."


def seconds(speech: Speech) -> float:
    """How long `speech` is."""
    return len(speech.pcm) / 2 / SAMPLE_RATE


def words(text: str, speech: Speech) -> list[tuple[str, int]]:
    """What is said where, by the marks."""
    return [(text[m.start : m.start + m.length], m.at) for m in speech.marks if m.kind is Kind.WORD]


def test_speech_is_heard() -> None:
    """Some seconds of sound that is neither silent nor clipped."""
    samples = np.frombuffer(espeak().say(TEXT).pcm, np.int16)

    assert 2.5 < len(samples) / SAMPLE_RATE < 6
    assert 1_000 < np.sqrt(np.mean(samples.astype(float) ** 2)) < 10_000


def test_marks_tell_where_words_begin() -> None:
    """Each word has its place in the text, and the places in the sound rise with them; umlauts count one."""
    speech = espeak().say(TEXT)

    found = words(TEXT, speech)

    assert [word for word, _ in found][:6] == ["Hello", "there", "Mr", "Müller", "it", "costs"]
    assert found[0][1] == 0
    places = [at for _, at in found]
    assert places == sorted(places)
    assert places[-1] < len(speech.pcm) // 2


@pytest.mark.parametrize("voice", ["en-us", "en-us+f3", "gmw/en+linda", "de", "en-gb-x-rp+whisper"])
def test_same_text_has_same_sound(voice: str) -> None:
    """Whatever was spoken in between, and by whom, a text has the same samples and marks again."""
    first = espeak().say(TEXT, Style(voice))
    espeak().say("Something else altogether", Style("fr+m2", rate=240))

    assert espeak().say(TEXT, Style(voice)) == first


def test_style_is_heard() -> None:
    """Words a minute, gaps, pitch and voices change the sound, and none of it stays for the next utterance."""
    usual = espeak().say(TEXT)

    assert seconds(espeak().say(TEXT, Style(rate=350))) < 0.7 * seconds(usual)
    assert seconds(espeak().say(TEXT, Style(rate=90))) > 1.5 * seconds(usual)
    assert seconds(espeak().say(TEXT, Style(gap=20))) > 1.2 * seconds(usual)
    assert espeak().say(TEXT, Style(pitch=90)).pcm != usual.pcm != espeak().say(TEXT, Style("en-us+f3")).pcm
    assert espeak().say(TEXT) == usual


@pytest.mark.parametrize("voice", ["en-US", "EN-us+F3", "gmw/en-US"])
def test_voices_are_found_whatever_their_letters(voice: str) -> None:
    """Names are taken in small and capital letters, as languages and as files."""
    assert voice in espeak().voices or "/" in voice
    assert espeak().voices.find(voice).file.name == "en-US"


def test_first_choice_for_a_language() -> None:
    """A code that several files have means the one that puts it first."""
    assert espeak().voices.find("en-gb").file.name == "en"
    assert espeak().voices.find("zh").file.name == "cmn"


@pytest.mark.parametrize(("voice", "near"), [("en-uss", "en-us"), ("en-us+Linde", "linda"), ("", "no voice")])
def test_unknown_voices_are_refused(voice: str, near: str) -> None:
    """A voice that is not there is an error that names it and what is near; the library would take another."""
    with pytest.raises(SynthesisFailed, match=near):
        espeak().say(TEXT, Style(voice))


def test_odd_text_is_spoken() -> None:
    """Commands, ends and halves of characters in a text do nothing but keep their places."""
    text = "One\x01 50 P two\0three \ud800 four."

    assert [word for word, _ in words(text, espeak().say(text))] == ["One", "50", "P", "two", "three", "four"]
    assert words("", espeak().say("")) == []


def test_utterance_can_be_cut_short() -> None:
    """Who has heard enough says so, and gets no more."""
    pieces: list[Piece] = []

    def take(piece: Piece) -> bool:
        pieces.append(piece)
        return len(pieces) < 3

    espeak().stream(TEXT * 20, Style(), take)

    assert len(pieces) == 3
    assert 0 < sum(len(piece.pcm) for piece in pieces) < SAMPLE_RATE


def test_threads_take_turns() -> None:
    """Several threads speak at once, and each gets its own text, to the sample."""
    texts = [f"Number {n} of many, by {n} voices." for n in range(4)]
    expected = [espeak().say(text) for text in texts]
    heard: dict[int, list[Speech]] = {n: [] for n in range(4)}

    def speak(n: int) -> None:
        heard[n].extend(espeak().say(texts[n]) for _ in range(5))

    threads = [threading.Thread(target=speak, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert all(heard[n] == [expected[n]] * 5 for n in range(4))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux' /proc")
def test_nothing_is_left_behind() -> None:
    """Loading the library again and again takes no memory: it would be thousands of bytes each time."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def grown(count: int) -> int:
        before = resident()
        for number in range(count):
            espeak().say("Well.", Style(("en-us+f3", "de", "en-us")[number % 3]))
        return resident() - before

    assert min(grown(100) for _ in range(5)) < 100 * 800


def test_data_that_is_not_there(tmp_path: Path) -> None:
    """A folder without the library's data is told as such."""
    broken = Espeak()
    broken._data = str(tmp_path)

    with pytest.raises(SynthesisFailed, match="did not start"):
        broken.say(TEXT)


def test_phonemes_are_told() -> None:
    """Beside its words an utterance has the names of its phonemes."""
    marks = espeak().say("yes").marks

    assert Mark(0, Kind.WORD, 0, 3) in marks
    assert [mark.name for mark in marks if mark.kind is Kind.PHONEME][:3] == ["j", "'E", "s"]
