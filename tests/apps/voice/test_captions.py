"""Transcripts as SubRip, WebVTT and JSON."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from apps.voice.captions import LINE, LONGEST_S, as_json, cues, srt, vtt
from apps.voice.transcript import Transcript, Utterance, Word

TIMES = r"(\d\d+):(\d\d):(\d\d)[,.](\d\d\d) --> (\d\d+):(\d\d):(\d\d)[,.](\d\d\d)"


def transcript_of(*utterances: list[tuple[str, float, float]]) -> Transcript:
    """Return a transcript of utterances of words with their times."""
    transcript = Transcript()
    for number, words in enumerate(utterances):
        event = {
            "type": "conversation.item.input_audio_transcription.completed",
            "item_id": f"item_{number}",
            "transcript": " ".join(word for word, _, _ in words),
            "words": [{"word": f" {word}", "start": start, "end": end} for word, start, end in words],
        }
        transcript.take(event)
    return transcript


def even(text: str, start: float, each: float = 0.4) -> list[tuple[str, float, float]]:
    """The words of `text`, each as long."""
    return [(word, start + n * each, start + (n + 1) * each) for n, word in enumerate(text.split())]


def test_subrip_as_players_read_it() -> None:
    """Numbered blocks with a comma before the milliseconds, and an empty line between."""
    transcript = transcript_of(even("how much is a tent", 0.5), even("ninety euros", 3661.25))
    assert srt(transcript) == (
        "1\n00:00:00,500 --> 00:00:02,500\nhow much is a tent\n\n2\n01:01:01,250 --> 01:01:02,050\nninety euros\n"
    )


def test_webvtt_as_browsers_read_it() -> None:
    """A header, a point before the milliseconds, and no markup in the text."""
    transcript = transcript_of([("<b>", 0.0, 0.5), ("&", 0.5, 0.75), ("-->", 0.75, 1.0)])
    assert vtt(transcript) == "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n&lt;b&gt; &amp; →\n"
    assert vtt(Transcript()) == "WEBVTT\n"
    assert srt(Transcript()) == ""


def test_a_long_utterance_is_cut_into_captions() -> None:
    """Two lines each, at most seven seconds, and a new one after a pause."""
    made = cues(transcript_of([*even("so " * 60, 0.0), *even("and then nothing", 40.0)]))
    assert len(made) > 4
    assert all(len(cue.lines) <= 2 and max(map(len, cue.lines)) <= LINE for cue in made)
    assert all(cue.end - cue.start <= 1000 * LONGEST_S for cue in made)
    assert made[-1].lines == ("and then nothing",)


def test_json_has_every_word_with_its_times() -> None:
    """In the form of OpenAI's verbose_json, which is what tools read."""
    transcript = transcript_of(even("a red tent", 1.0))
    transcript.seconds = 2.5
    document = json.loads(as_json(transcript))
    assert (document["text"], document["duration"], document["language"]) == ("a red tent", 2.5, None)
    (segment,) = document["segments"]
    assert (segment["start"], segment["end"], segment["text"]) == (1.0, 2.2, "a red tent")
    assert segment["words"][1] == {"word": "red", "start": 1.4, "end": 1.8}


def test_what_failed_stands_in_the_json() -> None:
    """A gap is told, not hidden."""
    transcript = Transcript()
    error = {"message": "no memory"}
    transcript.take({"type": "conversation.item.input_audio_transcription.failed", "item_id": "a", "error": error})
    (segment,) = json.loads(as_json(transcript))["segments"]
    assert (segment["text"], segment["problem"]) == ("", "no memory")


@given(
    st.lists(
        st.lists(
            st.tuples(st.text(max_size=60), st.floats(0, 1e5, allow_nan=False), st.floats(0, 1e5, allow_nan=False)),
            max_size=12,
        ),
        max_size=4,
    )
)
def test_whatever_the_words_the_captions_are_valid(utterances: list[list[tuple[str, float, float]]]) -> None:
    """Times rise and never overlap, no caption is empty, and no text breaks the file's form."""
    transcript = Transcript()
    for number, words in enumerate(utterances):
        one = Utterance(f"i{number}", final=True, text="x", words=[Word(*word) for word in words])
        transcript._utterances[one.item] = one
    made = cues(transcript)
    moments = [moment for cue in made for moment in (cue.start, cue.end)]
    assert all(cue.start < cue.end for cue in made)
    assert moments == sorted(moments)
    assert all(line.strip() for cue in made for line in cue.lines)
    blocks = [block for block in re.split(r"\n\n(?=\d+\n\d)", srt(transcript)) if block]
    assert len(blocks) == len(made)
    for form in (srt(transcript), vtt(transcript)):
        assert form.count("-->") == len(made) == len(re.findall(TIMES, form))
