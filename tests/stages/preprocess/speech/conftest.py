from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from stages.preprocess.speech.transcriber import Transcriber
from tests.stages.preprocess.speech.fakes import ToneRecogniser


@pytest.fixture
def recogniser() -> ToneRecogniser:
    """Give a recogniser of tones."""
    return ToneRecogniser()


@pytest.fixture
async def transcriber(recogniser: ToneRecogniser) -> AsyncIterator[Transcriber]:
    """Give a transcriber with it, at work."""
    async with Transcriber(recogniser) as running:
        yield running
        recogniser.going.set()
