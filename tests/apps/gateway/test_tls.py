"""The gateway over TLS, with a certificate that it signed itself."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import websockets
from openai import AsyncOpenAI
from prometheus_client import CollectorRegistry

from apps.gateway.asgi import create_app
from apps.gateway.serve import serve
from pipeline.errors import SettingsError
from pipeline.memory import MemoryBus
from tests.apps.gateway.harness import DEADLINE_S, Client, gateway, settings, text_of
from tests.certificates import Certificate, self_signed


@pytest.fixture
def made(tmp_path: Path) -> Certificate:
    """Give a certificate for this machine."""
    return self_signed(tmp_path)


def trusting(made: Certificate) -> ssl.SSLContext:
    """Return what a client needs that trusts this one certificate."""
    return ssl.create_default_context(cafile=made.cert)


async def test_a_conversation_over_tls(made: Certificate) -> None:
    """Sockets and pages are served over TLS, and a client that does not trust the certificate is not fooled."""
    async with gateway(tls_cert=made.cert, tls_key=made.key) as running:
        address = f"{running.host}:{running.port}"
        async with websockets.connect(f"wss://{address}/v1/realtime", ssl=trusting(made)) as socket:
            client = Client(socket)
            await client.until("session.created")
            assert text_of(await client.ask("hi")) == "You said: hi"
        async with httpx.AsyncClient(verify=trusting(made), timeout=DEADLINE_S) as pages:
            assert (await pages.get(f"https://{address}/readyz")).status_code == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            async with websockets.connect(f"wss://{address}/v1/realtime"):
                pass
        with pytest.raises((websockets.InvalidMessage, websockets.InvalidStatus)):
            async with websockets.connect(f"ws://{address}/v1/realtime"):
                pass


async def test_the_openai_sdk_over_tls(made: Certificate) -> None:
    """The SDK takes an https address and comes over wss."""
    async with gateway(tls_cert=made.cert, tls_key=made.key) as running:
        http = httpx.AsyncClient(verify=trusting(made))
        url = f"https://{running.host}:{running.port}/v1"
        options: Any = {"ssl": trusting(made)}
        async with (
            AsyncOpenAI(base_url=url, api_key="none", http_client=http) as client,
            client.realtime.connect(model="default", websocket_connection_options=options) as socket,
        ):
            assert (await socket.recv()).type == "session.created"


async def test_it_drains_over_tls(made: Certificate) -> None:
    """A gateway that stops closes its sockets over TLS with the code that clients come back from."""
    async with gateway(tls_cert=made.cert, tls_key=made.key) as running:
        where = f"wss://{running.host}:{running.port}/v1/realtime"
        async with websockets.connect(where, ssl=trusting(made)) as socket:
            client = Client(socket)
            await client.until("session.created")
            running.stop.set()
            assert (await client.closed())[0] == 1012


@pytest.mark.parametrize("setting", ["tls_cert", "tls_key"])
@pytest.mark.parametrize(
    "content", [None, b"", b"\xff", b"-----BEGIN CERTIFICATE-----\nx", b"-----BEGIN PRIVATE KEY-----"]
)
async def test_a_file_that_is_none_is_named(
    setting: str, content: bytes | None, made: Certificate, tmp_path: Path
) -> None:
    """A missing, empty or wrong file stops the start, and the error names the setting and the file."""
    wrong = tmp_path / "wrong.pem"
    if content is not None:
        wrong.write_bytes(content)
    config = settings(**{"tls_cert": made.cert, "tls_key": made.key, setting: wrong})
    app = create_app(MemoryBus(), config, models=("m",), registry=CollectorRegistry())
    with pytest.raises(SettingsError, match=r"gateway\.tls_(key|cert).*wrong\.pem"):
        await asyncio.wait_for(serve(app, config, stop=asyncio.Event()), DEADLINE_S)


async def test_a_key_of_another_certificate_is_named(made: Certificate, tmp_path: Path) -> None:
    """Two files that do not belong together are told as that."""
    config = settings(tls_cert=made.cert, tls_key=self_signed(tmp_path, "other").key)
    app = create_app(MemoryBus(), config, models=("m",), registry=CollectorRegistry())
    with pytest.raises(SettingsError, match=r"gateway\.tls_key.*other\.key is not the key of"):
        await asyncio.wait_for(serve(app, config, stop=asyncio.Event()), DEADLINE_S)


def test_one_alone_is_refused() -> None:
    """A certificate without its key is an error of settings."""
    with pytest.raises(ValueError, match="go together"):
        settings(tls_cert=Path("x"))
