"""Sound files, whatever their format, as PCM16 at 24 kHz."""

from __future__ import annotations

import os
import sys
import threading
import wave
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import av
import pytest

from apps.voice.audio import UnreadableAudio, UnwritableFile, opened, whole, write_wav
from tests.apps.voice.sounds import RATE, silence, tone, wav


def peak(sound: bytes) -> int:
    """Return the loudest sample."""
    return max(map(abs, array("h", sound)))


def compressed(path: Path, codec: str, source: Path) -> Path:
    """Encode a WAV file, as 44.1 kHz in stereo."""
    with av.open(str(path), "w") as out, av.open(str(source)) as into:
        stream = out.add_stream(codec, rate=44_100, layout="stereo")
        assert isinstance(stream, av.AudioStream)
        resampler = av.AudioResampler(format=stream.format.name, layout="stereo", rate=44_100)
        frames = [ours for frame in into.decode(audio=0) for ours in resampler.resample(frame)]
        for frame in (*frames, *resampler.resample(None), None):
            out.mux(stream.encode(frame))
    return path


def test_a_wav_at_our_rate_is_taken_bit_for_bit(tmp_path: Path) -> None:
    """What needs no conversion gets none, and the pieces are as long as was asked for, but for the last."""
    sound = tone(0.25)
    with opened(str(wav(tmp_path / "a.wav", sound))) as recording:
        pieces = list(recording.pieces(1000))
        assert recording.seconds == pytest.approx(0.25)
    assert b"".join(pieces) == sound
    assert {len(piece) for piece in pieces[:-1]} == {2000}


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (22_050, 2), (48_000, 2)])
def test_other_rates_and_channels_are_converted(tmp_path: Path, rate: int, channels: int) -> None:
    """The length in seconds and the loudness stay."""
    sound = whole(str(wav(tmp_path / "a.wav", tone(0.5, rate=rate), rate=rate, channels=channels)))
    assert len(sound) / 2 / RATE == pytest.approx(0.5, abs=0.002)
    assert 7000 < peak(sound) < 9000


@pytest.mark.parametrize(("name", "codec"), [("a.mp3", "libmp3lame"), ("a.flac", "flac"), ("a.m4a", "aac")])
def test_compressed_files_are_read(tmp_path: Path, name: str, codec: str) -> None:
    """MP3, FLAC and AAC give the same sound, as far as they can."""
    path = compressed(tmp_path / name, codec, wav(tmp_path / "a.wav", tone(1)))
    sound = whole(str(path))
    assert len(sound) / 2 / RATE == pytest.approx(1, abs=0.1)
    assert 4000 < peak(sound) < 12_000


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "there is no such file"),
        (b"Dear diary, today nothing happened.\n", r"no sound.*--raw"),
        (b"", "it is empty"),
    ],
)
def test_what_is_no_sound_is_told_by_name(tmp_path: Path, content: bytes | None, why: str) -> None:
    """The error names the file and what can be done."""
    path = tmp_path / "diary.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableAudio, match=rf"diary\.txt: .*{why}"):
        whole(str(path))


def test_what_can_be_decoded_of_a_damaged_file_is_given(tmp_path: Path) -> None:
    """A few bad frames do not cost the rest; that they were there is told at the end."""
    path = compressed(tmp_path / "a.mp3", "libmp3lame", wav(tmp_path / "a.wav", tone(2)))
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path.write_bytes(content)
    got: list[bytes] = []
    with (
        opened(str(path)) as recording,
        pytest.raises(UnreadableAudio, match=r"cannot read all of .*a\.mp3: \d+ of its frames.*after 0\.[5-8] s"),
    ):
        got.extend(recording.pieces(RATE // 10))
    assert 1.3 < len(b"".join(got)) / 2 / RATE < 2.1
    assert peak(got[-3]) > 4000


def test_a_folder_is_no_sound(tmp_path: Path) -> None:
    """Nor is anything else that cannot be read as a file."""
    with pytest.raises(UnreadableAudio, match="directory"):
        whole(str(tmp_path))


def test_a_film_without_sound_says_so(tmp_path: Path) -> None:
    """A file with pictures alone is read, and has nothing for us."""
    path = tmp_path / "mute.avi"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        frame = av.VideoFrame(32, 32, "yuv420p")
        out.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(UnreadableAudio, match=r"mute\.avi: there is no sound in it"):
        whole(str(path))


def test_an_error_of_the_reader_is_not_the_files(tmp_path: Path) -> None:
    """What goes wrong while a file is open is not taken for its fault."""
    path = wav(tmp_path / "a.wav", silence(0.1))
    with pytest.raises(ConnectionResetError), opened(str(path)):
        raise ConnectionResetError


@contextmanager
def piped(monkeypatch: pytest.MonkeyPatch, content: bytes) -> Iterator[None]:
    """Put `content` on standard input meanwhile, as a pipe that was closed."""
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe, monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", SimpleNamespace(buffer=pipe))
        yield


def test_a_file_is_not_closed_under_who_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live source that gives nothing more is left by whoever has enough, and its reader comes to no harm."""
    reading, writing = os.pipe()
    os.write(writing, silence(1))
    with os.fdopen(reading, "rb") as pipe, monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", SimpleNamespace(buffer=pipe))
        with opened("-", raw=RATE) as recording:
            got: list[bytes] = []
            reader = threading.Thread(target=lambda: got.extend(recording.pieces(RATE // 10)))
            reader.start()
            while len(got) < 5:
                assert reader.is_alive()
        os.write(writing, tone(0.5))
        os.close(writing)
        reader.join(timeout=10)
    assert b"".join(got) == silence(1) + tone(0.5)


def test_a_wav_is_read_from_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe cannot be wound back, and its length is not known."""
    content = BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(tone(0.5))
    with piped(monkeypatch, content.getvalue()):
        assert whole("-") == tone(0.5)


def test_bare_samples_are_read_at_the_rate_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a header nobody could know."""
    with piped(monkeypatch, tone(0.5, rate=16_000)), opened("-", raw=16_000) as recording:
        sound = b"".join(recording.pieces(RATE))
    assert len(sound) / 2 / RATE == pytest.approx(0.5, abs=0.002)
    with (
        piped(monkeypatch, b"Dear diary, nothing happened." * 64),
        pytest.raises(UnreadableAudio, match=r"standard input: .*--raw"),
    ):
        whole("-")


def test_a_reply_is_written_as_wav(tmp_path: Path) -> None:
    """And can be read again; where it cannot be written the file is named."""
    write_wav(tmp_path / "reply.wav", tone(0.1))
    assert whole(str(tmp_path / "reply.wav")) == tone(0.1)
    with pytest.raises(UnwritableFile, match=r"none/reply\.wav"):
        write_wav(tmp_path / "none" / "reply.wav", tone(0.1))
