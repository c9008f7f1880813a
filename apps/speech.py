"""What the speech stage is made of: voice detection, a recogniser and the queue before it, each loaded once a process.

Importing it loads no library of models.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, NoReturn

from prometheus_client import CollectorRegistry

from apps.settings import AsrSettings, StageSettings
from apps.unstoppable import in_thread
from pipeline.errors import ModelLoadError, NoRecogniser
from pipeline.stage import Stage
from stages.preprocess.speech.ear import Network
from stages.preprocess.speech.metrics import SpeechMetrics
from stages.preprocess.speech.recogniser import Recogniser, Task
from stages.preprocess.speech.stage import SpeechStage, speech_stage
from stages.preprocess.speech.transcriber import Transcriber

log = logging.getLogger(__name__)

SPEECH = "speech"
NONE = "none"
BUNDLED = Path(__file__).parent / "demo" / "models" / "asr"
BUNDLED_NAME = "penstock-demo-asr"
DEMO_THREADS = 1
"""So small a model is no faster with two."""


class Deaf:
    """A recogniser where there is no model: it refuses everything."""

    name = NONE
    window_s = 30.0

    def recognise(self, tasks: Sequence[Task]) -> NoReturn:
        """Refuse.

        Raises:
            NoRecogniser: always.
        """
        raise NoRecogniser

    def kind(self, task: Task) -> object:
        """All tasks are alike."""
        return None


class Ears(NamedTuple):
    """What was loaded; it can be used as soon as its thread and queue are there."""

    vad: Network
    recogniser: Recogniser


@dataclass(frozen=True)
class SpeechParts:
    """A speech stage, ready to run; `name` is its recogniser's."""

    name: str
    speech: SpeechStage
    busy_since: Callable[[], float | None] = lambda: None
    """When the batch in progress began (`time.monotonic`); None: there is none."""
    problem: Callable[[], str] = lambda: ""
    """Why it cannot serve now; nothing if it can."""

    def stage(self, settings: StageSettings) -> Stage:
        """The stage for a loop."""
        return replace(speech_stage(self.speech), concurrency=settings.concurrency, span=settings.span)

    def chained(self, names: Sequence[str], settings: StageSettings) -> Stage:
        """The same, called as the other parts are: it is never chained."""
        return self.stage(settings)


async def load_ears(asr: AsrSettings, *, needed: bool = True) -> Ears:
    """Load what hears, off the event loop. If it is not `needed`, a bundled model that is not there is only told.

    Raises:
        ModelLoadError: it cannot be loaded.
    """
    return await in_thread(_load, asr, needed)


@asynccontextmanager
async def hearing(
    ears: Ears, asr: AsrSettings, registry: CollectorRegistry | None = None
) -> AsyncGenerator[SpeechParts, None]:
    """The speech stage meanwhile; `registry` gets its metrics."""
    recogniser = ears.recogniser
    transcriber = Transcriber(
        recogniser, queue=asr.queue, batch=asr.batch, max_wait_s=asr.max_wait_s, metrics=SpeechMetrics(registry)
    )
    async with transcriber:
        stage = SpeechStage(ears.vad, transcriber, language=asr.language, step_ms=asr.step_ms)
        yield SpeechParts(recogniser.name, stage, lambda: transcriber.busy_since)


@asynccontextmanager
async def loaded_speech(
    asr: AsrSettings, registry: CollectorRegistry | None = None
) -> AsyncGenerator[SpeechParts, None]:
    """Load what hears, and the stage meanwhile.

    Raises:
        ModelLoadError: it cannot be loaded.
    """
    async with hearing(await load_ears(asr), asr, registry) as parts:
        yield parts


def _load(asr: AsrSettings, needed: bool) -> Ears:
    from stages.preprocess.speech.vad import Vad

    return Ears(Vad(), _recogniser(asr, needed))


def _recogniser(asr: AsrSettings, needed: bool) -> Recogniser:
    from stages.preprocess.speech.whisper import Whisper

    if asr.model == NONE:
        return Deaf()
    if not asr.model and not (BUNDLED / "model.bin").is_file():
        why = "the bundled speech recognition model is not there; name another with --asr"
        if needed:
            raise ModelLoadError(str(BUNDLED), why)
        log.warning("%s: until then speech is found, but not recognised", why)
        return Deaf()
    source = str(Path(asr.model).expanduser()) if asr.model else str(BUNDLED)
    threads = asr.threads or (0 if asr.model else DEMO_THREADS)
    name = "" if asr.model else BUNDLED_NAME
    return Whisper(source, device=asr.device, compute_type=asr.compute_type, threads=threads, beam=asr.beam, name=name)
