"""What can be set on the gateway, with its defaults. Checks nothing: the settings loader does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from apps.gateway.audio_settings import AudioSettings
from apps.gateway.tenants import TENANT
from pipeline.secret import NO_SECRET, Secret

NO_ALIASES: Mapping[str, str] = MappingProxyType({})

Algorithm = Literal["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
SHORTEST_SECRET = 32

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True)
class TokenSettings:
    """JSON Web Tokens in place of API keys, or beside them."""

    key: Secret = NO_SECRET
    """The secret that tokens are signed with (HS256, HS384, HS512: at least 32, 48, 64 bytes); `file:PATH` is the file
    that holds it. With this or one of the next two, tokens are let in."""

    key_file: Path | None = None
    """File of the public key (PEM) that they are checked with."""

    jwks_file: Path | None = None
    """File of several public keys with ids (JWKS). Both are read anew when they change."""

    algorithms: tuple[Algorithm, ...] = ()
    """Algorithms that are taken; none: `HS256` with `key`, else `RS256` and `ES256`."""

    issuer: str = ""
    """Who must have issued a token; none: anybody with the key."""

    audience: str = ""
    """For whom it must be meant; none: for anybody."""

    tenant_claim: str = "tenant"
    """The claim that names the tenant."""

    leeway_s: Annotated[float, Meta(ge=0, le=300)] = 10.0
    """Seconds by which the clocks may differ."""

    def __post_init__(self) -> None:
        given = [name for name in ("key", "key_file", "jwks_file") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        symmetric = [name for name in self.allowed if name.startswith("HS")]
        least = max((int(name[2:]) // 8 for name in symmetric), default=0)
        if self.key and len(self.key.reveal().encode()) < least:
            raise ValueError(f"key has fewer than {least} bytes, which {', '.join(symmetric)} want")
        if given and (symmetric if not self.key else len(symmetric) < len(self.allowed)):
            raise ValueError(f"algorithms {', '.join(self.allowed)} do not go with {given[0]}")

    @property
    def wanted(self) -> bool:
        """Whether tokens are let in."""
        return bool(self.key or self.key_file or self.jwks_file)

    @property
    def allowed(self) -> tuple[str, ...]:
        """The algorithms that are taken."""
        return self.algorithms or (("HS256",) if self.key else ("RS256", "ES256"))


@dataclass(frozen=True)
class TenantLimits:
    """What one tenant may do at one gateway, all its clients together."""

    sessions: Count = 500
    """Open connections of one tenant. This and the limits below hold besides those of an address, and where keys or
    tokens tell tenants apart; `[gateway.tenants.NAME]` says otherwise for one of them."""

    events_per_s: Seconds = 1000.0
    """Events that it may send per second; above that they are refused, and read no faster."""

    events_burst: Count = 10_000
    """Events that it may send at once."""

    turns_per_minute: Count = 6000
    """Responses that it may begin per minute, so many of them at once."""

    turns: Count = 500
    """Responses of it that may run at once."""

    audio_speed: Annotated[float, Meta(ge=1)] = 2000.0
    """Seconds of audio that go on per second; what comes faster waits with its sender."""

    audio_ahead_s: Seconds = 6000.0
    """Seconds of audio that go on at once before that holds."""


class OwnLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """What is otherwise for one tenant."""

    sessions: Count | None = None
    events_per_s: Seconds | None = None
    events_burst: Count | None = None
    turns_per_minute: Count | None = None
    turns: Count | None = None
    audio_speed: Annotated[float, Meta(ge=1)] | None = None
    audio_ahead_s: Seconds | None = None

    def over(self, others: TenantLimits) -> TenantLimits:
        """Its limits, where `others` hold for what it does not name."""
        return replace(others, **{name: value for name, value in structs.asdict(self).items() if value is not None})


NO_TENANTS: Mapping[str, OwnLimits] = MappingProxyType({})


@dataclass(frozen=True)
class GatewaySettings:
    """Settings of one gateway. Each size, rate, count and time is a limit that holds by default."""

    host: str = "127.0.0.1"
    """Address to listen on."""

    public: bool = False
    """Whether that may be an address that other machines reach although nobody needs a key there. With `keys_file` or
    `jwt` it need not be set."""

    keys_file: Path | None = None
    """File of the API keys, which `penstock keys` writes; with it nobody is let in without a key. Read anew when it
    changes."""

    metrics_open: bool = False
    """Whether `/metrics` needs no key where everything else does."""

    tls_cert: Path | None = None
    """File of the certificate (PEM, with those between it and its authority), for `https` and `wss`."""

    tls_key: Path | None = None
    """File of that certificate's private key, without a passphrase."""

    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """Port to listen on; 0 takes a free one."""

    replies: tuple[int, ...] = ()
    """Partitions of `replies` that this gateway reads; none: one, drawn at random."""

    secret: Secret = NO_SECRET
    """Signs where clients stand, so that they can come back to any gateway that has the same; 32 random characters or
    more; `file:PATH` is the file that holds them. None: one that this process makes up, so that they can come back to
    this very process alone."""

    model_aliases: Mapping[str, str] = field(default_factory=lambda: NO_ALIASES)
    """Further names under which clients may ask for a model (`gpt-realtime` → ours), besides `default`."""

    instructions: str = ""
    """The system prompt of a session that brings none."""

    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    """Temperature of a turn that names none; 0 is greedy."""

    max_output_tokens: Count = 512
    """The longest answer in tokens, also what `inf` means."""

    max_priority: Annotated[int, Meta(ge=0, le=9)] = 0
    """The highest priority that a turn may ask for. Those of a higher one go first, whosever they are, so raise it only
    where you know who asks; 0: nobody goes before others."""

    max_frame_bytes: Count = 24 * 1024 * 1024
    """A larger WebSocket frame is not read: the connection is closed with 1009. Well above `max_message_bytes`, and
    above `audio.max_append_bytes` in base64, so that what is merely too large is refused in words; of each connection
    one such frame at most is in memory."""

    max_message_bytes: Count = 1024 * 1024
    """A larger event (in characters), beside its audio, is refused with a typed error."""

    max_text_bytes: Count = 64 * 1024
    """A longer text of one item (UTF-8) is refused with a typed error."""

    max_conversation_bytes: Count = 256 * 1024
    """Text that a conversation keeps; beyond it the oldest exchanges go, the system's words stay."""

    max_conversation_items: Count = 400
    """Items that a conversation keeps, in the same way."""

    max_sessions: Count = 1000
    """Open connections; also the number of sessions whose client is away that are kept."""

    max_sessions_per_client: Count = 250
    """Open connections of one address."""

    requests_per_s: Seconds = 500.0
    """Events that one address may send per second, all its sessions together; above that they are refused, and read
    no faster."""

    requests_burst: Count = 5000
    """Events that it may send at once."""

    tenants: Mapping[str, OwnLimits] = field(default_factory=lambda: NO_TENANTS)
    """What is otherwise for single tenants: a table `[gateway.tenants.NAME]` with some of the names in
    `[gateway.tenant]`."""

    max_responses: Count = 4
    """Responses of one session that may run at once: one in the conversation, the others beside it."""

    max_turns: Count = 1000
    """Responses that may run at once, of all clients together; one more is refused, with a time to come back. Less than
    a stage takes of a partition (`stage.span`) for each partition, or one client's turns hold up the others'."""

    max_queued_lines: Count = 16
    """Lines of a chat that may wait for the answer before them."""

    send_queue_frames: Count = 2000
    """Frames that may wait for a slow client; beyond it the connection is closed with 1013."""

    send_queue_bytes: Count = 1024 * 1024
    """Characters that may wait for a slow client: bytes, where its language is written in ASCII."""

    send_timeout_s: Seconds = 20.0
    """Seconds that one frame may take to leave."""

    idle_timeout_s: Seconds = 900.0
    """Seconds without an event, and without a turn under way, after which a connection is closed with 1001."""

    max_session_s: Seconds = 3600.0
    """Seconds after which a connection is closed with 1001, whatever it does."""

    grace_s: Seconds = 60.0
    """Seconds that a turn goes on, and its session is kept, after the client has gone."""

    chat_ttl_s: Seconds = 900.0
    """Seconds that the conversation of a `/chat` session is kept after its client has gone."""

    turn_timeout_s: Seconds = 120.0
    """Seconds in which a turn must end: its deadline for all stages."""

    slack_s: Seconds = 5.0
    """Seconds after a deadline or a cancel after which the gateway ends the turn itself."""

    publish_timeout_s: Seconds = 10.0
    """Seconds that a record may take to stand in the log."""

    drain_notice_s: Annotated[float, Meta(ge=0)] = 1.0
    """Seconds between the moment when a gateway that stops is no longer ready and the moment when it closes its
    connections (with 1012), so that balancers send those who come back elsewhere."""

    drain_s: Seconds = 10.0
    """Seconds that running turns get on shutdown whose clients cannot go on at another gateway (there is no `secret`,
    or they are chats that do not say where they stand); after that these fail, and their clients are told."""

    ping_interval_s: Seconds = 20.0
    """Seconds between the pings of an open connection."""

    ping_timeout_s: Seconds = 90.0
    """Seconds after which an unanswered ping ends it. A client's answer stands in line behind the audio that it sends
    faster than `gateway.audio.speed` lets on."""

    origins: tuple[str, ...] = ()
    """Web origins that may connect, besides the gateway's own and clients that name none; `*` is any. On a loopback
    address its own are those of this machine alone, whatever a page's host name is."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of the proxies whose `X-Forwarded-For` is believed; `*` is any, none: nobody's."""

    jwt: TokenSettings = field(default_factory=TokenSettings)
    tenant: TenantLimits = field(default_factory=TenantLimits)
    audio: AudioSettings = field(default_factory=AudioSettings)

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        if wrong := [name for name in self.tenants if not TENANT.fullmatch(name)]:
            raise ValueError(f"tenants: {wrong[0]!r} can be no tenant's name, which has 1 to 64 of A-Z a-z 0-9 . _ -")
        if 0 < len(self.secret.reveal()) < SHORTEST_SECRET:
            raise ValueError(f"secret has fewer than {SHORTEST_SECRET} characters, and could be guessed")

    @property
    def closed(self) -> bool:
        """Whether nobody is let in without a key or token."""
        return self.keys_file is not None or self.jwt.wanted
