"""A text that nobody is shown: neither its repr nor its str nor a format of it says what it is."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import ClassVar, NoReturn

FROM_FILE = "file:"
LARGEST = 64 * 1024


class Secret:
    """A password or a key. `reveal()` is the one way to it, and stands where it is handed to a library."""

    __slots__ = ("_value",)
    _value: str
    shown: ClassVar[str] = "(hidden)"

    def __init__(self, value: str = "") -> None:
        object.__setattr__(self, "_value", value)

    def reveal(self) -> str:
        """What it is."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return self.shown if self._value else "(none)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a secret does not change")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not copied into anything that is kept")

    @classmethod
    def given(cls, text: str) -> Secret:
        """The secret that a setting names: itself, or with `file:` before it the file that holds it.

        Raises:
            ValueError: the file cannot be read; the text says which, and nothing of what is in it.
        """
        if not text.startswith(FROM_FILE):
            return cls(text)
        path = Path(text.removeprefix(FROM_FILE)).expanduser()
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST + 1)
            if len(content) > LARGEST:
                raise ValueError(f"{path} is too large to hold a secret")
            return cls(content.decode("utf-8").rstrip("\r\n"))
        except UnicodeDecodeError:
            raise ValueError(f"{path} holds no text") from None
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from None


NO_SECRET = Secret()
