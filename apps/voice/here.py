"""The pipe in this process for one command: what is said to it stays here. Knows no client."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from apps.local import served_here
from apps.progress import progress
from apps.settings import Settings
from apps.speech import loaded_speech
from pipeline.memory import MemoryBus


@asynccontextmanager
async def transcriber(settings: Settings) -> AsyncGenerator[str, None]:
    """A gateway that hears meanwhile, and nothing more; gives its address for WebSockets.

    Raises:
        ModelLoadError: the model cannot be loaded.
    """
    audio = replace(settings.gateway.audio, hears=True)
    settings = replace(settings, gateway=replace(settings.gateway, audio=audio))
    async with AsyncExitStack() as stack:
        with progress(f"loading {settings.asr.model or 'the demo model'}"):
            speech = await stack.enter_async_context(loaded_speech(settings.asr))
        bus = await stack.enter_async_context(MemoryBus())
        yield await stack.enter_async_context(served_here(bus, [speech.stage(settings.stage)], settings, speech.name))
