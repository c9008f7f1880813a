"""Takes out of the conversation what its client says was not heard of a spoken answer."""

from __future__ import annotations

from apps.gateway.commands import ItemTruncate
from apps.gateway.conversation import Conversation
from apps.gateway.editing import known
from apps.gateway.events import Event
from apps.gateway.items import cut, spoken_part
from apps.gateway.refusal import Refusal
from apps.gateway.speaking import MS
from apps.gateway.turns import Turns

PLAYED_MS = 20
"""By so much a client's clock may be ahead of the audio that it got."""


def truncated(turns: Turns, event: Event) -> None:
    """Remember what was told of an answer: no more of it was heard than that."""
    item_id, position = event["item_id"], event["audio_end_ms"] * MS
    if (answer := turns.of(item_id)) is not None:
        answer.kept = event["transcript"]
    if item_id in turns.tracks:
        turns.tracks[item_id] = turns.tracks[item_id].cut(position)


def truncate(conversation: Conversation, turns: Turns, command: ItemTruncate) -> Event:
    """Cut an answer to the words that were heard; what the client is told of it also has these words, `transcript`.

    Raises:
        Refusal: there is no such item, or no such audio in it.
    """
    item = known(conversation, command.item_id, "truncate")
    if command.audio_end_ms < 0:
        raise Refusal("integer_below_min_value", "audio_end_ms is at least 0", param="audio_end_ms")
    answer = turns.of(item.id)
    track = answer.track if answer is not None else turns.tracks.get(item.id)
    if item.role != "assistant" or track is None:
        why = f"item {item.id!r} has no audio; only what was spoken can be truncated"
        raise Refusal("item_truncate_no_audio", why, param="item_id")
    if command.content_index != (spoken_part(item, "output_audio") or 0):
        raise Refusal("invalid_value", f"item {item.id!r} has its audio in part 0", param="content_index")
    if command.audio_end_ms > track.ms + PLAYED_MS:
        why = f"Audio content of {track.ms}ms is already shorter than {command.audio_end_ms}ms"
        raise Refusal("invalid_value", why, param="audio_end_ms")
    text = item.text if answer is None else answer.text
    heard = track.words(text, command.audio_end_ms * MS)
    conversation.replace(cut(item, heard))
    return {
        "type": "conversation.item.truncated",
        "item_id": item.id,
        "content_index": command.content_index,
        "audio_end_ms": command.audio_end_ms,
        "transcript": heard,
    }
