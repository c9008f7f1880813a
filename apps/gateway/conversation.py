"""The conversation of one session: its items in order, bounded, and what of it the model is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Self

from apps.gateway.events import Event
from apps.gateway.items import Item, cut, restored
from pipeline.messages import Utterance

ROOT = "root"


class Conversation:
    """Items in order, of at most `max_items` and `max_bytes` once `bound` has been called."""

    def __init__(self, *, max_items: int, max_bytes: int) -> None:
        self._max_items, self._max_bytes = max_items, max_bytes
        self._items: dict[str, Item] = {}
        self._order: list[str] = []
        self._bytes = 0

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Item]:
        return (self._items[item_id] for item_id in self._order)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all items, in order."""
        return tuple(self._order)

    def copy(self) -> Self:
        """The same once more."""
        twin = type(self)(max_items=self._max_items, max_bytes=self._max_bytes)
        for item in self:
            twin.insert(item, after=None)
        return twin

    def get(self, item_id: str) -> Item | None:
        """The item with this id."""
        return self._items.get(item_id)

    def insert(self, item: Item, *, after: str | None) -> str | None:
        """Put `item` after another one (`ROOT`: first; none: last); returns the id before it."""
        if after == ROOT:
            place = 0
        elif after is None:
            place = len(self._order)
        else:
            place = self._order.index(after) + 1
        before = self._order[place - 1] if place else None
        self._order.insert(place, item.id)
        self._items[item.id] = item
        self._bytes += item.size
        return before

    def replace(self, item: Item) -> None:
        """Put `item` in the place of the one with its id, if that is still there."""
        if (old := self._items.get(item.id)) is not None:
            self._bytes += item.size - old.size
            self._items[item.id] = item

    def delete(self, item_id: str) -> None:
        """Take an item away, if it is there."""
        if (item := self._items.pop(item_id, None)) is not None:
            self._bytes -= item.size
            self._order.remove(item_id)

    def utterances(self) -> tuple[Utterance, ...]:
        """What the model is told."""
        return tuple(item.utterance for item in self if item.text)

    def bound(self, *, keep: str) -> list[str]:
        """Let the oldest exchanges go for which there is no room; returns the ids of their items.

        An exchange is what is not the system's, up to the next thing that the user said; the system's goes only where
        nothing else is left, and item `keep` never.
        """
        gone: list[str] = []
        while self._bytes > self._max_bytes or len(self._order) > self._max_items:
            if not (oldest := self._oldest(keep)):
                break
            for item_id in oldest:
                self.delete(item_id)
            gone += oldest
        return gone

    def _oldest(self, keep: str) -> list[str]:
        """The ids of the oldest exchange that may go."""
        found: list[str] = []
        for item in self:
            if item.role == "system":
                continue
            if item.id == keep or (found and item.role == "user"):
                break
            found.append(item.id)
        return found or [item.id for item in self if item.id != keep][:1]


class Talk:
    """A conversation twice: as the log tells it, and as it will stand there once what is on its way has been read.

    What the client asks for is checked against `draft` and changes it at once. `told` changes only by what is read, in
    the log's order, so that whoever reads the same records has the same.
    """

    def __init__(self, *, max_items: int, max_bytes: int) -> None:
        self.told = Conversation(max_items=max_items, max_bytes=max_bytes)
        self.draft = self.told.copy()

    def settle(self) -> None:
        """Nothing is on its way: what the log tells is what there is."""
        if self.draft.ids != self.told.ids:
            self.draft = self.told.copy()

    def hear(self, events: Iterable[Event]) -> None:
        """Take over what a client is told of items that it has asked for."""
        for event in events:
            if event["type"] == "conversation.item.added":
                previous = event["previous_item_id"]
                after = previous if previous is not None and previous in self.told else ROOT
                self.told.insert(restored(event["item"]), after=after)
            elif event["type"] == "conversation.item.deleted":
                self.told.delete(event["item_id"])
            elif event["type"] == "conversation.item.truncated" and (item := self.told.get(event["item_id"])):
                self._cut(item, event["transcript"])

    def _cut(self, item: Item, heard: str) -> None:
        """An answer was truncated; it may have ended, and be whole in the draft again, since that was asked for."""
        self.told.replace(cut(item, heard))
        draft = self.draft.get(item.id)
        if draft is not None and len(heard) < len(draft.text):
            self.draft.replace(cut(draft, heard))

    def begin(self, item: Item, follows: Sequence[str]) -> tuple[str | None, list[str]]:
        """An answer begins after the last that is left of `follows`; returns what is before it, and what had to go."""
        previous = self.told.insert(item, after=_last(follows, self.told))
        self.draft.insert(item, after=_last(follows, self.draft))
        return previous, self._bounded(item)

    def append(self, item: Item) -> tuple[str | None, list[str]]:
        """Something was said; returns what is before it, and what had to go."""
        previous = self.told.insert(item, after=None)
        self.draft.insert(item, after=None)
        return previous, self._bounded(item)

    def finish(self, item: Item) -> list[str]:
        """An answer has ended, or what was said is known, and is `item`; returns what had to go for it."""
        self.told.replace(item)
        self.draft.replace(item)
        return self._bounded(item)

    def _bounded(self, item: Item) -> list[str]:
        gone = self.told.bound(keep=item.id)
        for item_id in gone:
            self.draft.delete(item_id)
        return gone


def _last(follows: Sequence[str], conversation: Conversation) -> str:
    return next((item for item in reversed(follows) if item in conversation), ROOT)
