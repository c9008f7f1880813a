"""What the speak stage is made of: the synthesizer that the settings name. Importing it loads none."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from apps.settings import SpeakSettings, StageSettings
from apps.unstoppable import in_thread
from pipeline.errors import ModelLoadError, SettingsError, SynthesisFailed
from pipeline.stage import Stage
from stages.postprocess.speak.metrics import SpeakMetrics
from stages.postprocess.speak.stage import SpeakStage, speak_stage
from stages.postprocess.speak.synthesizer import Synthesizer

SPEAK = "speak"
NONE = "none"
OPENAI_EXTRA = "the official client is missing, which comes with `pip install 'penstock[openai]'`"


@dataclass(frozen=True)
class SpeakParts:
    """A speak stage, ready to run."""

    speak: SpeakStage
    busy_since: Callable[[], float | None] = lambda: None
    """Nothing in it can be stuck that could be mended by ending the process."""
    problem: Callable[[], str] = lambda: ""
    """Nothing keeps it from serving."""

    def stage(self, settings: StageSettings) -> Stage:
        """The stage for a loop."""
        return replace(speak_stage(self.speak), concurrency=settings.concurrency, span=settings.span)

    def chained(self, names: Sequence[str], settings: StageSettings) -> Stage:
        """The same, called as the other parts are: it is never chained, for it is paced."""
        return self.stage(settings)


@asynccontextmanager
async def loaded_speak(
    speak: SpeakSettings, registry: CollectorRegistry | None = None
) -> AsyncGenerator[SpeakParts, None]:
    """The speak stage meanwhile, its voice loaded off the event loop; `registry` gets its metrics.

    Raises:
        ModelLoadError: there is no such voice.
        SettingsError: the settings of what shall speak are not enough, or it shall not.
    """
    async with await _synthesizer(speak) as synthesizer:
        metrics = SpeakMetrics(registry)
        yield SpeakParts(SpeakStage(synthesizer, lead_s=speak.lead_s, ahead_s=speak.ahead_s, metrics=metrics))


async def _synthesizer(speak: SpeakSettings) -> AbstractAsyncContextManager[Synthesizer]:
    if speak.engine == "openai":
        return _server(speak)
    return await in_thread(_local, speak)


def _local(speak: SpeakSettings) -> AbstractAsyncContextManager[Synthesizer]:
    """One that computes in this process."""
    if speak.engine == NONE:
        raise SettingsError("speak.engine", "must not be `none` where there is a speak stage")
    if speak.engine == "piper":
        from stages.postprocess.speak.piper import PiperSynthesizer

        if not speak.voice:
            raise SettingsError("speak.voice", "must name a Piper voice: its .onnx file, or a folder of them")
        return PiperSynthesizer(Path(speak.voice).expanduser())
    return _espeak(speak)


def _espeak(speak: SpeakSettings) -> AbstractAsyncContextManager[Synthesizer]:
    from stages.postprocess.speak.espeak_engine import EspeakSynthesizer

    try:
        return EspeakSynthesizer(speak.voice, rate=speak.rate, pitch=speak.pitch)
    except SynthesisFailed as error:
        raise ModelLoadError(speak.voice or "espeak-ng", str(error)) from error
    except (ImportError, OSError) as error:
        raise ModelLoadError("espeak-ng", f"espeakng-loader's library cannot be loaded: {error}") from error


def _server(speak: SpeakSettings) -> AbstractAsyncContextManager[Synthesizer]:
    url = urlsplit(speak.base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise SettingsError("speak.base_url", "must be given for the engine `openai`: http://HOST:PORT/v1, say")
    if url.username or url.password:
        raise SettingsError("speak.base_url", "must hold no password: a server's key stands in speak.api_key")
    try:
        from stages.postprocess.speak.server import ServerSynthesizer
    except ModuleNotFoundError as error:
        raise SettingsError("speak.engine", OPENAI_EXTRA) from error
    return ServerSynthesizer(
        speak.base_url.rstrip("/"),
        key=speak.api_key,
        model=speak.model,
        voice=speak.voice,
        most=speak.batch,
        first_s=speak.first_s,
        next_s=speak.next_s,
    )
