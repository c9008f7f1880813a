"""A server that speaks OpenAI's completions, streamed, as the real ones do, and misbehaves as it is told.

Its model knows one answer by heart: it goes on with it behind as much of it as the prompt ends with. It honours `stop`
(the stop string is not said), `max_tokens` and `stream_options`, counts tokens with a tokenizer if it has one, and
notices who hangs up.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from transformers import PreTrainedTokenizerBase

Cut = Callable[[str], list[str]]


@dataclass
class Fault:
    """What goes wrong with one request, after so many pieces of it."""

    after: int = 0
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    stall: bool = False
    event: Any = None
    finish: str | None = None
    silent: bool = False


def by_character(text: str) -> list[str]:
    """A piece for each character."""
    return list(text)


@dataclass
class FakeServer:
    """How it is, and what it was asked. `owner` is whose its models are, `faults` are for the next requests in turn.

    `listing` is what it says instead of its list of models.
    """

    answer: str = "Hello there, how are you today?"
    models: tuple[str, ...] = ("small",)
    owner: str = "nobody"
    context: int | None = None
    key: str = ""
    cut: Cut = by_character
    pause_s: float = 0.0
    tokenizer: PreTrainedTokenizerBase | None = None
    ids_back: str = ""
    faults: list[Fault] = field(default_factory=list)
    listing: str | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    running: int = 0
    most: int = 0
    hung_up: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    def app(self) -> Starlette:
        """What is served."""
        routes = [
            Route("/v1/models", self._list),
            Route("/v1/completions", self._complete, methods=["POST"]),
        ]
        return Starlette(routes=routes)

    async def _list(self, request: Request) -> Response:
        if (refusal := self._locked(request)) is not None:
            return refusal
        if self.listing is not None:
            page = self.listing.startswith("<")
            return Response(self.listing, media_type="text/html" if page else "application/json")
        cards = [{"id": name, "object": "model", "created": 1, "owned_by": self.owner} for name in self.models]
        if self.context:
            cards = [{**card, "max_model_len": self.context} for card in cards]
        return JSONResponse({"object": "list", "data": cards})

    def _locked(self, request: Request) -> Response | None:
        self.keys.append(request.headers.get("authorization", ""))
        if not self.key or self.keys[-1] == f"Bearer {self.key}":
            return None
        return JSONResponse({"error": {"message": "invalid API key", "type": "invalid_request_error"}}, 401)

    async def _complete(self, request: Request) -> Response:
        if (refusal := self._locked(request)) is not None:
            return refusal
        body = await request.json()
        self.asked.append(body)
        fault = self.faults.pop(0) if self.faults else Fault()
        if fault.status != 200:
            return JSONResponse(fault.body, fault.status, headers=fault.headers)
        if body["model"] not in self.models:
            error = {"message": f"The model `{body['model']}` does not exist.", "type": "NotFoundError", "code": 404}
            return JSONResponse({"error": error}, 404)
        return StreamingResponse(self._watched(body, fault), media_type="text/event-stream")

    async def _watched(self, body: dict[str, Any], fault: Fault) -> AsyncGenerator[str, None]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            async for line in self._stream(body, fault):
                yield line
        except (asyncio.CancelledError, GeneratorExit):
            self.hung_up += 1
            raise
        finally:
            self.running -= 1

    async def _stream(self, body: dict[str, Any], fault: Fault) -> AsyncGenerator[str, None]:
        pieces, finish = self._pieces(body)
        for number, piece in enumerate(pieces):
            if number == fault.after and (line := await self._go_wrong(fault)) is not None:
                if line:
                    yield line
                return
            await asyncio.sleep(self.pause_s)
            yield _event(body, [self._choice(body, piece)])
        if len(pieces) <= fault.after and (line := await self._go_wrong(fault)) is not None:
            if line:
                yield line
            return
        yield _event(body, [self._choice(body, "", finish)])
        if (body.get("stream_options") or {}).get("include_usage"):
            yield _event(body, [], self._usage(body))
        yield "data: [DONE]\n\n"

    async def _go_wrong(self, fault: Fault) -> str | None:
        """The last line of a stream that goes wrong; None: it does not."""
        if fault.stall:
            await asyncio.sleep(60)
        if fault.drop:
            raise ConnectionAbortedError("told to")
        if fault.event is not None:
            return f"data: {json.dumps(fault.event)}\n\n"
        if fault.finish:
            return _event({"model": ""}, [{"index": 0, "text": "", "finish_reason": fault.finish}])
        return "" if fault.silent else None

    def _pieces(self, body: dict[str, Any]) -> tuple[list[str], str]:
        prompt = body["prompt"]
        if not isinstance(prompt, str):
            assert self.tokenizer is not None
            prompt = str(self.tokenizer.decode(prompt))
        said = next(n for n in range(len(self.answer), -1, -1) if prompt.endswith(self.answer[:n]))
        rest, finish = self.answer[said:], "stop"
        for stop in body.get("stop") or ():
            rest = rest.partition(stop)[0]
        pieces = self.cut(rest)
        if len(pieces) > body["max_tokens"]:
            pieces, finish = pieces[: body["max_tokens"]], "length"
        return pieces, finish

    def _choice(self, body: dict[str, Any], text: str, finish: str | None = None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        if self.ids_back and body.get("return_token_ids"):
            assert self.tokenizer is not None
            ids = [self.tokenizer.eos_token_id] if finish == "stop" else []
            choice[self.ids_back] = [*self.tokenizer.encode(text, add_special_tokens=False), *ids]
        return choice

    def _usage(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["prompt"]
        count = len(prompt)
        if isinstance(prompt, str) and self.tokenizer is not None:
            count = len(self.tokenizer.encode(prompt, add_special_tokens=body.get("add_special_tokens", True)))
        details = {"cached_tokens": 3}
        return {"prompt_tokens": count, "completion_tokens": 1, "total_tokens": 1, "prompt_tokens_details": details}


def _event(body: dict[str, Any], choices: list[Any], usage: dict[str, Any] | None = None) -> str:
    chunk = {"id": "c", "object": "text_completion", "created": 1, "model": body["model"], "choices": choices}
    return f"data: {json.dumps({**chunk, 'usage': usage})}\n\n"


@asynccontextmanager
async def serving(fake: FakeServer) -> AsyncGenerator[FakeServer, None]:
    """Run `fake` meanwhile, on its port or on a free one, which it then has."""
    taken = socket.create_server(("127.0.0.1", fake.port))
    fake.port = taken.getsockname()[1]
    logging.getLogger("uvicorn.error").disabled = True  # of faults that it was told to have
    quiet: Any = {"log_config": None, "access_log": False, "lifespan": "off"}
    config = uvicorn.Config(fake.app(), **quiet, timeout_graceful_shutdown=0, timeout_keep_alive=60)
    server = uvicorn.Server(config)
    server.capture_signals = _no_signals  # type: ignore[method-assign,assignment]
    running = asyncio.create_task(server.serve(sockets=[taken]))
    try:
        yield fake
    finally:
        server.should_exit = True
        await running
        taken.close()


def _no_signals() -> AbstractContextManager[None]:
    return nullcontext()
