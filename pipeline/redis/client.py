"""A client of Redis, and what is wrong where it does not get in. The one importer of `redis`."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from pipeline.errors import SettingsError
from pipeline.redis.settings import TLS, RedisSettings


def client(settings: RedisSettings) -> Redis:
    """A client for the Redis of `settings`, which connects when it is first asked.

    Raises:
        SettingsError: a file of a certificate cannot be used.
    """
    options: dict[str, Any] = {
        "username": settings.username or None,
        "password": settings.password.reveal() or None,
        "socket_connect_timeout": settings.timeout_s,
        "socket_timeout": settings.timeout_s,
    }
    if urlsplit(settings.url).scheme == TLS:
        _check_certificates(settings)
        paths = (settings.tls_ca, settings.tls_certificate, settings.tls_private)
        names = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
        options |= {name: str(path) for name, path in zip(names, paths, strict=True) if path}
    return Redis.from_url(settings.url, **options)


def why_not(error: RedisError, settings: RedisSettings) -> str:
    """What keeps us from Redis, by the name of the setting where one is wrong."""
    if isinstance(error, AuthenticationError | NoPermissionError):
        return f"Redis at {settings.url} refuses the login; check redis.username and redis.password"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return f"the certificate of Redis at {settings.url} is not trusted; check redis.tls_ca and its name"
    return f"Redis at {settings.url} cannot be reached: {error}"


def _check_certificates(settings: RedisSettings) -> None:
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError("redis.tls_ca", f"cannot use {settings.tls_ca}: {error}") from None
    if settings.tls_certificate is None or settings.tls_private is None:
        return
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_private, lambda: "")
    except (OSError, ssl.SSLError, ValueError) as error:
        why = f"{settings.tls_private} is not the key of {settings.tls_certificate}: {error}"
        raise SettingsError("redis.tls_private", why) from None
