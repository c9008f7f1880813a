"""The door of the gateway: which handshakes come in, as which client, and for how long."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from math import ceil

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from apps.gateway.connection import Connection
from apps.gateway.limits import Limits, address_of, is_loopback, origin_allowed
from apps.gateway.refusal import LIMITED, Refusal
from apps.gateway.settings import GatewaySettings
from apps.gateway.tenants import Client

STATUSES = {"origin_not_allowed": 403, "unknown_url": 404, "rate_limit_exceeded": 429}


class Door:
    """Lets clients in, and knows who is inside."""

    def __init__(self, settings: GatewaySettings, limits: Limits) -> None:
        self._settings, self._limits = settings, limits
        self._inside: dict[Connection, Client] = {}

    def admitted(self, request: HTTPConnection) -> Client:
        """Who asks for a socket.

        Raises:
            Refusal: nobody who may have one.
        """
        address = address_of(request.client.host if request.client else None)
        self._limits.knock(address)
        origin, host = request.headers.get("origin"), request.headers.get("host")
        local = is_loopback(self._settings.host)
        if not origin_allowed(origin, host, self._settings.origins, local=local):
            raise Refusal("origin_not_allowed", "pages from this origin may not connect", kind="permission_error")
        return Client(address)

    @contextmanager
    def inside(self, client: Client, connection: Connection) -> Generator[None, None, None]:
        """`client` has `connection` meanwhile, which is closed when its key or token does not hold any more."""
        self._inside[connection] = client
        try:
            yield
        finally:
            del self._inside[connection]


def denial(refusal: Refusal) -> Response:
    """`refusal` as the answer to a request, or to the handshake of a socket."""
    wait = {"Retry-After": str(ceil(refusal.retry_after or 1))} if refusal.kind == LIMITED else {}
    error = {"type": refusal.kind, "code": refusal.code, "message": refusal.message}
    return JSONResponse({"error": error}, STATUSES.get(refusal.code, 503), headers=wait)
