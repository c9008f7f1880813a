"""The server events of the Realtime API as plain dictionaries, without their ids: those come from the log."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from apps.gateway.items import answer
from apps.gateway.refusal import INVALID, LIMITED, SERVER
from pipeline.messages import Finished, Likelihood, Problem, Usage
from pipeline.voice import RATE, Transcribed, Word

Event = dict[str, Any]

LIMITED_CODES = ("overloaded", "rate_limit_exceeded")
INVALID_CODES = ("turn_rejected", "empty_turn", "context_length_exceeded", "model_not_found", "invalid_value")
CONVERSATION = "conv"


class Place(NamedTuple):
    """Where in a response a piece of it belongs; a `spoken` one's text is the transcript of its audio."""

    response_id: str
    item_id: str
    spoken: bool = False

    @property
    def kind(self) -> str:
        """What the events of its text are called."""
        return "response.output_audio_transcript" if self.spoken else "response.output_text"

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
    audio: Event | None = None,
) -> Event:
    """A `response` object in progress; `audio` is how it is spoken."""
    return {
        "object": "realtime.response",
        "id": response_id,
        "status": "in_progress",
        "status_details": None,
        "output": [],
        "conversation_id": conversation,
        "output_modalities": ["audio" if audio else "text"],
        **({"audio": audio} if audio else {}),
        "max_output_tokens": limit,
        "usage": None,
        "metadata": metadata,
    }


def opening(place: Place, previous: str | None, *, in_conversation: bool) -> list[Event]:
    """An item of an answer begins."""
    item = answer(place.item_id, "", "in_progress", spoken=place.spoken).view
    return [
        place.event("response.output_item.added", item=item),
        *([item_event("conversation.item.added", item, previous)] if in_conversation else []),
        place.part("response.content_part.added", part=_part(place, "")),
    ]


def delta(place: Place, text: str, likelihoods: Sequence[Likelihood] = ()) -> Event:
    """A piece of the answer's text; with `logprobs`, in the shape of the Responses API, where they were asked for."""
    more = {"logprobs": [_logprob(one) for one in likelihoods]} if likelihoods else {}
    return place.part(f"{place.kind}.delta", delta=text, **more)


def sound(place: Place, data: bytes, marks: Sequence[tuple[int, int]] = ()) -> Event:
    """A piece of the answer's audio; `marks` say how many characters of the transcript are spoken at which ms of it."""
    more = {"marks": marks} if marks else {}
    return place.part("response.output_audio.delta", delta=b64encode(data).decode(), **more)


def _part(place: Place, text: str) -> Event:
    return {"type": "audio", "transcript": text} if place.spoken else {"type": "text", "text": text}


def _logprob(one: Likelihood) -> Event:
    """A token with the likeliest ones in its place; `token` is text as far as its bytes are."""
    return {**_token(one), "top_logprobs": [_token(other) for other in one.top]}


def _token(one: Likelihood) -> Event:
    return {"token": one.data.decode(errors="replace"), "id": one.id, "bytes": [*one.data], "logprob": one.logprob}


def closing(place: Place, text: str, item: Event, previous: str | None, *, in_conversation: bool) -> list[Event]:
    """An answer ends that was told to be `text`, and is `item`: of what was spoken, what could be heard."""
    return [
        *([place.part("response.output_audio.done")] if place.spoken else []),
        place.part(f"{place.kind}.done", **{"transcript" if place.spoken else "text": text}),
        place.part("response.content_part.done", part=_part(place, text)),
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


# -- what is heard


def heard(kind: str, item_id: str, **fields: Any) -> Event:
    """An event of the audio that comes in, about the item that it is or becomes."""
    return {"type": f"input_audio_buffer.{kind}", "item_id": item_id, **fields}


def committed(item: Mapping[str, Any], previous: str | None) -> list[Event]:
    """What was heard is an item."""
    return [
        heard("committed", item["id"], previous_item_id=previous),
        item_event("conversation.item.added", item, previous),
        item_event("conversation.item.done", item, previous),
    ]


def renamed(event: Event, names: Mapping[str, str]) -> Event:
    """`event`, which comes behind an item that has another name by now."""
    name = names.get(event.get("previous_item_id") or "")
    return {**event, "previous_item_id": name} if name else event


def transcription(kind: str, item_id: str, part: int, **fields: Any) -> Event:
    """An event of the transcription of part `part` of an item."""
    kind = f"conversation.item.input_audio_transcription.{kind}"
    return {"type": kind, "item_id": item_id, "content_index": part, **fields}


def transcript(item_id: str, part: int, message: Transcribed) -> Event:
    """All that was said in an item, and for how long; beyond the protocol when each word, and in which language."""
    usage = {"type": "duration", "seconds": round(message.samples / RATE, 3)}
    words = [_word(word) for word in message.words]
    code = message.language
    more = {"words": words} | ({"language": code, "languages": [{"code": code}]} if code else {})
    return transcription("completed", item_id, part, transcript=message.text, usage=usage, **more)


def _word(word: Word) -> Event:
    """As in OpenAI's `verbose_json`: seconds, here from the session's first sample."""
    return {"word": word.text, "start": round(word.start / RATE, 3), "end": round(word.end / RATE, 3)}


def untranscribed(item_id: str, part: int, problem: Problem) -> Event:
    """It is not known what was said in an item."""
    return transcription("failed", item_id, part, error=_error(problem))
