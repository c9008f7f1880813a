"""Who a client is: the tenant that its key or token speaks for, and the address it comes from."""

from __future__ import annotations

import re
from typing import NamedTuple

from pipeline.errors import PenstockError

OF_ALL = "default"
"""The tenant of everybody, where nobody needs a key."""

TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What a tenant's name may be: it stands in headers, names and logs."""


class BadCredential(PenstockError):
    """A key or token that lets nobody in; the text is for the log, and repeats nothing of it."""


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
