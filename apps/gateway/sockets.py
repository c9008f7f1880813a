"""The two WebSocket endpoints: whom to let in, which session to give, and what to do when the socket ends."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping

from starlette.websockets import WebSocket, WebSocketDisconnect

from apps.gateway.connection import TOO_MUCH, Codec, Connection
from apps.gateway.door import Door, denial
from apps.gateway.hub import Hub
from apps.gateway.items import new_id
from apps.gateway.limits import Limits
from apps.gateway.lines import LineSession
from apps.gateway.metrics import GatewayMetrics
from apps.gateway.protocols.chat import NAME, Chat
from apps.gateway.protocols.realtime import Realtime
from apps.gateway.refusal import LIMITED, Refusal, shutting_down
from apps.gateway.seats import Seat
from apps.gateway.session import Session, Terms
from apps.gateway.settings import GatewaySettings
from apps.gateway.tenants import Client
from pipeline.errors import UnknownModel

log = logging.getLogger(__name__)

CHAT_PREFIX = "chat."
DEFAULT = "default"
SUBPROTOCOL = "realtime"
CHAT = "chat"
"""What a page offers beside its key: `["chat", "openai-insecure-api-key.KEY"]`."""
TRACE = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Sockets:
    """The endpoints of one gateway. `models` are the names that are served, the first by default."""

    def __init__(
        self,
        hub: Hub,
        door: Door,
        limits: Limits,
        settings: GatewaySettings,
        metrics: GatewayMetrics,
        models: tuple[str, ...],
    ) -> None:
        self._hub, self._door, self._limits = hub, door, limits
        self._settings, self._metrics = settings, metrics
        self._models: Mapping[str, str] = {**settings.model_aliases, **{name: name for name in models}}
        self._known = models

    async def realtime(self, websocket: WebSocket) -> None:
        """`/v1/realtime`."""
        codec = Realtime(longest=self._settings.max_message_bytes)
        async with self._admitted(websocket) as client:
            if client is None:
                return
            await _accept(websocket, SUBPROTOCOL)
            try:
                model = self._model(websocket)
                if websocket.query_params.get("intent") == "transcription":
                    raise Refusal("audio_not_supported", "transcription is not served yet", param="intent")
            except Refusal as refusal:
                await self._turn_away(websocket, codec, refusal)
                return
            session = Session(new_id("sess"), self._terms(websocket, client, model))
            session.open()
            seat = self._hub.seats.add(session, time.monotonic())
            await self._serve(websocket, seat, codec, client)

    async def chat(self, websocket: WebSocket) -> None:
        """`/chat/{session}`."""
        codec = Chat(longest=self._settings.max_message_bytes)
        async with self._admitted(websocket) as client:
            if client is None:
                return
            await _accept(websocket, CHAT)
            try:
                seat = self._chat_seat(websocket, client)
            except Refusal as refusal:
                await self._turn_away(websocket, codec, refusal)
                return
            await self._serve(websocket, seat, codec, client)

    def _chat_seat(self, websocket: WebSocket, client: Client) -> Seat:
        """The tenant's session of that name, or a new one; the prefix tells it from ours and from other tenants'."""
        name = websocket.path_params["session"]
        if not NAME.fullmatch(name):
            raise Refusal("invalid_session", "a session's name has 1 to 128 of A-Z a-z 0-9 . _ ~ -")
        model = self._model(websocket)
        name = f"{CHAT_PREFIX}{client.prefix}{name}"
        if seat := self._hub.seats.get(name):
            return seat
        session = LineSession(name, self._terms(websocket, client, model))
        return self._hub.seats.add(session, time.monotonic())

    async def _serve(self, websocket: WebSocket, seat: Seat, codec: Codec, client: Client) -> None:
        session = seat.session
        connection = Connection(
            websocket,
            session,
            codec,
            self._settings,
            self._metrics,
            take=lambda: self._limits.take(client),
            pump=lambda: self._hub.pump(session),
        )
        self._hub.seats.enter(seat, connection)
        log.info("session %s opened by %s over %s", session.id, client, codec.name)
        open_now = self._metrics.connections.labels(codec.name)
        open_now.inc()
        try:
            with self._door.inside(client, connection):
                await self._hub.pump(session)
                await connection.run()
        finally:
            open_now.dec()
            now = time.monotonic()
            self._hub.seats.leave(seat, connection, now)
            code, reason = connection.closed_with
            self._metrics.closes.labels(codec.name, str(code)).inc()
            lasted = now - connection.opened_at
            log.info("session %s closed after %.1f s with %d %s", session.id, lasted, code, reason)

    def _terms(self, websocket: WebSocket, client: Client, model: str | None) -> Terms:
        trace = websocket.headers.get("traceparent", "")
        return Terms(
            model=model or self._known[0],
            asked=model,
            partition=self._hub.partition(),
            settings=self._settings,
            metrics=self._metrics,
            rates=lambda: self._limits.rates(client),
            draining=lambda: self._hub.seats.draining,
            trace=trace if TRACE.fullmatch(trace) else None,
            tenant=client.tenant,
            admit_turn=lambda: self._limits.admit_turn(client, self._running()),
        )

    def _running(self) -> Counter[str]:
        """The turns that are under way, by tenant."""
        running: Counter[str] = Counter()
        for seat in self._hub.seats:
            running[seat.session.terms.tenant] += len(seat.session.turns)
        return running

    def _model(self, websocket: WebSocket) -> str | None:
        """The model that the client asks for; None where it leaves that to the stages."""
        asked = websocket.query_params.get("model") or DEFAULT
        if asked == DEFAULT:
            return None
        if asked not in self._models:
            unknown = UnknownModel(asked[:100], known=self._known)
            raise Refusal(unknown.code, str(unknown), param=unknown.param)
        return self._models[asked]

    async def nowhere(self, websocket: WebSocket) -> None:
        """Any other path."""
        await self._deny(websocket, Refusal("unknown_url", f"there is no socket at {websocket.url.path}"))

    # -- who comes in

    @contextlib.asynccontextmanager
    async def _admitted(self, websocket: WebSocket) -> AsyncGenerator[Client | None, None]:
        """The client, counted meanwhile; None if it was refused before the handshake."""
        try:
            client = self._door.admitted(websocket)
            self._check()
            self._limits.admit(client)
        except Refusal as refusal:
            with contextlib.suppress(WebSocketDisconnect):
                await self._deny(websocket, refusal)
            yield None
            return
        try:
            yield client
        except WebSocketDisconnect:
            log.debug("a client left during the handshake")
        finally:
            self._limits.release(client)

    def _check(self) -> None:
        if self._hub.seats.draining:
            raise shutting_down()
        if self._hub.problem:
            raise Refusal("not_ready", f"not ready: {self._hub.problem}", kind=LIMITED, retry_after=2.0)

    async def _deny(self, websocket: WebSocket, refusal: Refusal) -> None:
        """Answer the handshake with plain HTTP."""
        self._metrics.refused.labels(refusal.code).inc()
        await websocket.send_denial_response(denial(refusal))

    async def _turn_away(self, websocket: WebSocket, codec: Codec, refusal: Refusal) -> None:
        """Say why, where browsers can read it too, and close."""
        self._metrics.refused.labels(refusal.code).inc()
        for frame in codec.complaint(refusal):
            await websocket.send_text(frame)
        await websocket.close(TOO_MUCH, f"{refusal.code}: {refusal.message}".encode()[:120].decode(errors="ignore"))


async def _accept(websocket: WebSocket, subprotocol: str) -> None:
    """Let the client in; a browser that offers subprotocols wants one of them back, and it must not be the key."""
    await websocket.accept(subprotocol if subprotocol in websocket.scope["subprotocols"] else None)
