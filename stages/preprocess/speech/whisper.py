"""Whisper through faster-whisper: its model, features and tokenizer, with a batch of pieces at once.

The one importer of faster-whisper's model. Not its `transcribe`, which takes one file at a time and looks for the
pieces itself: here they are cut already, and each fits into the model's window.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelLoadError
from stages.preprocess.speech.ear import MODEL_RATE
from stages.preprocess.speech.judgement import Spoken, bounds, repetitive
from stages.preprocess.speech.recogniser import Heard, Task, Transcription

FULL_S = 30
"""Seconds of Whisper's own window: its models do badly with any other. Those of a shorter one were made for that."""

FRAMES_A_SECOND = 100
"""Of features."""

LENGTHS = (200, 400)
"""Frames to which the pieces of a model with a shorter window are padded, beside that window itself."""

MARGIN = 20
"""Frames of nothing that follow a piece at least."""

TOKENS_A_SECOND = 12
"""More than that is no speech, but a model that repeats itself."""

FEWEST_TOKENS = 16

TRIPLE = 3
"""Tokens that may not come twice in what is written anew because it repeated itself."""

NEEDED = ("model.bin", "tokenizer.json")
"""Files of a model; without the last one faster-whisper would look for it on the internet."""

PREPENDED, APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"
"""Punctuation that belongs to the word behind it, and before it."""


