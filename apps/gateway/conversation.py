"""The conversation of one session: its items in order, bounded, and what of it the model is told."""

from __future__ import annotations

from collections.abc import Iterator

from apps.gateway.items import Item
from pipeline.messages import Utterance

ROOT = "root"


class Conversation:
    """Items in order.

    Beyond `max_items` or `max_bytes` the oldest exchange goes: what is not the system's, up to the next thing that the
    user said; the system's only where nothing else is left. The newest item always stays.
    """

    def __init__(self, *, max_items: int, max_bytes: int) -> None:
        self._max_items, self._max_bytes = max_items, max_bytes
        self._items: dict[str, Item] = {}
        self._order: list[str] = []
        self._bytes = 0
        self._forgotten: list[str] = []

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
        self._bound(keep=item.id)
        return before

    def replace(self, item: Item) -> None:
        """Put `item` in the place of the one with its id, if that is still there."""
        if (old := self._items.get(item.id)) is not None:
            self._bytes += item.size - old.size
            self._items[item.id] = item
            self._bound(keep=item.id)

    def delete(self, item_id: str) -> None:
        """Take an item away."""
        self._bytes -= self._items.pop(item_id).size
        self._order.remove(item_id)

    def forgotten(self) -> list[str]:
        """The ids of the items that went for want of room, since the last call."""
        gone, self._forgotten = self._forgotten, []
        return gone

    def utterances(self) -> tuple[Utterance, ...]:
        """What the model is told."""
        return tuple(item.utterance for item in self if item.text)

    def _bound(self, *, keep: str) -> None:
        while self._bytes > self._max_bytes or len(self._order) > self._max_items:
            if not (gone := self._oldest(keep)):
                return
            for item_id in gone:
                self.delete(item_id)
            self._forgotten += gone

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
