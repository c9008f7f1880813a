"""Changing a conversation as a client asks: each change is checked, made, and returned as what the client is told."""

from __future__ import annotations

from collections.abc import Collection

from apps.gateway import commands as c
from apps.gateway import events
from apps.gateway.conversation import ROOT, Conversation
from apps.gateway.events import Event
from apps.gateway.items import Item, accepted
from apps.gateway.refusal import Refusal


def create(
    conversation: Conversation, command: c.ItemCreate, coming: Collection[str], *, max_text: int, hears: bool = False
) -> tuple[Event, ...]:
    """Add an item; `coming` are the ids of those that answers will have. Where somebody `hears`, it may have audio.

    Raises:
        Refusal: it cannot be added.
    """
    item = accepted(command.item, max_text=max_text, hears=hears)
    if item.id == ROOT:
        raise Refusal("invalid_value", f"{ROOT!r} stands for the conversation's beginning", param="item.id")
    if item.id in conversation or item.id in coming:
        raise Refusal("item_create_duplicate_item_id", f"there is an item {item.id!r} already", param="item.id")
    after = command.previous_item_id
    if after not in (None, ROOT) and after not in conversation:
        why = f"there is no item {after!r} to add it after"
        raise Refusal("item_create_invalid_previous_item_id", why, param="previous_item_id")
    previous = conversation.insert(item, after=after)
    return (
        events.item_event("conversation.item.added", item.view, previous),
        events.item_event("conversation.item.done", item.view, previous),
        *map(events.deleted, conversation.bound(keep=item.id)),
    )


def delete(conversation: Conversation, command: c.ItemDelete) -> Event:
    """Take an item away.

    Raises:
        Refusal: it is not there.
    """
    known(conversation, command.item_id, "delete")
    conversation.delete(command.item_id)
    return events.deleted(command.item_id)


def known(conversation: Conversation, item_id: str, verb: str) -> Item:
    """The item with this id, which the client wants to `verb`.

    Raises:
        Refusal: there is none.
    """
    if (item := conversation.get(item_id)) is None:
        raise Refusal(f"item_{verb}_invalid_item_id", f"there is no item {item_id!r}", param="item_id")
    return item