class Whisper:
    """A `Recogniser`: the model called `source`, a size such as `base`, a Hugging Face name, or a folder.

    Args:
        source: Which model.
        device: `auto`, `cpu` or `cuda`.
        compute_type: CTranslate2's name of a precision, or `default`.
        threads: Processor threads; 0 is what CTranslate2 chooses.
        beam: Beams of final pieces.
        name: What it is called; "": as `source` says.

    Raises:
        ModelLoadError: there is no such model, or it cannot be had.
    """

    def __init__(
        self,
        source: str,
        *,
        device: str = "auto",
        compute_type: str = "default",
        threads: int = 0,
        beam: int = 1,
        name: str = "",
    ) -> None:
        self.name = name or (Path(source).name if Path(source).is_dir() else source)
        self._model = _load(source, device, compute_type, threads)
        self._bounds = bounds(Path(source))
        self._beam = beam
        self._features = self._model.feature_extractor
        self.window_s = float(min(self._features.chunk_length, FULL_S))
        self._lengths: tuple[int, ...] = (
            *(LENGTHS if self.window_s < FULL_S else ()),
            int(self.window_s) * FRAMES_A_SECOND,
        )
        self._tokenizers: dict[str, Any] = {}

    def kind(self, task: Task) -> object:
        """What may share a batch: the same length, language, hint and class; nothing if the language is unknown."""
        language = self._known(task.language)
        return (self._length(task), language, task.hint, task.counts) if language else task

    def recognise(self, tasks: Sequence[Task]) -> list[Transcription]:
        """See `Recogniser`; `tasks` are of one `kind`."""
        first = tasks[0]
        encoded = self._model.encode(np.stack([self._mel(task) for task in tasks]))
        language = self._known(first.language) or self._found(encoded)
        tokenizer = self._tokenizer(language)
        prompt = self._model.get_prompt(tokenizer, self._context(tokenizer, first.hint), without_timestamps=True)
        spoken = self._write(encoded, prompt, tokenizer, tasks)
        timed = self._timed(encoded, tokenizer, tasks, [one.tokens for one in spoken])
        return [Transcription(words, language) for words in timed]

    def _known(self, language: str) -> str:
        """The code that the model knows `language` by; "": it is to find out."""
        if not self._model.model.is_multilingual:
            return "en"
        code = language.lower().partition("-")[0]
        return code if code in self._model.supported_languages else ""

    def _found(self, encoded: Any) -> str:
        """The likeliest language of the only piece in `encoded`."""
        token, _ = self._model.model.detect_language(encoded)[0][0]
        return str(token)[len("<|") : -len("|>")]

    def _tokenizer(self, language: str) -> Any:
        from faster_whisper.tokenizer import Tokenizer

        if language not in self._tokenizers:
            multilingual = self._model.model.is_multilingual
            self._tokenizers[language] = Tokenizer(self._model.hf_tokenizer, multilingual, "transcribe", language)
        return self._tokenizers[language]

    def _context(self, tokenizer: Any, hint: str) -> list[int]:
        """What the model takes for said before; one for short pieces was never shown any."""
        tokens: list[int] = tokenizer.encode(f" {hint.strip()}") if hint.strip() and self.window_s >= FULL_S else []
        return tokens

    def _length(self, task: Task) -> int:
        """Frames of features that the encoder is given for `task`."""
        needed = min(task.samples * FRAMES_A_SECOND // MODEL_RATE + MARGIN, self._lengths[-1])
        return next(length for length in self._lengths if length >= needed)

    def _mel(self, task: Task) -> NDArray[np.float32]:
        """The features of `task`: (mels, frames)."""
        length = self._length(task)
        mel = self._features(np.concatenate(task.frames))[:, :-1][:, :length]
        padded: NDArray[np.float32] = np.pad(mel, ((0, 0), (0, length - mel.shape[1]))).astype(np.float32)
        return padded

    def _write(self, encoded: Any, prompt: list[int], tokenizer: Any, tasks: Sequence[Task]) -> list[Spoken]:
        """What is said in each of `tasks`, nothing where that is not to be believed."""
        spoken = self._generate(encoded, prompt, tokenizer, tasks)
        if any(repetitive(tokenizer.decode(one.tokens)) for one in spoken):
            anew = self._generate(encoded, prompt, tokenizer, tasks, no_repeat_ngram_size=TRIPLE)
            spoken = [
                other if repetitive(tokenizer.decode(one.tokens)) else one
                for one, other in zip(spoken, anew, strict=True)
            ]
        return [one if one.believable(self._bounds) else Spoken([], 0.0, 1.0) for one in spoken]

    def _generate(
        self, encoded: Any, prompt: list[int], tokenizer: Any, tasks: Sequence[Task], **more: Any
    ) -> list[Spoken]:
        seconds = max(task.samples for task in tasks) / MODEL_RATE
        most = len(prompt) + FEWEST_TOKENS + int(seconds * TOKENS_A_SECOND)
        results = self._model.model.generate(
            encoded,
            [prompt] * len(tasks),
            beam_size=self._beam if tasks[0].counts else 1,
            max_length=min(most, self._model.max_length),
            suppress_tokens=self._suppressed(tokenizer),
            return_scores=True,
            return_no_speech_prob=True,
            **more,
        )
        return [_spoken(result, tokenizer.eot) for result in results]

    def _suppressed(self, tokenizer: Any) -> list[int]:
        """Tokens that are no words: brackets, notes and the like."""
        from faster_whisper.transcribe import get_suppressed_tokens

        return list(get_suppressed_tokens(tokenizer, [-1]))

    def _timed(
        self, encoded: Any, tokenizer: Any, tasks: Sequence[Task], tokens: list[list[int]]
    ) -> list[tuple[Heard, ...]]:
        """The words that `tokens` are, with their times, which the model's cross-attention tells."""
        if not any(tokens):
            return [()] * len(tasks)
        frames = [min(task.samples * FRAMES_A_SECOND // MODEL_RATE, self._length(task)) for task in tasks]
        aligned = self._model.find_alignment(tokenizer, tokens, encoded, frames)
        return [_words(words, count / FRAMES_A_SECOND) for words, count in zip(aligned, frames, strict=True)]


def _words(aligned: list[dict[str, Any]], seconds: float) -> tuple[Heard, ...]:
    """The words of a piece that lasts so long, with the punctuation beside them."""
    from faster_whisper.transcribe import merge_punctuations

    merge_punctuations(aligned, PREPENDED, APPENDED)
    return tuple(
        Heard(word["word"], min(float(word["start"]), seconds), min(float(word["end"]), seconds))
        for word in aligned
        if word["word"].strip()
    )


def _spoken(result: Any, end: int) -> Spoken:
    """What the model wrote, up to the token `end`; its score is the mean without that one, as faster-whisper has it."""
    tokens = [token for token in result.sequences_ids[0] if token < end]
    count = len(result.sequences_ids[0])
    return Spoken(tokens, result.scores[0] * count / (count + 1), result.no_speech_prob)


def _load(source: str, device: str, compute_type: str, threads: int) -> Any:
    from faster_whisper import WhisperModel

    _look_at(source)
    try:
        model = WhisperModel(source, device=device, compute_type=compute_type, cpu_threads=threads)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelLoadError(source, _why(source, error)) from error
    told, needed = model.feature_extractor.mel_filters.shape[0], model.model.n_mels
    if told != needed:
        why = f"it hears {needed} mels, but its preprocessor_config.json tells of {told}; copy the one of its training"
        raise ModelLoadError(source, why)
    return model


def _look_at(source: str) -> None:
    """Say what is wrong with a folder before somebody takes its name for one on the internet, or misses a file there.

    Raises:
        ModelLoadError: `source` looks like a folder and is none, or one without a model.
    """
    folder = Path(source)
    if folder.is_dir():
        if missing := [name for name in NEEDED if not (folder / name).is_file()]:
            raise ModelLoadError(source, f"it lacks {' and '.join(missing)}: it is no Whisper converted to CTranslate2")
    elif folder.is_absolute() or source.startswith((".", "~")):
        raise ModelLoadError(source, "there is no such folder")


def _why(source: str, error: Exception) -> str:
    """What `error` of faster-whisper means; an OSError about what is no folder is the hub's."""
    lines = str(error).split("\n")
    if isinstance(error, OSError) and not Path(source).is_dir():
        why = lines[0].strip().removeprefix("Got: ")
        cure = "fetch it once with internet, or copy a converted model's folder here and name that"
        return f"it is not on this machine, and the Hugging Face hub did not give it ({why}); {cure}"
    return " ".join(" ".join(lines).split())
