"""The `penstock` command. Its parts are imported when it runs, so that Ctrl-C is quiet from the first moment on."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from pipeline.errors import PenstockError, SettingsError

INTERRUPTED, WRONG_SETTING, FAILED = 130, 2, 1


def main() -> NoReturn:
    """Run the command line: an error raised on purpose is one line, and its status 2 for settings, else 1."""
    try:
        from apps.cli.commands import app

        app()
    except SystemExit as end:
        _leave(end.code if isinstance(end.code, int) else FAILED)
    except KeyboardInterrupt:
        _leave(INTERRUPTED)
    except (PenstockError, BaseExceptionGroup) as error:
        known = _known(error)
        if known is None or os.environ.get("PENSTOCK_DEBUG"):
            raise
        _complain(known)
        _leave(WRONG_SETTING if isinstance(known, SettingsError) else FAILED)
    _leave(0)


def _known(error: BaseException) -> PenstockError | None:
    """The first error raised on purpose in a group, or None if there is any other."""
    if isinstance(error, BaseExceptionGroup):
        inner = [_known(one) for one in error.exceptions]
        return None if None in inner else inner[0]
    return error if isinstance(error, PenstockError) else None


def _complain(error: PenstockError) -> None:
    from rich.console import Console

    text = str(error).replace("[", r"\[")
    Console(stderr=True).print(f"[bold red]penstock:[/] [red]{text}[/]", highlight=False, soft_wrap=True)


def _leave(status: int) -> NoReturn:
    """End with `status`, and at once where something goes on that cannot be stopped."""
    from apps.unstoppable import goes_on

    if goes_on():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
