"""The pipe in this process for one command: what is said to it stays here. Knows no client."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from apps.local import served_here
from apps.parts import NAMES, loaded
from apps.progress import progress
from apps.settings import Settings
from apps.speaking import loaded_speak
from apps.speech import loaded_speech
from pipeline.memory import MemoryBus

UNBOUNDED = 1e6
"""Seconds of audio in a second: the client does not send more than is heard."""


@asynccontextmanager
async def transcriber(settings: Settings) -> AsyncGenerator[str, None]:
    """A gateway that hears meanwhile, and nothing more; gives its address for WebSockets.

    Raises:
        ModelLoadError: the model cannot be loaded.
    """
    settings = _sounding(settings, speaks=False)
    async with AsyncExitStack() as stack:
        with progress(f"loading {settings.asr.model or 'the demo model'}"):
            speech = await stack.enter_async_context(loaded_speech(settings.asr))
        bus = await stack.enter_async_context(MemoryBus())
        yield await stack.enter_async_context(served_here(bus, [speech.stage(settings.stage)], settings, speech.name))


@asynccontextmanager
async def speaker(settings: Settings) -> AsyncGenerator[str, None]:
    """A gateway that hears, answers and speaks meanwhile.

    Raises:
        ModelLoadError: a model or a voice cannot be loaded.
    """
    settings = _sounding(settings, speaks=True)
    async with AsyncExitStack() as stack:
        with progress(f"loading {settings.model.name or 'the demo model'}") as tell:
            speech = await stack.enter_async_context(loaded_speech(settings.asr))
            speak = await stack.enter_async_context(loaded_speak(settings.speak))
            parts = await stack.enter_async_context(loaded(settings.model, tell=tell))
        stages = [*(parts.stage(name, settings.stage) for name in NAMES)]
        stages += [speech.stage(settings.stage), speak.stage(settings.stage)]
        bus = await stack.enter_async_context(MemoryBus())
        yield await stack.enter_async_context(served_here(bus, stages, settings, parts.name))


def _sounding(settings: Settings, *, speaks: bool) -> Settings:
    """`settings` with a gateway that takes audio as fast as the client sends it, and gives some if it `speaks`."""
    audio = replace(settings.gateway.audio, hears=True, speaks=speaks, speed=UNBOUNDED, address_speed=UNBOUNDED)
    return replace(settings, gateway=replace(settings.gateway, audio=audio))
