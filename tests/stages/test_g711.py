"""G.711 to the bit: against the published words, and both ways."""

from __future__ import annotations

import av
import numpy as np
import pytest

from stages.g711 import Law, decode, encode

CODECS: dict[Law, str] = {"pcmu": "pcm_mulaw", "pcma": "pcm_alaw"}
ALL = bytes(range(256))


@pytest.mark.parametrize("law", ["pcmu", "pcma"])
def test_every_byte_is_decoded_as_ffmpeg_does(law: Law) -> None:
    """All 256 words of a law have the samples that another implementation gives them."""
    decoder = av.CodecContext.create(CODECS[law], "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate, decoder.layout = 8000, "mono"
    (frame,) = decoder.decode(av.Packet(ALL))

    assert decode(ALL, law).tolist() == frame.to_ndarray()[0].tolist()


@pytest.mark.parametrize("law", ["pcmu", "pcma"])
def test_decoded_words_are_encoded_as_they_were(law: Law) -> None:
    """What was decoded has its word again; mu-law has two zeros, of which the positive one is used."""
    again = encode(decode(ALL, law), law)

    assert again == (ALL.replace(b"\x7f", b"\xff") if law == "pcmu" else ALL)


@pytest.mark.parametrize(
    ("law", "sample", "word"),
    [
        ("pcmu", 0, 0xFF),
        ("pcmu", -1, 0x7F),
        ("pcmu", 3, 0xFF),
        ("pcmu", 4, 0xFE),
        ("pcmu", 32767, 0x80),
        ("pcmu", -32768, 0x00),
        ("pcma", 0, 0xD5),
        ("pcma", -1, 0x55),
        ("pcma", 16, 0xD4),
        ("pcma", 32767, 0xAA),
        ("pcma", -32768, 0x2A),
    ],
)
def test_words_of_the_reference(law: Law, sample: int, word: int) -> None:
    """Zeros, decision values and the ends of the range have the words of ITU-T G.711."""
    assert encode(np.array([sample], np.int16), law) == bytes([word])


@pytest.mark.parametrize("law", ["pcmu", "pcma"])
def test_error_is_at_most_half_a_step(law: Law) -> None:
    """Every sample in range comes back within half a step of its segment, the louder the coarser."""
    samples = np.arange(-32000, 32001).astype(np.int16)

    error = np.abs(decode(encode(samples, law), law).astype(int) - samples)

    step = 2.0 ** np.maximum(np.floor(np.log2(np.abs(samples.astype(int)) + 133)) - 4, 3 if law == "pcmu" else 4)
    assert (error <= step / 2 + 1).all()
