"""One log of many workers: each line of theirs with its worker's name, written in one piece."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

Style = Literal["text", "json"]


def named(line: bytes, name: str, style: Style) -> bytes:
    """`line` of the worker `name`, in the style of the program's log."""
    text = line.decode("utf-8", "replace").rstrip("\r")
    if style == "text":
        return f"{name} | {text}\n".encode()
    entry = _entry(text)
    return (json.dumps({**entry, "worker": name}) + "\n").encode()


def _entry(text: str) -> dict[str, object]:
    """A line of JSON as it is; anything else as the message of such a line."""
    with suppress(ValueError):
        entry = json.loads(text)
        if isinstance(entry, dict):
            return entry
    return {"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "level": "info", "logger": "output", "message": text}


def to_stderr(data: bytes) -> None:
    """Write `data`, behind what was logged before."""
    sys.stderr.flush()
    while data:
        data = data[os.write(sys.stderr.fileno(), data) :]


Write = Callable[[bytes], None]
