"""Where Redis is. Knows no client."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta

from pipeline.secret import NO_SECRET, Secret

PLAIN, TLS = "redis", "rediss"


@dataclass(frozen=True)
class RedisSettings:
    """Where Redis is. Nothing needs it: without it some things take longer."""

    url: str = ""
    """`redis://host:port/number`, or `rediss://` for TLS; none: there is no Redis."""
    username: str = ""
    """Who logs in; none is Redis's default user."""
    password: Secret = NO_SECRET
    """With what password; `file:PATH` is the file that holds it."""
    tls_ca: Path | None = None
    """File of the authorities that may vouch for it; none means the system's own."""
    tls_certificate: Path | None = None
    """File of the certificate that this program shows."""
    tls_private: Path | None = None
    """File of that certificate's private key."""
    timeout_s: Annotated[float, Meta(gt=0)] = 1.0
    """Seconds that it may take to connect, and to answer."""

    def __post_init__(self) -> None:
        place = urlsplit(self.url)
        if self.url and (place.scheme not in (PLAIN, TLS) or not place.hostname):
            raise ValueError("url is redis://host:port/number, or rediss:// for TLS")
        if place.username or place.password:
            raise ValueError("url holds a login, which anybody might be shown; set username and password instead")
        if (self.tls_certificate is None) != (self.tls_private is None):
            raise ValueError("tls_certificate and tls_private go together")
        if (self.tls_ca or self.tls_certificate) and place.scheme != TLS:
            raise ValueError("certificates need a url that begins with rediss://")
