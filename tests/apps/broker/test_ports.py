"""Ports for programs that are about to start."""

from __future__ import annotations

from random import SystemRandom

import pytest

from apps.broker.ports import unused_port


def test_no_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who got one may not listen on it yet, so nobody else gets it."""
    first = unused_port()
    drawn = iter([first, first, unused_port() + 1, *range(20_000, 20_500)])
    monkeypatch.setattr(SystemRandom, "randrange", lambda *_: next(drawn))

    others = {unused_port() for _ in range(20)}

    assert len(others) == 20
    assert first not in others
