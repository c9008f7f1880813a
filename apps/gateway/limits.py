"""What one client may do: events per second, connections, and from which web pages. A client is an address."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from apps.gateway.refusal import LIMITED, Refusal
from apps.gateway.settings import GatewaySettings

MOST_CLIENTS = 10_000


class Bucket:
    """A token bucket: `rate` tokens per second, at most `burst` at once."""

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._at = float(burst), now

    def left(self, now: float) -> float:
        """Tokens that there are."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return self._tokens

    def take(self, now: float) -> float:
        """Take one token; returns 0, or the seconds until there is one."""
        if self.left(now) < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0

    def owe(self, now: float) -> float:
        """Take a token that is not there; returns the seconds until it is paid for and there is one more."""
        self._tokens = self.left(now) - 1
        return (1 - self._tokens) / self._rate


class Limits:
    """The clients that were seen lately, each with its bucket and its open connections."""

    def __init__(self, settings: GatewaySettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._open: dict[str, int] = {}

    @property
    def connections(self) -> int:
        """All open connections."""
        return sum(self._open.values())

    def admit(self, client: str) -> None:
        """Count a connection of `client`; `release` gives it back.

        Raises:
            Refusal: there are too many.
        """
        if self.connections >= self._settings.max_sessions:
            raise Refusal("too_many_sessions", "all sessions of this gateway are taken", kind=LIMITED, retry_after=5.0)
        if self._open.get(client, 0) >= self._settings.max_sessions_per_client:
            raise Refusal("too_many_sessions", "too many sessions of this client", kind=LIMITED, retry_after=5.0)
        if (wait := self._bucket(client).take(self._clock())) > 0:
            raise _limited(wait)
        self._open[client] = self._open.get(client, 0) + 1

    def release(self, client: str) -> None:
        """A connection of `client` has ended."""
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]

    def take(self, client: str) -> Refusal | None:
        """Count an event of `client`; a refusal if it was one too many, which counts as well."""
        bucket, now = self._bucket(client), self._clock()
        return _limited(bucket.owe(now)) if bucket.take(now) > 0 else None

    def rates(self, client: str) -> list[dict[str, Any]]:
        """How much `client` has left, as `rate_limits.updated` shows it."""
        left = self._bucket(client).left(self._clock())
        burst = self._settings.requests_burst
        reset = (burst - left) / self._settings.requests_per_s
        return [{"name": "requests", "limit": burst, "remaining": max(0, int(left)), "reset_seconds": round(reset, 3)}]

    def _bucket(self, client: str) -> Bucket:
        if client not in self._buckets:
            now = self._clock()
            self._buckets[client] = Bucket(self._settings.requests_per_s, self._settings.requests_burst, now)
            if len(self._buckets) > MOST_CLIENTS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(client)
        return self._buckets[client]


def _limited(wait: float) -> Refusal:
    why = f"too many events at once; try again in {wait:.2f} s"
    return Refusal("rate_limit_exceeded", why, kind=LIMITED, retry_after=wait)


def client_of(host: str | None) -> str:
    """Whom an address counts as: of IPv6 the /64 that one customer has."""
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return host or "unknown"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))


def origin_allowed(origin: str | None, host: str | None, allowed: tuple[str, ...], *, local: bool = False) -> bool:
    """Whether a page from `origin` may connect: any that is allowed, our own, and who is no page at all.

    Our own is what has the name that was connected to. A foreign page can give its own name this machine's address, so
    where only this machine connects (`local`) the name must be this machine's, too.
    """
    if origin is None or "*" in allowed or origin.rstrip("/") in allowed:
        return True
    try:
        page = urlsplit(origin)
    except ValueError:
        return False
    return bool(host) and page.netloc == host and (not local or is_loopback(page.hostname or ""))


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
