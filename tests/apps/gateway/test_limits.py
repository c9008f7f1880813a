"""What one client may do."""

from __future__ import annotations

from collections import Counter

import pytest

from apps.gateway.audio_settings import AudioSettings
from apps.gateway.limits import Bucket, Limits, address_of, is_loopback, origin_allowed
from apps.gateway.refusal import Refusal
from apps.gateway.settings import OwnLimits
from apps.gateway.tenants import Client
from tests.apps.gateway.harness import settings

A, B, C = Client("a"), Client("b"), Client("c")


def test_a_bucket_fills_at_its_rate() -> None:
    """A burst is let through, then the rate; the wait is told."""
    bucket = Bucket(2.0, 3, now=0.0)

    assert [bucket.take(0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(0.5) == 0
    assert bucket.take(0.5) == 0.5
    assert bucket.left(100.0) == 3


def test_what_is_owed_is_paid_for() -> None:
    """Who takes what is not there waits until it is paid for, and for one more."""
    bucket = Bucket(2.0, 1, now=0.0)

    assert [bucket.take(0.0), bucket.owe(0.0), bucket.owe(0.0)] == [0, 1.0, 1.5]
    assert bucket.take(1.5) == 0


def test_audio_is_spent_ahead_and_paid_for() -> None:
    """A bucket lets more go than it has, and then nothing until that is paid for."""
    bucket = Bucket(10.0, 60, now=0.0)

    assert [bucket.spend(60.0, 0.0), bucket.spend(5.0, 0.0), bucket.spend(5.0, 0.0)] == [0.0, 0.5, 1.0]
    assert bucket.spend(1.0, 2.0) == 0.0


def test_audio_is_counted_by_address_and_tenant() -> None:
    """Both have their share: whoever has used up one of them waits, and nobody waits for another."""
    audio = AudioSettings(address_speed=10.0, address_ahead_s=10.0)
    tenants = {"small": OwnLimits(audio_speed=1.0, audio_ahead_s=2.0)}
    limits = Limits(settings(audio=audio, tenants=tenants), clock=lambda: 0.0)
    small, other = Client("a", "small"), Client("b", "other")

    assert limits.audio(small, 2.0) == 0
    assert limits.audio(small, 2.0) == 2.0
    assert limits.audio(other, 10.0) == 0
    assert limits.audio(other, 10.0) == 1.0
    assert limits.audio(Client("c"), 10.0) == 0


def test_connections_are_counted_by_client_and_altogether() -> None:
    """Too many connections are refused with a hint; one that ends makes room."""
    limits = Limits(settings(max_sessions=3, max_sessions_per_client=2), clock=lambda: 0.0)
    limits.admit(A)
    limits.admit(A)
    with pytest.raises(Refusal, match="this client"):
        limits.admit(A)
    limits.admit(B)
    with pytest.raises(Refusal, match="all sessions") as refused:
        limits.admit(C)
    assert refused.value.retry_after

    limits.release(A)
    limits.admit(C)
    assert limits.connections == 3


def test_clients_do_not_share_their_rate() -> None:
    """One client's flood costs another nothing, and is told when to come back."""
    limits = Limits(settings(requests_per_s=10.0, requests_burst=2), clock=lambda: 0.0)
    assert [limits.take(A) for _ in range(2)] == [None, None]

    refusal = limits.take(A)

    assert refusal is not None
    assert (refusal.code, refusal.retry_after) == ("rate_limit_exceeded", 0.2)
    assert limits.take(B) is None
    assert limits.rates(B)[0]["remaining"] == 1


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        (None, "unknown"),
        ("testclient", "testclient"),
    ],
)
def test_a_client_is_an_address(host: str | None, client: str) -> None:
    """Who has a /64 of IPv6 is one client, not very many."""
    assert address_of(host) == client


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "may"),
    [
        (None, "h", (), True),
        ("https://h", "h", (), True),
        ("http://h:8080", "h:8080", (), True),
        ("http://h:8080", "h", (), False),
        ("https://evil", "h", (), False),
        ("https://evil", None, (), False),
        ("null", "h", (), False),
        ("", "", (), False),
        ("https://shop", "h", ("https://shop",), True),
        ("https://shop.evil", "h", ("https://shop",), False),
        ("https://any", "h", ("*",), True),
    ],
)
def test_origins(origin: str | None, host: str | None, allowed: tuple[str, ...], may: bool) -> None:
    """By default pages of the gateway's own origin may connect, and clients that are no pages."""
    assert origin_allowed(origin, host, allowed) is may


@pytest.mark.parametrize(
    ("host", "may"),
    [
        ("localhost:8080", True),
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("evil.example:8080", False),
        ("localhost.evil.example:8080", False),
        ("", False),
        ("[", False),
    ],
)
def test_origins_on_this_machine(host: str, may: bool) -> None:
    """Where only this machine connects, a page that gave its own name this machine's address is none of ours."""
    assert origin_allowed(f"http://{host}", host, (), local=True) is may


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("h.org", False)],
)
def test_loopback(host: str, loopback: bool) -> None:
    """An address that only this machine reaches is told from others."""
    assert is_loopback(host) is loopback


def test_turns_are_bounded_altogether() -> None:
    """As many turns as a gateway takes are the most there may be, whosever they are; one that ends makes room."""
    limits = Limits(settings(max_turns=3), clock=lambda: 0.0)
    limits.admit_turn(A, Counter({"acme": 1, "shop": 1}))

    with pytest.raises(Refusal, match="this gateway") as refused:
        limits.admit_turn(A, Counter({"acme": 1, "default": 2}))

    assert (refused.value.code, refused.value.kind) == ("too_many_responses", "rate_limit_error")
    assert refused.value.retry_after
