"""Takes out of the conversation what its client says was not heard of a spoken answer."""

from __future__ import annotations

import time
from collections import OrderedDict

from apps.gateway.answer import CLIENT
from apps.gateway.commands import ItemTruncate
from apps.gateway.conversation import Talk
from apps.gateway.editing import known
from apps.gateway.events import Event
from apps.gateway.items import Item, cut, spoken_part
from apps.gateway.refusal import Refusal
from apps.gateway.saying import Saying
from apps.gateway.speaking import MOST_TRACKS, MS, Track
from apps.gateway.turns import Turns

PLAYED_MS = 20
"""By so much a client's clock may be ahead of the audio that it got."""


def truncated(turns: Turns, event: Event) -> None:
    """Remember what was told of an answer: no more of it was heard than that, and no more will be."""
    item_id, position = event["item_id"], event["audio_end_ms"] * MS
    answer = turns.of(item_id)
    if answer is not None and answer.track is not None:
        answer.kept, answer.track = event["transcript"], answer.track.cut(position)
    if item_id in turns.tracks:
        turns.tracks[item_id] = turns.tracks[item_id].cut(position)


class Truncating:
    """Cuts answers in `talk`. What was asked before counts at once: an answer that was cut gets no longer again."""

    def __init__(self, talk: Talk, turns: Turns, say: Saying) -> None:
        self._talk, self._turns, self._say = talk, turns, say
        self._heard: OrderedDict[str, tuple[int, str]] = OrderedDict()

    def carry_out(self, command: ItemTruncate) -> None:
        """Cut an answer to the words that were heard; what the client is told of it also has these, `transcript`.

        Whoever cuts one that goes on plays no more of it: it ends.

        Raises:
            Refusal: there is no such item, or no such audio in it.
        """
        item = known(self._talk.draft, command.item_id, "truncate")
        track = self._track(item, command)
        heard = self._words(item, track, command.audio_end_ms)
        self._talk.draft.replace(cut(item, heard))
        told = {
            "type": "conversation.item.truncated",
            "item_id": item.id,
            "content_index": command.content_index,
            "audio_end_ms": command.audio_end_ms,
            "transcript": heard,
        }
        answer = self._turns.of(item.id)
        if answer is None:
            self._say.tell(told)
            return
        self._say.tell(told, cuts=(answer.id, CLIENT))
        self._turns.cancel(answer, time.monotonic())
        self._turns.silenced = answer.id

    def _track(self, item: Item, command: ItemTruncate) -> Track:
        """The audio of an answer that can be cut as is asked."""
        if command.audio_end_ms < 0:
            raise Refusal("integer_below_min_value", "audio_end_ms is at least 0", param="audio_end_ms")
        answer = self._turns.of(item.id)
        track = answer.track if answer is not None else self._turns.tracks.get(item.id)
        if item.role != "assistant" or track is None:
            why = f"item {item.id!r} has no audio; only what was spoken can be truncated"
            raise Refusal("item_truncate_no_audio", why, param="item_id")
        if command.content_index != (spoken_part(item, "output_audio") or 0):
            raise Refusal("invalid_value", f"item {item.id!r} has its audio in part 0", param="content_index")
        return track

    def _words(self, item: Item, track: Track, until_ms: int) -> str:
        """The words of an answer that were heard up to `until_ms`."""
        length, before = self._heard.get(item.id, (track.ms, None))
        length = min(length, track.ms)
        if until_ms > length + PLAYED_MS:
            why = f"Audio content of {length}ms is already shorter than {until_ms}ms"
            raise Refusal("invalid_value", why, param="audio_end_ms")
        heard = track.words(self._text(item), until_ms * MS) if before is None or until_ms < length else before
        self._heard[item.id] = min(length, until_ms), heard
        if len(self._heard) > MOST_TRACKS:
            self._heard.popitem(last=False)
        return heard

    def _text(self, item: Item) -> str:
        """All that is left of an answer."""
        answer = self._turns.of(item.id)
        if answer is None:
            return item.text
        return answer.text if answer.kept is None else answer.kept
