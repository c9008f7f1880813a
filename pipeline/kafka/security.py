"""How a client of Kafka proves itself, and the broker to it: TLS and SASL, and which setting is wrong if they fail."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from pipeline.errors import SettingsError
from pipeline.kafka.settings import KafkaSettings

PROBE_S = 2.0


def security(settings: KafkaSettings) -> dict[str, Any]:
    """The options by which a client connects and logs in.

    Raises:
        SettingsError: a file of a certificate cannot be used.
    """
    options: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.security_protocol.endswith("SSL"):
        options["ssl_context"] = _tls(settings)
    if settings.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = settings.sasl_password.reveal()
    return options


def _tls(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError("kafka.tls_ca", f"cannot use {settings.tls_ca}: {_short(error)}") from error
    if settings.tls_certificate is None or settings.tls_private is None:
        return context
    for name, path in (("tls_certificate", settings.tls_certificate), ("tls_private", settings.tls_private)):
        if not os.access(path, os.R_OK) or not Path(path).is_file():
            raise SettingsError(f"kafka.{name}", f"cannot read {path}")
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_private, settings.tls_passphrase.reveal)
    except (ssl.SSLError, ValueError) as error:
        why = (
            f"{settings.tls_private} is not the key of kafka.tls_certificate, {settings.tls_certificate}, or "
            f"kafka.tls_passphrase does not open it: {_short(error)}"
        )
        raise SettingsError("kafka.tls_private", why) from None
    return context


async def why_not(settings: KafkaSettings) -> str:
    """What keeps us from the first broker, by the name of the setting: aiokafka itself only says that it cannot."""
    host, _, port = settings.bootstrap.split(",", maxsplit=1)[0].strip().rpartition(":")
    try:
        async with asyncio.timeout(PROBE_S):
            connection = await create_conn(host, int(port), client_id=settings.client_id, **security(settings))
            try:
                await connection.send(MetadataRequest([]))
            finally:
                connection.close()
    except TimeoutError:
        return _silent(settings)
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not trusted ({error.verify_message}); check kafka.tls_ca and the broker's name"
    except ssl.SSLError as error:
        return f"no TLS comes about ({_short(error)}); check kafka.security_protocol and kafka.tls_certificate"
    except OSError as error:
        return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error) or _silent(settings)
    except ValueError:
        return "an address is host:port"
    except KafkaError as error:
        return _refused(error, settings)
    return "it answers now"


def _refused(error: KafkaError, settings: KafkaSettings) -> str:
    if isinstance(error, SaslAuthenticationFailed):
        return (
            "it refuses the login; check kafka.sasl_username, kafka.sasl_password and kafka.sasl_mechanism "
            f"({settings.sasl_mechanism})"
        )
    if isinstance(error, UnsupportedSaslMechanismError):
        return f"it does not take kafka.sasl_mechanism {settings.sasl_mechanism}: {error}"
    if isinstance(error, IllegalSaslStateError):
        return f"it wants no login here; check kafka.security_protocol ({settings.security_protocol})"
    if isinstance(error, KafkaConnectionError):
        return _silent(settings)
    return str(error)


def _silent(settings: KafkaSettings) -> str:
    suspects = f"kafka.security_protocol ({settings.security_protocol})"
    if settings.security_protocol.endswith("SSL"):
        suspects += ", kafka.tls_certificate"
    return f"it takes connections, but does not answer as Kafka does; check {suspects} and its load"


def _short(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
