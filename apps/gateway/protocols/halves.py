r"""Half a character in a frame: JSON can spell it (an escape like `\ud83d` alone), but no text can hold it.

The decoder only says that the frame is malformed; this says where, so that the client can be told which event it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, NoReturn

MOST_VALUES = 10_000
"""Values of an event that are looked at: beyond, the event is still named, the place is not."""

_SPELT = re.compile(r"\\u[dD][89a-fA-F]")
_HALF = re.compile(r"[\ud800-\udfff]")

_Place = tuple[Any, str]
"""The place around it (or None), and the step from there."""


class Half(NamedTuple):
    """Half a character: the event's type and id as far as they are whole, the path to it, and how it is spelt."""

    kind: str | None
    event_id: str | None
    path: str | None
    escape: str


def half_in(frame: str) -> Half | None:
    """The first half of a character in `frame`, or None if it has none or has something else wrong with it."""
    if not _SPELT.search(frame):
        return None
    try:
        event = json.loads(frame, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict):
        return None
    for place, value in islice(_values(event), MOST_VALUES):
        if isinstance(value, str) and (half := _HALF.search(value)):
            return Half(_whole(event.get("type")), _whole(event.get("event_id")), _path(place), _spelt(half[0]))
    return Half(_whole(event.get("type")), _whole(event.get("event_id")), None, "a surrogate")


def _values(event: Mapping[str, Any]) -> Iterator[tuple[_Place | None, Any]]:
    """All in `event` in order, each with its place; a name stands at the place of its object."""
    within = [_steps(event, None)]
    while within:
        for place, value in within[-1]:
            yield place, value
            if isinstance(value, dict | list):
                within.append(_steps(value, place))
                break
        else:
            within.pop()


def _steps(value: Any, around: _Place | None) -> Iterator[tuple[_Place | None, Any]]:
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield (around, f"[{number}]"), one
        return
    for name, one in value.items():
        yield around, name
        yield (around, f".{name}"), one


def _path(place: _Place | None) -> str | None:
    steps: list[str] = []
    while place is not None:
        place, step = place
        steps.append(step)
    return "".join(reversed(steps)).lstrip(".") or None


def _whole(value: object) -> str | None:
    return value if isinstance(value, str) and not _HALF.search(value) else None


def _spelt(half: str) -> str:
    return f"\\u{ord(half):04x}"


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
