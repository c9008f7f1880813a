"""Where this user's programs keep what can be made again: by the XDG convention, in a folder of Penstock's own."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(name: str) -> Path | None:
    """The folder called `name` there, which need not exist yet.

    None for a user without a home, and where the variable names no absolute path: by the convention it does not count.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return base / "penstock" / name if base.is_absolute() else None
