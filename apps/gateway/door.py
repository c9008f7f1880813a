"""The door of the gateway: which handshakes and requests come in, as whom, and how long they may stay."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Generator
from contextlib import contextmanager
from math import ceil

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from apps.gateway.connection import TOO_MUCH, Connection
from apps.gateway.keys import KEY, Keyring, read
from apps.gateway.limits import Limits, address_of, is_loopback, origin_allowed
from apps.gateway.pages import Endpoint
from apps.gateway.refusal import LIMITED, Refusal
from apps.gateway.settings import GatewaySettings
from apps.gateway.tenants import BadCredential, Client
from apps.gateway.tokens import Tokens
from apps.gateway.watched import Watched

log = logging.getLogger(__name__)

LOOK_S = 1.0
BEARER = "bearer "
IN_SUBPROTOCOL = "openai-insecure-api-key."
"""Browsers can set no header of a socket, so that the key comes as one of its subprotocols."""

WRONG_KEY = "invalid_api_key"
EXPIRED_TOKEN = "token_expired"
WANTED = f"a valid API key is wanted: `Authorization: Bearer KEY`, or the subprotocol `{IN_SUBPROTOCOL}KEY`"
STATUSES = {WRONG_KEY: 401, "origin_not_allowed": 403, "unknown_url": 404, "rate_limit_exceeded": 429}


class Door:
    """Lets clients in, and sees them out when their key is revoked or their token ends.

    Raises:
        SettingsError: the keys or what checks tokens cannot be read.
    """

    def __init__(self, settings: GatewaySettings, limits: Limits) -> None:
        self._settings, self._limits = settings, limits
        keys = settings.keys_file
        self._keys = Watched(keys, lambda path: Keyring(read(path))) if keys else None
        self._tokens = Tokens(settings.jwt) if settings.jwt.wanted else None
        self._inside: dict[Connection, Client] = {}

    def admitted(self, request: HTTPConnection) -> Client:
        """Who asks for a socket.

        Raises:
            Refusal: nobody who may have one.
        """
        client = self._known(request)
        origin, host = request.headers.get("origin"), request.headers.get("host")
        local = is_loopback(self._settings.host)
        if not origin_allowed(origin, host, self._settings.origins, local=local):
            raise Refusal("origin_not_allowed", "pages from this origin may not connect", kind="permission_error")
        return client

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        """`endpoint` for those alone who may come in."""

        async def answer(request: Request) -> Response:
            try:
                self._known(request)
            except Refusal as refusal:
                return denial(refusal)
            return await endpoint(request)

        return answer

    @contextmanager
    def inside(self, client: Client, connection: Connection) -> Generator[None, None, None]:
        """`client` has `connection` meanwhile, which is closed when its key or token does not hold any more."""
        self._inside[connection] = client
        try:
            yield
        finally:
            del self._inside[connection]

    async def run(self) -> None:
        """See to it until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look(time.time())

    def look(self, now: float) -> None:
        """Read what has changed, and close the connections of those who may not stay. `now` is in s since 1970."""
        for watched in (self._keys, self._tokens):
            if watched is not None:
                watched.look()
        for connection, client in self._inside.items():
            if why := self._outdated(client, now):
                connection.close(TOO_MUCH, why)

    def _outdated(self, client: Client, now: float) -> str:
        if client.key is not None and not (self._keys and self._keys.value.holds(client.key)):
            return f"{WRONG_KEY}: this API key is no longer valid"
        if client.expires_at is not None and now >= client.expires_at:
            return f"{EXPIRED_TOKEN}: the token has expired; connect again with a new one"
        return ""

    def _known(self, request: HTTPConnection) -> Client:
        address = address_of(request.client.host if request.client else None)
        self._limits.knock(address)
        if self._keys is None and self._tokens is None:
            return Client(address)
        try:
            return self._identified(credential(request), address)
        except BadCredential as error:
            log.info("%s was not let in: %s", address, error)
            raise Refusal(WRONG_KEY, WANTED) from None

    def _identified(self, given: str, address: str) -> Client:
        if not given:
            raise BadCredential("no key")
        if self._keys is not None and (KEY.fullmatch(given) or self._tokens is None):
            if entry := self._keys.value.find(given):
                return Client(address, entry.tenant, key=entry.id)
            raise BadCredential("no such key")
        if self._tokens is None:
            raise BadCredential("no such key")
        token = self._tokens.checked(given)
        return Client(address, token.tenant, expires_at=token.expires_at)


def credential(request: HTTPConnection) -> str:
    """The key or token of a request, from its header or its subprotocols; nothing if there is none."""
    header = request.headers.get("authorization", "")
    if header[: len(BEARER)].lower() == BEARER:
        return header[len(BEARER) :].strip()
    offered: list[str] = request.scope.get("subprotocols", [])
    return next((one[len(IN_SUBPROTOCOL) :] for one in offered if one.startswith(IN_SUBPROTOCOL)), "")


def denial(refusal: Refusal) -> Response:
    """`refusal` as the answer to a request, or to the handshake of a socket."""
    headers = {"Retry-After": str(ceil(refusal.retry_after or 1))} if refusal.kind == LIMITED else {}
    if refusal.code == WRONG_KEY:
        headers["WWW-Authenticate"] = "Bearer"
    error = {"type": refusal.kind, "code": refusal.code, "message": refusal.message, "param": None}
    return JSONResponse({"error": error}, STATUSES.get(refusal.code, 503), headers=headers)
