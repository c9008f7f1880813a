from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from apps.speech import BUNDLED
from pipeline.errors import ModelLoadError
from stages.postprocess.speak.espeak import Kind, espeak
from stages.preprocess.speech import whisper
from stages.preprocess.speech.recogniser import Task
from stages.preprocess.speech.resample import Samples
from stages.preprocess.speech.whisper import Whisper, _words

SENTENCES = ("how much is the delivery", "do you have the jacket in blue", "i want to cancel my order")
"""Of two and a half seconds each, so that they share a batch."""


@pytest.fixture(scope="module")
def demo() -> Whisper:
    """Give the bundled model."""
    return Whisper(str(BUNDLED), threads=1, name="demo")


@pytest.fixture(scope="module")
def random_one(tmp_path_factory: pytest.TempPathFactory) -> Whisper:
    """Give a model of the usual layout, which babbles."""
    from tests.stages.preprocess.speech import tiny_whisper

    folder = tmp_path_factory.mktemp("asr") / "tiny"
    tiny_whisper.make(folder)
    return Whisper(str(folder), threads=1)


@pytest.fixture(scope="module")
def polyglot(tmp_path_factory: pytest.TempPathFactory) -> Whisper:
    """Give a multilingual model of the usual layout, sure of its babble."""
    from tests.stages.preprocess.speech import tiny_whisper

    folder = tmp_path_factory.mktemp("asr") / "many"
    tiny_whisper.make(folder, multilingual=True)
    return Whisper(str(folder), threads=1)


