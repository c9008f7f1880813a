"""A conversation taken apart: the system prompt, what the system said later on, and the talk. Knows no tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pipeline.errors import EmptyTurn
from pipeline.messages import Utterance
from stages.preprocess.text.clean import clean


class Note(NamedTuple):
    """Something that the system said in the course of a conversation.

    `late`: nobody has said anything since, so it may be what is to be answered.
    """

    text: str
    late: bool


class Said(NamedTuple):
    """A conversation, oldest first, cleaned, without what is blank; `orders` are the system prompt, if there is one."""

    orders: str | None
    notes: tuple[Note, ...]
    talk: tuple[Utterance, ...]

    @property
    def asked(self) -> bool:
        """Whether the last word is the user's."""
        return bool(self.talk) and self.talk[-1].role == "user"

    @property
    def wanted(self) -> int:
        """How many of the newest notes must be kept: the last one, if it is to be answered."""
        return 1 if self.notes and self.notes[-1].late and not self.asked else 0

    def messages(self, notes: Sequence[Note], talk: Sequence[Utterance]) -> list[Utterance]:
        """The messages for a template, with those of `notes` and the part of `talk` that are kept.

        Most templates want one message of the system's, at the head, so its notes go there; but where the last word is
        not the user's, those that came after it stay behind it: they are what the model is to act on.
        """
        apart = bool(talk) and not self.asked
        head = [self.orders] if self.orders is not None else []
        head += [note.text for note in notes if not (apart and note.late)]
        tail = [note.text for note in notes if apart and note.late]
        return [*_system(head), *_merged(talk), *_system(tail)]


def read(conversation: Sequence[Utterance], default: str | None) -> Said:
    """Take `conversation` apart: a system message at its head is the system prompt; one without any has `default`.

    Raises:
        EmptyTurn: it says nothing, or the user's last word is blank.
    """
    said = [Utterance(u.role, text) for u in conversation if (text := _clean(u)).strip()]
    talk = tuple(u for u in said if u.role != "system")
    if not said or (conversation[-1].role == "user" and not (talk and talk[-1].role == "user")):
        raise EmptyTurn
    orders = said.pop(0).text if said[0].role == "system" else None
    if orders is None and all(u.role != "system" for u in said):
        orders = default
    last = max((n for n, utterance in enumerate(said) if utterance.role != "system"), default=-1)
    notes = tuple(Note(u.text, n > last) for n, u in enumerate(said) if u.role == "system")
    return Said(orders, notes, talk)


def _clean(utterance: Utterance) -> str:
    """What was said, cleaned; blanks around an answer stay, since the model wrote them."""
    text = clean(utterance.text)
    return text if utterance.role == "assistant" else text.strip()


def _system(texts: Iterable[str]) -> list[Utterance]:
    """The system's texts as one message, or none."""
    text = "\n\n".join(texts)
    return [Utterance("system", text)] if text else []


def _merged(talk: Sequence[Utterance]) -> list[Utterance]:
    """Messages of one side in a row as one message: most templates want the sides to take turns."""
    merged: list[Utterance] = []
    for utterance in talk:
        if merged and merged[-1].role == utterance.role:
            merged[-1] = Utterance(utterance.role, f"{merged[-1].text}\n{utterance.text}")
        else:
            merged.append(utterance)
    return merged
