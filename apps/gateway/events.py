"""The server events of the Realtime API as plain dictionaries, without their ids: those come from the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from apps.gateway.refusal import INVALID, LIMITED, SERVER
from pipeline.messages import Finished, Likelihood, Problem, Usage

Event = dict[str, Any]

LIMITED_CODES = ("overloaded", "rate_limit_exceeded")
INVALID_CODES = ("turn_rejected", "empty_turn", "context_length_exceeded", "model_not_found", "invalid_value")
CONVERSATION = "conv"


class Place(NamedTuple):
    """Where in a response a piece of text belongs."""

    response_id: str
    item_id: str

    def event(self, kind: str, **fields: Any) -> Event:
        """An event about the item."""
        return {"type": kind, "response_id": self.response_id, "output_index": 0, **fields}

    def part(self, kind: str, **fields: Any) -> Event:
        """An event about the item's one part."""
        return self.event(kind, item_id=self.item_id, content_index=0, **fields)


def session_event(kind: str, session: Mapping[str, Any]) -> Event:
    """`session.created` or `session.updated`."""
    return {"type": kind, "session": session}


def item_event(kind: str, item: Mapping[str, Any], previous: str | None) -> Event:
    """`conversation.item.added` or `.done`."""
    return {"type": kind, "previous_item_id": previous, "item": item}


def deleted(item_id: str) -> Event:
    """`conversation.item.deleted`."""
    return {"type": "conversation.item.deleted", "item_id": item_id}


def response(
    response_id: str,
    *,
    conversation: str | None,
    metadata: Mapping[str, str] | None,
    limit: int | str,
    modalities: Sequence[str],
) -> Event:
    """A `response` object in progress."""
    return {
        "object": "realtime.response",
        "id": response_id,
        "status": "in_progress",
        "status_details": None,
        "output": [],
        "conversation_id": conversation,
        "output_modalities": list(modalities),
        "max_output_tokens": limit,
        "usage": None,
        "metadata": metadata,
    }


def opening(place: Place, previous: str | None, *, in_conversation: bool) -> list[Event]:
    """An item of an answer begins."""
    item = _item(place, "", "in_progress")
    return [
        place.event("response.output_item.added", item=item),
        *([item_event("conversation.item.added", item, previous)] if in_conversation else []),
        place.part("response.content_part.added", part={"type": "text", "text": ""}),
    ]


def delta(place: Place, text: str, likelihoods: Sequence[Likelihood] = ()) -> Event:
    """A piece of the answer's text; with `logprobs`, in the shape of the Responses API, where they were asked for."""
    more = {"logprobs": [_logprob(one) for one in likelihoods]} if likelihoods else {}
    return place.part("response.output_text.delta", delta=text, **more)


def _logprob(one: Likelihood) -> Event:
    """A token with the likeliest ones in its place; `token` is text as far as its bytes are."""
    return {**_token(one), "top_logprobs": [_token(other) for other in one.top]}


def _token(one: Likelihood) -> Event:
    return {"token": one.data.decode(errors="replace"), "id": one.id, "bytes": [*one.data], "logprob": one.logprob}


def closing(place: Place, text: str, status: str, previous: str | None, *, in_conversation: bool) -> list[Event]:
    """An item of an answer ends."""
    item = _item(place, text, status)
    return [
        place.part("response.output_text.done", text=text),
        place.part("response.content_part.done", part={"type": "text", "text": text}),
        place.event("response.output_item.done", item=item),
        *([item_event("conversation.item.done", item, previous)] if in_conversation else []),
    ]


def item_status(finished: Finished) -> str:
    """The status of an answer's item."""
    return "completed" if finished.status == "completed" else "incomplete"


def done(view: Event, finished: Finished, output: list[Event], cancel_reason: str) -> Event:
    """`response.done`."""
    ended = {
        **view,
        "status": finished.status,
        "status_details": _details(finished, cancel_reason),
        "output": output,
        "usage": usage(finished.usage),
    }
    return {"type": "response.done", "response": ended}


def usage(spent: Usage) -> Event:
    """Tokens in and out, as a response shows them."""
    cached = spent.cached_tokens
    return {
        "total_tokens": spent.prompt_tokens + spent.output_tokens,
        "input_tokens": spent.prompt_tokens,
        "output_tokens": spent.output_tokens,
        "input_token_details": {
            "text_tokens": spent.prompt_tokens,
            "audio_tokens": 0,
            "image_tokens": 0,
            "cached_tokens": cached,
            "cached_tokens_details": {"text_tokens": cached, "audio_tokens": 0, "image_tokens": 0},
        },
        "output_token_details": {"text_tokens": spent.output_tokens, "audio_tokens": 0},
    }


def _item(place: Place, text: str, status: str) -> Event:
    content = [] if status == "in_progress" else [{"type": "output_text", "text": text}]
    return {
        "id": place.item_id,
        "object": "realtime.item",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def _details(finished: Finished, cancel_reason: str) -> Event:
    """Why a response ended."""
    details: Event = {"type": finished.status}
    if finished.status == "cancelled":
        details["reason"] = cancel_reason
    elif finished.status == "incomplete":
        details["reason"] = "max_output_tokens"
    elif finished.status == "failed":
        details["error"] = _error(finished.problem or Problem("server_error", "the turn failed"))
    return details


def _error(problem: Problem) -> Event:
    kind = LIMITED if problem.code in LIMITED_CODES else INVALID if problem.code in INVALID_CODES else SERVER
    error: Event = {"type": kind, "code": problem.code, "message": problem.message}
    if problem.param is not None:
        error["param"] = problem.param
    if problem.retry_after is not None:
        error["retry_after"] = problem.retry_after
    return error