def _spoken(text: str) -> tuple[Samples, list[float]]:
    """`text` at 16 kHz, as espeak-ng says it, with a third of a second before it; and when each word begins."""
    speech = espeak().say(text)
    samples = np.frombuffer(speech.pcm, np.int16).astype(np.float32) / 32768
    places = np.arange(len(samples) * 16_000 // 22_050) * (22_050 / 16_000)
    sound = np.interp(places, np.arange(len(samples)), samples).astype(np.float32)
    quiet = np.zeros(5_333, np.float32)
    starts = [mark.at / 22_050 + 1 / 3 for mark in speech.marks if mark.kind == Kind.WORD]
    return np.concatenate([quiet, sound, quiet]), starts


def _task(sound: Samples, **options: Any) -> Task:
    return Task((sound,), **options)


def _text(words: Any) -> str:
    return "".join(word.text for word in words).strip()


def test_the_bundled_model_hears_what_is_said(demo: Whisper) -> None:
    """Sentences of its domain, alone and in one batch, with the time of each word."""
    assert (demo.name, demo.window_s) == ("demo", 8.0)
    spoken = [_spoken(text) for text in SENTENCES]
    tasks = [_task(sound) for sound, _ in spoken]
    assert len({demo.kind(task) for task in tasks}) == 1
    together = demo.recognise(tasks)
    for text, task, (_, starts), heard in zip(SENTENCES, tasks, spoken, together, strict=True):
        assert _text(heard.words) == text
        assert heard.language == "en"
        assert np.abs(np.array([word.start for word in heard.words]) - starts).mean() < 0.2
        assert _text(demo.recognise([task])[0].words) == text


def test_short_pieces_cost_less(demo: Whisper) -> None:
    """A model that was made for short pieces is given no more features than they need."""
    lengths = [demo._mel(_task(np.zeros(round(seconds * 16_000), np.float32))).shape for seconds in (1, 3, 8)]
    assert lengths == [(80, 200), (80, 400), (80, 800)]


def test_a_language_it_does_not_know_is_the_one_it_knows(demo: Whisper) -> None:
    """Nor does it take hints, which it was never shown."""
    sound, _ = _spoken(SENTENCES[0])
    heard = demo.recognise([_task(sound, language="de-DE", hint="hiking jacket")])[0]
    assert (_text(heard.words), heard.language) == (SENTENCES[0], "en")


@pytest.mark.slow
def test_a_model_of_the_usual_kind(random_one: Whisper) -> None:
    """Its window is 30 seconds, which it is always given whole; a hint becomes its prompt."""
    assert random_one.window_s == 30
    sound, _ = _spoken(SENTENCES[0])
    assert random_one._mel(_task(sound)).shape == (80, 3000)
    plain, hinted = _task(sound, language="en"), _task(sound, language="en", hint="w7 w9")
    assert random_one.kind(plain) != random_one.kind(hinted)
    tokenizer = random_one._tokenizer("en")
    assert tokenizer.decode(random_one._context(tokenizer, "w7 w9")) == " w7 w9"
    assert [random_one.recognise([task])[0].language for task in (plain, hinted)] == ["en", "en"]


@pytest.mark.slow
def test_a_multilingual_model_of_the_usual_kind(polyglot: Whisper) -> None:
    """In each language, and in the one that it finds itself, it writes what the stock faster-whisper does with it."""
    stock = polyglot._model
    assert stock.model.is_multilingual
    sound = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    written = {}
    for language in ("de-AT", "fr", "en", ""):
        (heard,) = polyglot.recognise([_task(sound, language=language)])
        segments, info = stock.transcribe(
            sound,
            language=language.partition("-")[0] or None,
            beam_size=1,
            temperature=0.0,
            without_timestamps=True,
            max_new_tokens=28,
            compression_ratio_threshold=None,
        )
        assert heard.language == info.language
        written[heard.language] = _text(heard.words)
        assert written[heard.language] == "".join(segment.text for segment in segments).strip()
    assert {"de", "fr", "en"} < set(written)
    assert len({written[language] for language in ("de", "fr", "en")}) == 3


class _Polyglot:
    """What of a multilingual model tells languages apart."""

    is_multilingual = True
    supported_languages = ("en", "de", "fr")

    def __init__(self) -> None:
        self.model = self
        self.feature_extractor = SimpleNamespace(chunk_length=30)

    def detect_language(self, encoded: object) -> list[list[tuple[str, float]]]:
        """As CTranslate2 answers."""
        return [[("<|fr|>", 0.8), ("<|de|>", 0.1)]]


def test_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A known one is taken as it is, and shares batches; one that is to be found out is found by itself."""
    monkeypatch.setattr(whisper, "_load", lambda *_: _Polyglot())
    model = Whisper("many")
    sound = np.zeros(16_000, np.float32)
    kinds = [model.kind(_task(sound, language=language)) for language in ("de-AT", "DE", "fr", "", "", "tlh")]
    assert kinds[0] == kinds[1]
    assert len(set(kinds)) == 5
    assert model._found(None) == "fr"


@pytest.mark.slow
def test_babble_is_bounded(random_one: Whisper) -> None:
    """A model that cannot stop writes no more than can be said in the time, and words lie within the piece."""
    task, tokenizer = _task(np.zeros(32_000, np.float32), language="en"), random_one._tokenizer("en")
    prompt = random_one._model.get_prompt(tokenizer, [], without_timestamps=True)
    spoken = random_one._generate(random_one._model.encode(random_one._mel(task)), prompt, tokenizer, [task])[0]
    assert len(spoken.tokens) <= 16 + 2 * 12
    assert all(word.end <= 2.0 for word in random_one.recognise([task])[0].words)


def test_punctuation_belongs_to_its_word() -> None:
    """And no word ends after its piece."""
    aligned = [
        {"word": " Hello", "tokens": [1], "start": 0.1, "end": 0.4},
        {"word": ",", "tokens": [2], "start": 0.4, "end": 0.5},
        {"word": " you", "tokens": [3], "start": 0.6, "end": 1.5},
        {"word": "", "tokens": [], "start": 1.5, "end": 1.5},
    ]
    words = _words(aligned, 1.0)
    assert [(word.text, word.end) for word in words] == [(" Hello,", 0.4), (" you", 1.0)]


@pytest.mark.parametrize(
    ("files", "missing"), [((), "model.bin and tokenizer.json"), (("model.bin",), "lacks tokenizer.json")]
)
def test_a_folder_without_a_model_is_named(tmp_path: Path, files: tuple[str, ...], missing: str) -> None:
    """The error tells which one, and what is missing."""
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ModelLoadError, match=f"{tmp_path}.*{missing}"):
        Whisper(str(tmp_path))


@pytest.mark.parametrize("name", ["./asr", "/no/such/folder", "~/asr"])
def test_a_folder_that_is_not_there(name: str) -> None:
    """It is not looked for on the internet."""
    with pytest.raises(ModelLoadError, match="no such folder"):
        Whisper(name)


def test_a_size_that_there_is_not() -> None:
    """The error tells which there are."""
    with pytest.raises(ModelLoadError, match=r"'tinny'.*tiny, base.en"):
        Whisper("tinny")


def test_without_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size that is not on this machine is told with the cure, and why it could not be had, in one line."""

    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("Got: ConnectError: Name or service not known\nAn error happened.")

    monkeypatch.setattr("faster_whisper.transcribe.download_model", offline)
    with pytest.raises(ModelLoadError, match=r"'tiny'.*hub.*ConnectError.*copy a converted model's folder") as found:
        Whisper("tiny")
    assert "\n" not in str(found.value)


def test_features_that_do_not_fit(tmp_path: Path) -> None:
    """A model whose preprocessor_config.json is of another one is refused when it is loaded."""
    for file in BUNDLED.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "preprocessor_config.json").write_text('{"feature_size": 128}')
    with pytest.raises(ModelLoadError, match=r"80 mels.*128"):
        Whisper(str(tmp_path))
