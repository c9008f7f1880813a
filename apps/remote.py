"""The engine that streams from an OpenAI-compatible server, put together from the settings. Loads no weights."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from apps.remote_metrics import RemoteCollector
from apps.settings import ModelSettings
from apps.unstoppable import in_thread
from pipeline.errors import SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from stages.llm.remote.answer import TextCodec
    from stages.llm.remote.engine import OpenAIEngine

EXTRA = "the engine `openai` needs the official client, which comes with `pip install 'penstock[openai]'`"
NO_DRAFTS = ("", "none")


def check_remote(model: ModelSettings) -> None:
    """See that the settings name a server that can be asked.

    Raises:
        SettingsError: says which one is missing or wrong.
    """
    url = urlsplit(model.base_url)
    if not model.base_url:
        raise SettingsError("model.base_url", "must be given for the engine `openai`: http://HOST:PORT/v1, say")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise SettingsError("model.base_url", f"must be like http://HOST:PORT/v1, and is {model.base_url!r}")
    if url.username or url.password:
        raise SettingsError("model.base_url", "must hold no password: a server's key stands in model.api_key")
    if model.draft not in NO_DRAFTS:
        raise SettingsError("model.draft", "the server guesses ahead by itself, if it does; leave it out here")


@asynccontextmanager
async def remote_engine(
    model: ModelSettings, tokenizer: PreTrainedTokenizerBase, context: int, registry: CollectorRegistry | None
) -> AsyncGenerator[OpenAIEngine, None]:
    """The engine for the server of `model`, which speaks `tokenizer`; `registry` gets its metrics.

    Raises:
        SettingsError: the client library is not installed.
        ModelLoadError: the server has no such model, or lets nobody in with this key.
    """
    codec = await in_thread(_codec, tokenizer)
    from stages.llm.remote.client import Patience, Server
    from stages.llm.remote.engine import OpenAIEngine

    patience = Patience(first_s=model.first_token_s, next_s=model.next_token_s)
    server = Server(model.base_url.rstrip("/"), key=model.api_key, patience=patience)
    async with OpenAIEngine(
        server,
        codec,
        model=model.remote_name,
        kind=None if model.server == "auto" else model.server,
        form=model.prompt_form,
        context=context,
        most=model.batch,
        queue=model.queue,
        max_wait_s=model.max_wait_s,
    ) as engine:
        if registry:
            registry.register(RemoteCollector(engine))
        yield engine


def _codec(tokenizer: PreTrainedTokenizerBase) -> TextCodec:
    """What takes time: the client library, and looking through a large vocabulary."""
    try:
        from stages.llm.remote.answer import TextCodec
    except ModuleNotFoundError as error:
        if error.name != "openai":
            raise
        raise SettingsError("model.engine", EXTRA) from None
    return TextCodec(tokenizer)
