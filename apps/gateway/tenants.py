"""Who a client is: the tenant that its key or token speaks for, and the address it comes from."""

from __future__ import annotations

from typing import NamedTuple

OF_ALL = "default"
"""The tenant of everybody, where nobody needs a key."""


class Client(NamedTuple):
    """Who has connected. `key` is the id of the key that let it in; a token ends at `expires_at` (s since 1970)."""

    address: str
    tenant: str = OF_ALL
    key: str | None = None
    expires_at: float | None = None

    @property
    def prefix(self) -> str:
        """What the names of its chats begin with: two tenants may use the same name, and never meet in it."""
        return "" if self.tenant == OF_ALL else f"{self.tenant}:"

    def __str__(self) -> str:
        return self.address if self.tenant == OF_ALL else f"{self.tenant} at {self.address}"
