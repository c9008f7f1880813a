"""Where things are kept that can be made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.usercache import user_cache


@pytest.mark.parametrize(
    ("wanted", "home", "expected"),
    [
        ("/var/mine", "/home/me", "/var/mine/penstock/kv"),
        ("", "/home/me", "/home/me/.cache/penstock/kv"),
        ("not/absolute", "/home/me", None),
        ("", "nowhere", None),
    ],
)
def test_by_the_convention(wanted: str, home: str, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the variable's folder, else in the home; who has neither keeps nothing, least of all where he stands."""
    monkeypatch.setenv("XDG_CACHE_HOME", wanted)
    monkeypatch.setenv("HOME", home)

    assert user_cache("kv") == (None if expected is None else Path(expected))
