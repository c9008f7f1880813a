"""The one exception of the gateway: a client's event that is not carried out, as the client is told of it."""

from __future__ import annotations

from pipeline.errors import PenstockError

INVALID = "invalid_request_error"
LIMITED = "rate_limit_error"
SERVER = "server_error"
RESTARTING = "the server is restarting"
LONGEST = 500
"""Characters of a message, which may quote what a client sent."""


class Refusal(PenstockError):
    """An event that is refused with an `error` event; the session lives on.

    `code` is for programs, `param` the path to what is wrong, `event_id` the client's own name of its event,
    `retry_after` the seconds after which it may be tried again, and `reason` tells cases of one code apart.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        kind: str = INVALID,
        event_id: str | None = None,
        retry_after: float | None = None,
        reason: str | None = None,
    ) -> None:
        message = message if len(message) <= LONGEST else message[: LONGEST - 1] + "…"
        super().__init__(message)
        self.code, self.message, self.param, self.kind = code, message, param, kind
        self.event_id, self.retry_after, self.reason = event_id, retry_after, reason

    def about(self, event_id: str | None) -> Refusal:
        """The same, naming the client's event."""
        self.event_id = event_id
        return self


def shutting_down() -> Refusal:
    """Nothing new is begun any more."""
    return Refusal("shutting_down", RESTARTING, kind=LIMITED, retry_after=2.0)
