"""What one client may do: events per second, connections and turns, and from which web pages.

What an address may do holds for everybody, what a tenant may do for those whom a key or token names.
"""

from __future__ import annotations

import ipaddress
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from apps.gateway.refusal import LIMITED, Refusal
from apps.gateway.settings import GatewaySettings, TenantLimits
from apps.gateway.tenants import OF_ALL, Client

MOST_NAMES = 10_000
MINUTE_S = 60.0


class Bucket:
    """A token bucket: `rate` tokens per second, at most `burst` at once."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self.burst = rate, burst
        self._tokens, self._at = float(burst), now

    def left(self, now: float) -> float:
        """Tokens that there are."""
        self._tokens = min(self.burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = max(now, self._at)
        return self._tokens

    def full_in(self, now: float) -> float:
        """Seconds until it is full."""
        return (self.burst - self.left(now)) / self._rate

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

    def spend(self, tokens: float, now: float) -> float:
        """Take so many, also such as are not there; returns the seconds until all are paid for."""
        self._tokens = self.left(now) - tokens
        return max(0.0, -self._tokens / self._rate)


class Buckets:
    """Buckets by name, made as they are needed; of too many, the one that was not needed the longest is forgotten."""

    def __init__(self, made: Callable[[str], Bucket]) -> None:
        self._made = made
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __getitem__(self, name: str) -> Bucket:
        if name not in self._buckets:
            self._buckets[name] = self._made(name)
            if len(self._buckets) > MOST_NAMES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        return self._buckets[name]


class Limits:
    """The clients that were seen lately: what each has left, and its open connections. A gateway counts for itself."""

    def __init__(self, settings: GatewaySettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._addresses = Buckets(lambda _: Bucket(settings.requests_per_s, settings.requests_burst, clock()))
        self._events = Buckets(self._events_of)
        self._turns = Buckets(self._turns_of)
        audio = settings.audio
        self._audio = Buckets(lambda _: Bucket(audio.address_speed, audio.address_ahead_s, clock()))
        self._audio_of = Buckets(self._audio_of_tenant)
        self._open: Counter[str] = Counter()
        self._open_of: Counter[str] = Counter()

    @property
    def connections(self) -> int:
        """All open connections."""
        return self._open.total()

    def knock(self, address: str) -> None:
        """Count a handshake from `address`, before anything else is looked at.

        Raises:
            Refusal: there were too many.
        """
        if (wait := self._addresses[address].take(self._clock())) > 0:
            raise _limited(wait)

    def admit(self, client: Client) -> None:
        """Count a connection of `client`; `release` gives it back.

        Raises:
            Refusal: there are too many.
        """
        if self.connections >= self._settings.max_sessions:
            raise _full("all sessions of this gateway are taken")
        if self._open[client.address] >= self._settings.max_sessions_per_client:
            raise _full("too many sessions of this client")
        if client.tenant != OF_ALL and self._open_of[client.tenant] >= self.of(client.tenant).sessions:
            raise _full("too many sessions of this tenant")
        self._open[client.address] += 1
        self._open_of[client.tenant] += 1

    def release(self, client: Client) -> None:
        """A connection of `client` has ended."""
        for open_now, name in ((self._open, client.address), (self._open_of, client.tenant)):
            open_now[name] -= 1
            if not open_now[name]:
                del open_now[name]

    def take(self, client: Client) -> Refusal | None:
        """Count an event of `client`; a refusal if it was one too many, which counts as well."""
        now = self._clock()
        waits = [bucket.owe(now) for bucket in self._event_buckets(client) if bucket.take(now) > 0]
        return _limited(max(waits)) if waits else None

    def audio(self, client: Client, seconds: float) -> float:
        """Count so much audio of `client`; returns the seconds after which more may go on."""
        buckets = [self._audio[client.address]]
        if client.tenant != OF_ALL:
            buckets.append(self._audio_of[client.tenant])
        now = self._clock()
        return max(bucket.spend(seconds, now) for bucket in buckets)

    def admit_turn(self, client: Client, running: Counter[str]) -> None:
        """Count a turn of `client`, when each tenant has so many `running`.

        Raises:
            Refusal: there is no room, or the tenant has had its share.
        """
        if running.total() >= self._settings.max_turns:
            why = "as many responses are under way as this gateway takes; try again in 1 s"
            raise Refusal("too_many_responses", why, kind=LIMITED, retry_after=1.0)
        if client.tenant == OF_ALL:
            return
        if (own := running[client.tenant]) >= (most := self.of(client.tenant).turns):
            why = f"{own} responses of this tenant are under way, and {most} is the most that may be"
            raise Refusal("too_many_responses", why, kind=LIMITED, retry_after=1.0)
        if (wait := self._turns[client.tenant].take(self._clock())) > 0:
            why = f"too many responses of this tenant within a minute; try again in {wait:.2f} s"
            raise Refusal("rate_limit_exceeded", why, kind=LIMITED, retry_after=wait)

    def rates(self, client: Client) -> list[dict[str, Any]]:
        """How much `client` has left, as `rate_limits.updated` shows it: of what it has least of, named by `scope`."""
        now, buckets = self._clock(), {"address_events": self._addresses[client.address]}
        if client.tenant != OF_ALL:
            buckets["tenant_events"] = self._events[client.tenant]
            buckets["tenant_turns"] = self._turns[client.tenant]
        scope, bucket = min(buckets.items(), key=lambda one: one[1].left(now))
        remaining, reset = max(0, int(bucket.left(now))), round(bucket.full_in(now), 3)
        rate = {"name": "requests", "limit": int(bucket.burst), "remaining": remaining, "reset_seconds": reset}
        return [{**rate, "scope": scope}]

    def of(self, tenant: str) -> TenantLimits:
        """What `tenant` may do."""
        own = self._settings.tenants.get(tenant)
        return self._settings.tenant if own is None else own.over(self._settings.tenant)

    def _event_buckets(self, client: Client) -> list[Bucket]:
        mine = [self._addresses[client.address]]
        return mine if client.tenant == OF_ALL else [*mine, self._events[client.tenant]]

    def _events_of(self, tenant: str) -> Bucket:
        limits = self.of(tenant)
        return Bucket(limits.events_per_s, limits.events_burst, self._clock())

    def _turns_of(self, tenant: str) -> Bucket:
        most = self.of(tenant).turns_per_minute
        return Bucket(most / MINUTE_S, most, self._clock())

    def _audio_of_tenant(self, tenant: str) -> Bucket:
        limits = self.of(tenant)
        return Bucket(limits.audio_speed, limits.audio_ahead_s, self._clock())


def _full(why: str) -> Refusal:
    return Refusal("too_many_sessions", why, kind=LIMITED, retry_after=5.0)


def _limited(wait: float) -> Refusal:
    why = f"too many events at once; try again in {wait:.2f} s"
    return Refusal("rate_limit_exceeded", why, kind=LIMITED, retry_after=wait)


def address_of(host: str | None) -> str:
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
