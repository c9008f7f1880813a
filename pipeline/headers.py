"""The headers of a record. The gateway sets the first five on a request; the loop copies them to all that follows."""

from __future__ import annotations

REPLY_TO = "reply-to"
"""The partition of `replies` that the client's gateway reads."""

TURN = "turn"
"""The turn, so that a record nobody can decode is still answered."""

DEADLINE = "deadline"
"""When the turn must have ended, in seconds since 1970."""

TENANT = "tenant"
"""Whose request it is."""

TRACE = "traceparent"
"""The W3C trace context."""

RETRY = "retry"
"""Which retry of a dead letter this is, from 1 on; none on a first try. `penstock dead-letters retry` sets it."""

PASSED_ON = (REPLY_TO, TURN, DEADLINE, TENANT, TRACE, RETRY)

RETRIED = "retried"
"""Marks a record of `dead-letters` as a note without a value: the letter at partition:offset was retried."""

EPOCH = "epoch"
"""Set by a journalling stage: the offset of the claim under which its owner publishes. A lower one than the highest
claim read so far is a former owner's, and does not count."""

CLAIM = "claim"
"""Marks a record as a claim: from here on only its writer publishes to the partition."""

LONGEST_NUMBER = 18
"""Digits: what has more is no number of ours, and is not converted."""


def number(text: str) -> int | None:
    """The number >= 0 in a header; None if it holds none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= LONGEST_NUMBER else None
