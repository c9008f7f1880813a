"""Speech from any server with OpenAI's `/v1/audio/speech`, by the official client: sound as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import Self

import numpy as np
import openai

from pipeline.errors import SynthesisFailed
from pipeline.secret import NO_SECRET, Secret
from stages.postprocess.speak.synthesizer import OPENAI_VOICES, Mark, Sound, guessed_length, spread

USUAL_MODEL = "tts-1"
USUAL_VOICE = "alloy"
NO_KEY = "none"
CONNECT_S = 5.0
CHUNK = 4_800
"""Bytes that are asked for at a time: a tenth of a second."""


class ServerSynthesizer:
    """Speaks by the server at `url` (`http://host:port/v1`), which gives PCM at 24 kHz.

    Such a server does not tell where the words are: that is guessed from how long texts take, and known at their ends.

    Args:
        url: Where it is.
        key: What lets us in.
        model: What it calls its model.
        voice: Who speaks in any case; none is whom the client names, if OpenAI has such a voice.
        most: Texts that it shall get at once.
        first_s: Seconds to wait for the first sound of a text.
        next_s: Seconds to wait for each further one.
    """

    def __init__(
        self,
        url: str,
        *,
        key: Secret = NO_SECRET,
        model: str = "",
        voice: str = "",
        most: int = 16,
        first_s: float = 20.0,
        next_s: float = 10.0,
    ) -> None:
        timeout = openai.Timeout(None, connect=CONNECT_S)
        self._client = openai.AsyncOpenAI(base_url=url, api_key=key.reveal() or NO_KEY, max_retries=1, timeout=timeout)
        # These would come from the environment, and are no business of whoever runs a server.
        self._client.organization = self._client.project = self._client.admin_api_key = None
        self._model, self._own = model or USUAL_MODEL, voice
        self.at_once = most
        self._first_s, self._next_s = first_s, next_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def say(self, text: str, voice: str, speed: float) -> AsyncGenerator[Sound, None]:
        """See `Synthesizer.say`."""
        marks, made, odd = list(spread(text, guessed_length(text, speed))), 0, b""
        async with aclosing(self._chunks(text, self._voice(voice), speed)) as chunks:
            async for chunk in chunks:
                whole = odd + chunk
                odd = whole[len(whole) & ~1 :]
                samples = np.frombuffer(whole[: len(whole) & ~1], np.dtype("<i2")).astype(np.int16)
                made += len(samples)
                yield Sound(samples, _passed(marks, made))
        if not made:
            raise SynthesisFailed("the speech server sent no sound")

    def _voice(self, name: str) -> str:
        return self._own or (name.lower() if name.lower() in OPENAI_VOICES else USUAL_VOICE)

    async def _chunks(self, text: str, voice: str, speed: float) -> AsyncGenerator[bytes, None]:
        """The bytes of the answer as they come.

        Raises:
            SynthesisFailed: says what the server did.
        """
        asking = self._client.audio.speech.with_streaming_response.create(
            model=self._model, voice=voice, input=text, response_format="pcm", speed=speed
        )
        try:
            async with asyncio.timeout(self._first_s) as limit, asking as response:
                _check_sound(response.headers.get("content-type", ""))
                chunks: AsyncIterator[bytes] = response.iter_bytes(CHUNK)
                async for chunk in chunks:
                    limit.reschedule(None)
                    yield chunk
                    limit.reschedule(asyncio.get_running_loop().time() + self._next_s)
        except openai.APIStatusError as error:
            raise SynthesisFailed(f"the speech server answers {error.status_code}") from None  # it may say the key
        except openai.OpenAIError as error:
            raise SynthesisFailed("the speech server cannot be reached") from error
        except TimeoutError:
            raise SynthesisFailed("the speech server is too slow") from None


def _check_sound(kind: str) -> None:
    """Raise SynthesisFailed for an answer of this content type that is no sound: a page, or an error in a 200."""
    if kind.startswith(("text/", "application/json")):
        raise SynthesisFailed(f"the speech server answers with {kind.partition(';')[0]} instead of sound")


def _passed(marks: list[Mark], made: int) -> tuple[Mark, ...]:
    """Those of `marks`, which rise, that are before sample `made`; they are taken out."""
    count = sum(sample <= made for _, sample in marks)
    passed, marks[:] = tuple(marks[:count]), marks[count:]
    return passed
