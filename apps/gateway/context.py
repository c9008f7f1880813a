"""What one response is made from: the words that the model is told, checked."""

from __future__ import annotations

from apps.gateway import commands as c
from apps.gateway.config import SessionConfig
from apps.gateway.conversation import Conversation
from apps.gateway.items import Item, accepted
from apps.gateway.refusal import Refusal
from apps.gateway.settings import GatewaySettings
from pipeline.messages import Utterance

MOST_PAIRS, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512


def context(
    config: SessionConfig, conversation: Conversation, settings: GatewaySettings, options: c.ResponseOptions
) -> tuple[Utterance, ...]:
    """What the model is told: the system prompt, then the conversation or what the client put in its place.

    Where the last word is not the user's, the response's own instructions are what is to be answered: that is how
    clients let an assistant speak first.

    Raises:
        Refusal: what the client put there cannot be taken.
    """
    said = conversation.utterances()
    if options.input is not None:
        said = _given(options.input, conversation, settings)
    own = options.instructions
    if isinstance(own, str) and own.strip() and (not said or said[-1].role != "user"):
        return _system(config, None) + said + (Utterance("user", own),)
    return _system(config, options) + said


def check_metadata(metadata: dict[str, str] | None) -> None:
    """See that a response's metadata is no larger than the protocol has it.

    Raises:
        Refusal: it is.
    """
    pairs = metadata or {}
    fits = len(pairs) <= MOST_PAIRS and all(
        len(key) <= LONGEST_KEY and len(value) <= LONGEST_VALUE for key, value in pairs.items()
    )
    if not fits:
        why = f"metadata has at most {MOST_PAIRS} pairs of {LONGEST_KEY} and {LONGEST_VALUE} characters"
        raise Refusal("invalid_value", why, param="response.metadata")


def _system(config: SessionConfig, options: c.ResponseOptions | None) -> tuple[Utterance, ...]:
    instructions = config.instructions(options)
    return (Utterance("system", instructions),) if instructions.strip() else ()


def _given(
    given: list[c.NewItem | c.ReferenceItem], conversation: Conversation, settings: GatewaySettings
) -> tuple[Utterance, ...]:
    most = settings.max_text_bytes
    items = [_item(item, conversation, f"response.input[{n}]", most) for n, item in enumerate(given)]
    if (size := sum(item.size for item in items)) > settings.max_conversation_bytes:
        why = f"the input has {size} bytes; at most {settings.max_conversation_bytes} are taken"
        raise Refusal("string_above_max_length", why, param="response.input")
    return tuple(item.utterance for item in items if item.text)


def _item(item: c.NewItem | c.ReferenceItem, conversation: Conversation, where: str, max_text: int) -> Item:
    if not isinstance(item, c.ReferenceItem):
        return accepted(item, max_text=max_text, where=where)
    if (known := conversation.get(item.id)) is None:
        raise Refusal("invalid_value", f"there is no item {item.id!r}", param=f"{where}.id")
    return known
