"""What a session is opened with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from apps.gateway.cursor import Signer
from apps.gateway.metrics import GatewayMetrics
from apps.gateway.settings import GatewaySettings
from apps.gateway.tenants import OF_ALL
from pipeline.messages import Problem

Rates = Callable[[], list[dict[str, Any]]]
"""The client's rate limits, as `rate_limits.updated` shows them."""


@dataclass(frozen=True)
class Terms:
    """What a session is opened with.

    `model` is said to answer it, and `asked` is what the stages are asked for (None: whichever is theirs); `partition`
    is the one of `replies` where it reads back what its client is told; `trace` is the W3C trace context of whoever
    opened it, if there is one; `draining` says whether nothing new is to begin; `tenant` is whose it is; `admit_turn`
    refuses a turn where its tenant has had its share, and `turn_ended` is told how each that was not has ended; `audio`
    counts seconds of audio, and returns the seconds after which more may go on; `signer` signs the ids of its events.
    """

    model: str
    partition: int
    settings: GatewaySettings
    metrics: GatewayMetrics
    rates: Rates
    asked: str | None = None
    trace: str | None = None
    draining: Callable[[], bool] = lambda: False
    tenant: str = OF_ALL
    admit_turn: Callable[[], None] = lambda: None
    turn_ended: Callable[[Problem | None], None] = lambda problem: None
    audio: Callable[[float], float] = lambda seconds: 0.0
    signer: Signer = field(default_factory=Signer)
