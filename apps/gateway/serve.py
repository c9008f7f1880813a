"""Listens, serves the application with uvicorn, and on request drains it: refuse, let turns end, close, stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import time
from collections.abc import Callable, Generator

import uvicorn
from starlette.applications import Starlette

from apps.gateway.connection import RESTART
from apps.gateway.hub import Hub
from apps.gateway.limits import is_loopback
from apps.gateway.refusal import RESTARTING
from apps.gateway.settings import GatewaySettings
from pipeline.errors import AddressInUse, SettingsError

BACKLOG = 2048
UNREAD_MS = 30_000
"""A client that takes nothing for so long is cut off by the kernel."""
POLL_S = 0.05
LAST_WORDS_S = 3.0


def _no_false_alarm(record: logging.LogRecord) -> bool:
    """Uvicorn 0.54 takes a handshake that was refused in words for one that was forgotten."""
    return record.msg != "ASGI callable returned without completing handshake."


class _Server(uvicorn.Server):
    """Leaves the signals to the program."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(
    app: Starlette,
    settings: GatewaySettings,
    *,
    stop: asyncio.Event,
    started: Callable[[str, int], None] = lambda host, port: None,
) -> None:
    """Serve `app` until `stop` is set, then drain it. `started` is told the address once clients can connect.

    Raises:
        AddressInUse: another program listens on the address.
        SettingsError: there is no such address, or others would reach it, or no such partition of replies, or the
            certificate cannot be used.
    """
    check_reach(settings)
    check_certificate(settings)
    with listening(settings.host, settings.port) as taken:
        try:
            await _serve(app, settings, taken, stop, started)
        except BaseExceptionGroup as group:
            raise _first(group) from group


async def _serve(
    app: Starlette,
    settings: GatewaySettings,
    taken: socket.socket,
    stop: asyncio.Event,
    started: Callable[[str, int], None],
) -> None:
    server = _Server(_config(app, settings))
    logging.getLogger("uvicorn.error").addFilter(_no_false_alarm)
    async with app.router.lifespan_context(app), asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve(sockets=[taken]))
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(POLL_S / 10)
        started(*taken.getsockname()[:2])
        await stop.wait()
        await drain(app.state.hub, settings)
        server.should_exit = True


def _first(error: BaseException) -> BaseException:
    """What went wrong first, out of its groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def drain(hub: Hub, settings: GatewaySettings) -> None:
    """Be ready no more and refuse what is new; then close those who are idle, or can go on elsewhere.

    The turns of the others get some time, then they are ended. All are told how theirs ended before they are closed.
    """
    hub.seats.draining = True
    if hub.seats.connected:
        await asyncio.sleep(settings.drain_notice_s)
    hub.seats.closing = True
    await _until(lambda: not hub.seats.connected, settings.drain_s)
    hub.end_turns()
    await _until(lambda: not hub.seats.busy, LAST_WORDS_S)
    for seat in hub.seats:
        if seat.connection is not None:
            seat.connection.close(RESTART, RESTARTING)
    await _until(lambda: not (hub.seats.connected or len(hub.outbox)), LAST_WORDS_S)


async def _until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds, but no longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:  # noqa: ASYNC110 - three times, at the end
        await asyncio.sleep(POLL_S)


def check_reach(settings: GatewaySettings) -> None:
    """Listen to other machines only where that is wanted.

    Raises:
        SettingsError: it would, and it is not.
    """
    if not (settings.public or settings.closed or is_loopback(settings.host)):
        why = (
            f"other machines reach {settings.host!r}, and there are no API keys; set gateway.keys_file to let in who "
            "has one, or this to true to let them all in"
        )
        raise SettingsError("gateway.public", why)


def check_certificate(settings: GatewaySettings) -> None:
    """Have a certificate that can be served, if one is wanted.

    Raises:
        SettingsError: a file of it cannot be used.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return
    for name, path, what in (
        ("gateway.tls_cert", settings.tls_cert, "CERTIFICATE-----"),
        ("gateway.tls_key", settings.tls_key, "PRIVATE KEY-----"),
    ):
        try:
            if what not in path.read_text(encoding="ascii"):
                raise SettingsError(name, f"{path} holds none (PEM, `-----BEGIN ... {what}`)")
        except OSError as error:
            raise SettingsError(name, f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError:
            raise SettingsError(name, f"{path} is no PEM file") from None
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            settings.tls_cert, settings.tls_key, password=_no_passphrase
        )
    except (ssl.SSLError, ValueError) as error:
        why = f"{settings.tls_key} is not the key of {settings.tls_cert}, or needs a passphrase: {error}"
        raise SettingsError("gateway.tls_key", why) from None


def _no_passphrase() -> str:
    """OpenSSL would otherwise ask on the terminal."""
    return ""


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens on the address.

    Raises:
        AddressInUse: another program does.
        SettingsError: this machine has no such address, or does not let us listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        taken = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(host, port) from error
        raise SettingsError("gateway.host", f"cannot listen on {host}:{port}: {error}") from error
    taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does not see that sockets of ours are TCP
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
    return taken


def _config(app: Starlette, settings: GatewaySettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ws="websockets-sansio",
        ws_max_size=settings.max_frame_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=settings.ping_interval_s,
        ws_ping_timeout=settings.ping_timeout_s,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(LAST_WORDS_S),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
