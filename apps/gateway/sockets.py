"""The two WebSocket endpoints: whom to let in, which session to give, and what to do when the socket ends."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping

from starlette.websockets import WebSocket, WebSocketDisconnect

from apps.gateway.arrival import RESUME_FAILED, failed
from apps.gateway.connection import NOT_RESUMED, REPLACED, TOO_MUCH, TRY_LATER, Codec, Connection
from apps.gateway.cursor import BadCursor, Cursor
from apps.gateway.door import Door, denial
from apps.gateway.hub import Hub
from apps.gateway.items import new_id
from apps.gateway.limits import Limits
from apps.gateway.lines import LineSession
from apps.gateway.metrics import GatewayMetrics
from apps.gateway.protocols.chat import NAME, Chat
from apps.gateway.protocols.realtime import Realtime
from apps.gateway.refusal import LIMITED, Refusal, shutting_down
from apps.gateway.seat import Seat
from apps.gateway.session import Session
from apps.gateway.settings import GatewaySettings
from apps.gateway.tenants import Client
from apps.gateway.terms import Terms
from apps.gateway.throttle import Throttle
from apps.gateway.voicing import NOBODY_HEARS
from pipeline.errors import UnknownModel

log = logging.getLogger(__name__)

SESSION_PREFIX, CHAT_PREFIX = "sess", "chat."
DEFAULT = "default"
SUBPROTOCOL = "realtime"
CLOSES = {RESUME_FAILED: NOT_RESUMED, "resume_unavailable": TRY_LATER, "session_taken": REPLACED}
"""How a socket is closed whose session could not be given to it; else with 1008."""
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
        self._throttle = Throttle()

    async def realtime(self, websocket: WebSocket) -> None:
        """`/v1/realtime`."""
        audio = self._settings.audio
        most = base64_length(audio.max_append_bytes) if audio.hears else 0
        codec = Realtime(longest=self._settings.max_message_bytes, audio=most)
        async with self._admitted(websocket) as client:
            if client is None:
                return
            await _accept(websocket, SUBPROTOCOL)
            try:
                seat = await self._realtime_seat(websocket, client)
            except Refusal as refusal:
                await self._turn_away(websocket, codec, refusal)
                return
            await self._serve(websocket, seat, codec, client)

    async def _realtime_seat(self, websocket: WebSocket, client: Client) -> Seat:
        """A new session, or the one that the client comes back to."""
        if (name := websocket.query_params.get("resume")) is not None:
            cursor = self._cursor(client, name, websocket.query_params.get("last_event_id", ""), SESSION_PREFIX)
            return await self._hub.resume(Session(name, self._terms(websocket, client, name, None, cursor)), cursor)
        transcription = websocket.query_params.get("intent") == "transcription"
        if transcription and not self._settings.audio.hears:
            raise Refusal("audio_not_supported", NOBODY_HEARS, param="intent")
        name = new_id(SESSION_PREFIX)
        model = None if transcription else self._model(websocket)
        session = Session(name, self._terms(websocket, client, name, model), transcription=transcription)
        session.open()
        return self._hub.seats.add(session, time.monotonic())

    async def chat(self, websocket: WebSocket) -> None:
        """`/chat/{session}`."""
        codec = Chat(longest=self._settings.max_message_bytes)
        last = websocket.query_params.get("last")
        async with self._admitted(websocket) as client:
            if client is None:
                return
            await _accept(websocket, CHAT)
            try:
                name = self._chat_name(websocket, client)
                if last is not None:
                    stamp = self._hub.signer.stamp(client.tenant, name)
                    codec = Chat(longest=self._settings.max_message_bytes, aside=stamp.aside)
                if last:
                    cursor = self._cursor(client, name, last, CHAT_PREFIX)
                    codec.skip = cursor.aside
                    seat = await self._chat_resumed(websocket, client, name, cursor)
                else:
                    seat = self._chat_seat(websocket, client, name)
            except Refusal as refusal:
                await self._turn_away(websocket, codec, refusal)
                return
            await self._serve(websocket, seat, codec, client)

    def _chat_name(self, websocket: WebSocket, client: Client) -> str:
        """How the log knows the tenant's session of that name; the prefix tells it from ours and other tenants'."""
        name = websocket.path_params["session"]
        if not NAME.fullmatch(name):
            raise Refusal("invalid_session", "a session's name has 1 to 128 of A-Z a-z 0-9 . _ ~ -")
        return f"{CHAT_PREFIX}{client.prefix}{name}"

    def _chat_seat(self, websocket: WebSocket, client: Client, name: str) -> Seat:
        """The session of that name which is here, or a new one."""
        model = self._model(websocket)
        if seat := self._hub.seats.get(name):
            return seat
        session = LineSession(name, self._terms(websocket, client, name, model))
        session.open()
        return self._hub.seats.add(session, time.monotonic())

    async def _chat_resumed(self, websocket: WebSocket, client: Client, name: str, cursor: Cursor) -> Seat:
        """The session that the client comes back to. Of an event that it got in part, the whole is told again."""
        session = LineSession(name, self._terms(websocket, client, name, None, cursor))
        return await self._hub.resume(session, cursor._replace(number=cursor.number - 1) if cursor.aside else cursor)

    def _cursor(self, client: Client, name: str, event_id: str, prefix: str) -> Cursor:
        """Where the client stands, by the last event that it has got."""
        try:
            if not name.startswith(prefix):
                raise BadCursor
            return self._hub.signer.stamp(client.tenant, name).read(event_id)
        except BadCursor:
            raise failed("invalid_cursor") from None

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
            code, _ = connection.closed_with
            self._metrics.closes.labels(codec.name, str(code)).inc()
            lasted = now - connection.opened_at
            why = connection.closing.reason if connection.closing else "by its client"
            log.info("session %s closed after %.1f s with %d %s", session.id, lasted, code, why)

    def _terms(
        self, websocket: WebSocket, client: Client, name: str, model: str | None, cursor: Cursor | None = None
    ) -> Terms:
        trace = websocket.headers.get("traceparent", "")
        return Terms(
            model=model or self._known[0],
            asked=model,
            partition=cursor.partition if cursor else self._hub.partition(),
            settings=self._settings,
            metrics=self._metrics,
            rates=lambda: self._limits.rates(client),
            draining=lambda: self._hub.seats.refuses(name),
            trace=trace if TRACE.fullmatch(trace) else None,
            tenant=client.tenant,
            signer=self._hub.signer,
            admit_turn=lambda: self._admit_turn(client),
            turn_ended=lambda problem: self._throttle.heard(client.tenant, problem),
            audio=lambda seconds: self._limits.audio(client, seconds),
        )

    def _admit_turn(self, client: Client) -> None:
        self._throttle.admit(client.tenant)
        self._limits.admit_turn(client, self._running())

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
        code = CLOSES.get(refusal.code, TOO_MUCH)
        await websocket.close(code, f"{refusal.code}: {refusal.message}".encode()[:120].decode(errors="ignore"))


def base64_length(size: int) -> int:
    """Characters that so many bytes have."""
    return -(-size // 3) * 4


async def _accept(websocket: WebSocket, subprotocol: str) -> None:
    """Let the client in; a browser that offers subprotocols wants one of them back, and it must not be the key."""
    await websocket.accept(subprotocol if subprotocol in websocket.scope["subprotocols"] else None)
