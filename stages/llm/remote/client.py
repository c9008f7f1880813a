"""One OpenAI-compatible server: what it serves, and the pieces of an answer as they come.

The only importer of `openai`. Says what each failure means: wait and try again, go on after what came, or give it up.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import openai

from pipeline.errors import EngineUnavailable, InvalidParameter, ModelLoadError, Overloaded, PenstockError, TurnRejected
from pipeline.messages import FinishReason
from pipeline.secret import NO_SECRET, Secret
from stages.llm.remote.dialect import Dialect
from stages.tokens import brief

if TYPE_CHECKING:
    from openai.types import Completion

FINISHES: Mapping[str, FinishReason] = MappingProxyType(
    {"stop": "stop", "eos": "stop", "eos_token": "stop", "stop_sequence": "stop", "length": "length"}
)
"""By what the servers call them; any other end (`abort`, `error`) is a cut."""
FILTERED = "content_filter"

RETRY_S = 1.0
"""When to come back, if a server that has no room does not say so."""
LONGEST_RETRY_S = 600.0
USAGE_S = 2.0
"""How long to wait for the count of tokens that comes after the last piece."""
NO_KEY = "none"
"""Servers without keys take any; without one given here, the client would take one that lies in the environment."""

REFUSED, CURE = "it refuses the key", "set model.api_key to one that it takes"


class StreamCut(PenstockError):
    """A stream that broke off in the middle of an answer."""


class Piece(NamedTuple):
    """What came next of an answer: text, and its ids where the server gives them; the last one says why it ended.

    `prompt_tokens` are what the server counts, `cached_tokens` those of them that needed no computing; 0: not said.
    """

    text: str
    ids: tuple[int, ...] | None = None
    finish: FinishReason | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0


class Served(NamedTuple):
    """A model that the server has: its name, whose it says it is, and its context; 0: not said."""

    name: str
    owner: str = ""
    context: int = 0


@dataclass(frozen=True)
class Patience:
    """Seconds to wait for a connection, for the first piece of an answer, and for each further one."""

    connect_s: float = 5.0
    first_s: float = 60.0
    next_s: float = 30.0


class Server:
    """The server at `base_url` (`http://host:port/v1`), asked with `key`. Use as an async context manager."""

    def __init__(self, base_url: str, *, key: Secret = NO_SECRET, patience: Patience | None = None) -> None:
        self.url = base_url
        self._patience = patience or Patience()
        timeout = openai.Timeout(None, connect=self._patience.connect_s)
        self._client = openai.AsyncOpenAI(
            base_url=base_url, api_key=key.reveal() or NO_KEY, max_retries=0, timeout=timeout
        )
        # These would come from the environment, and are no business of whoever runs a server.
        self._client.organization = self._client.project = self._client.admin_api_key = None

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def models(self) -> list[Served]:
        """What it serves; nothing if it does not say.

        Raises:
            EngineUnavailable: it cannot be reached.
            ModelLoadError: it lets nobody in with this key.
        """
        try:
            async with asyncio.timeout(self._patience.connect_s):
                page = await self._client.models.list()
                return [_served(one) for one in page.data]
        except openai.NotFoundError:
            return []
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise ModelLoadError(self.url, f"{REFUSED} ({error.status_code}); {CURE}") from None  # it may say the key
        except (openai.OpenAIError, TimeoutError) as error:
            raise self._failed(error) from error
        except (AttributeError, TypeError, ValueError):  # a page for people, say: the client takes it as it comes
            raise EngineUnavailable(f"{self.url}/models answers with something else than a list of models") from None

    async def stream(
        self, model: str, prompt: str | list[int], own: dict[str, Any], extra: dict[str, Any], dialect: Dialect
    ) -> AsyncGenerator[Piece, None]:
        """Continue `prompt`: pieces as they come, the last of which has a `finish`. Closing it closes the connection.

        Raises:
            StreamCut: it broke off, also before the first piece, or was silent for too long after it.
            EngineUnavailable: the server does not answer now; says what to look at.
            Overloaded: it has no room.
            InvalidParameter: it does not take such a request.
        """
        reading = _Reading(dialect, self._patience)
        try:
            async with reading.limit():
                response = await self._client.completions.create(
                    model=model, prompt=prompt, stream=True, extra_body=extra or None, **own
                )
            async with response:
                chunks = aiter(response)
                while (chunk := await reading.next(chunks)) is not None:
                    if (piece := reading.piece(chunk)) is not None:
                        yield piece
        except (openai.APIError, TimeoutError, ValueError) as error:
            if reading.end is None:
                raise self._broken(error) if reading.begun else self._failed(error) from None
        if reading.end is None:
            raise StreamCut(f"{self.url} ended an answer without saying why")
        yield reading.end

    def _broken(self, error: Exception) -> PenstockError:
        if isinstance(error, TimeoutError):
            return StreamCut(f"{self.url} was silent for {self._patience.next_s:g} s in the middle of an answer")
        return StreamCut(f"{self.url} broke off in the middle of an answer: {_words(error)}")

    def _failed(self, error: Exception) -> PenstockError:
        """What it means that a request got no answer."""
        if isinstance(error, openai.APIStatusError):
            return self._refused(error)
        if isinstance(error, (TimeoutError, openai.APITimeoutError)):
            return EngineUnavailable(f"{self.url} does not answer; is the server overloaded, or does it hang?")
        if isinstance(error, openai.APIConnectionError):
            why = _words(error.__cause__ or error)
            return EngineUnavailable(f"{self.url} cannot be reached ({why}); is the server running, and the URL right?")
        return EngineUnavailable(f"{self.url} answers, but not as an OpenAI-compatible server would: {_words(error)}")

    def _refused(self, error: openai.APIStatusError) -> PenstockError:
        status, words = error.status_code, _words(error)
        if status in (401, 403):
            return EngineUnavailable(f"{self.url}: {REFUSED} ({status}); {CURE}")
        if status == 404:
            return EngineUnavailable(f"{self.url} has no such model, or no /completions ({words}); see model.base_url")
        retry = _retry_after(error.response.headers)
        if status == 429 or (status == 503 and retry is not None):
            return Overloaded("the model's server has no room", retry_after=RETRY_S if retry is None else retry)
        if status in (400, 413, 422):
            return InvalidParameter(error.param or "prompt", f"the model's server refuses it: {words}")
        return EngineUnavailable(f"{self.url} failed ({status}): {words}")


def named(served: list[Served], wanted: str, tokenizer: str) -> Served | None:
    """The model to ask for: the one `wanted`, else the one called like the tokenizer, else the only one; or none."""
    if wanted:
        return next((one for one in served if one.name == wanted), None if served else Served(wanted))
    return next((one for one in served if one.name == tokenizer), served[0] if len(served) == 1 else None)


def _served(model: Any) -> Served:
    return Served(str(model.id), str(model.owned_by or ""), int(getattr(model, "max_model_len", 0) or 0))


class _Reading:
    """One answer being read: until when its next chunk must come, and how it ended, once that is known."""

    def __init__(self, dialect: Dialect, patience: Patience) -> None:
        self._dialect, self._patience = dialect, patience
        self._deadline = asyncio.get_running_loop().time() + patience.first_s
        self.begun = False
        self.end: Piece | None = None

    def limit(self) -> asyncio.Timeout:
        """To wait within."""
        return asyncio.timeout_at(self._deadline)

    async def next(self, chunks: AsyncIterator[Completion]) -> Completion | None:
        """The next chunk; None: there is no more. After the end only the counts are waited for, and not long."""
        async with self.limit():
            chunk = await anext(chunks, None)
        self.begun = True
        if self.end is None:
            self._deadline = asyncio.get_running_loop().time() + self._patience.next_s
        return chunk

    def piece(self, chunk: Completion) -> Piece | None:
        """What `chunk` says of the answer, if anything; takes note of its end and of the counts.

        Raises:
            StreamCut: the server gives up.
            TurnRejected: it does not say such things.
        """
        choices, usage = getattr(chunk, "choices", None), getattr(chunk, "usage", None)
        if not isinstance(choices, list):
            raise StreamCut("the server sent what is no completion")
        said = self._choice(choices[0]) if choices and self.end is None else None
        if usage is not None and self.end is not None:
            details = getattr(usage, "prompt_tokens_details", None)
            self.end = self.end._replace(
                prompt_tokens=_count(usage, "prompt_tokens"), cached_tokens=_count(details, "cached_tokens")
            )
        return said

    def _choice(self, choice: object) -> Piece | None:
        reason, text = getattr(choice, "finish_reason", None), getattr(choice, "text", None) or ""
        if not isinstance(text, str):
            raise StreamCut("the server sent what is no text")
        if reason == FILTERED:
            raise TurnRejected("the model's server has filtered the answer")
        if reason:
            if reason not in FINISHES:
                raise StreamCut(f"the server ended an answer with {reason!r}")
            self.end = Piece("", finish=FINISHES[reason])
            self._deadline = asyncio.get_running_loop().time() + USAGE_S
        given = getattr(choice, self._dialect.ids_back, None) if self._dialect.ids_back else None
        ids = tuple(given) if isinstance(given, list) else None
        return Piece(text, ids) if text or ids else None


def _count(counts: object, name: str) -> int:
    number = getattr(counts, name, None)
    return number if isinstance(number, int) else 0


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; a date, which the standard allows too, is read as none."""
    with suppress(ValueError):
        seconds = float(headers.get("retry-after", ""))
        return min(max(seconds, 0.0), LONGEST_RETRY_S) if math.isfinite(seconds) else None
    return None


def _words(error: BaseException) -> str:
    """What a server or a library says of an error, in short; nothing that repeats what it was asked."""
    if not isinstance(error, openai.APIStatusError):
        return brief(error)
    body = error.body if isinstance(error.body, dict) else {}
    told = body.get("message") or body.get("detail")
    if isinstance(told, list):  # FastAPI's: each with the place, what is wrong there, and what stood there
        told = "; ".join(f"{one.get('loc')}: {one.get('msg')}" for one in told if isinstance(one, dict))
    return brief(Exception(told)) if isinstance(told, str) and told else error.response.reason_phrase
