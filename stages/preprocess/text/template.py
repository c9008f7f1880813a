"""A conversation as token ids, through the model's own chat template.

What people wrote never becomes a control token, whatever they wrote: a `<|end|>` in a message is spelt out in ordinary
tokens. Without that, a message could close itself and speak as the system.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import InvalidParameter
from pipeline.messages import Role, Utterance
from stages.controls import controls, spelt_out

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FALLBACK = (
    "{{ bos_token if bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ m.content }}\n\n"
    "{% elif m.role == 'user' %}User: {{ m.content }}\n"
    "{% else %}Assistant: {{ m.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For a tokenizer without a template: the system prompt, a blank line, then `User: …` and `Assistant: …` by turns."""

_MARK = re.compile("\ue000([0-9]+)\ue001")


class ChatTemplate:
    """Encode conversations for the model of `tokenizer`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer: Any = tokenizer
        self._template = None if tokenizer.chat_template else FALLBACK
        self._controls = controls(tokenizer)
        self._control_ids = frozenset(self._controls.values())
        self._control = spelt_out(self._controls)
        self._plain = _plain_encoder(tokenizer)
        self._folds_system = not self._takes("system", "user")
        self._takes_system_alone = self._takes("system")
        self._takes_system_late = self._takes("system", "user", "assistant", "system")

    def encode(self, conversation: Sequence[Utterance]) -> list[int]:
        """The ids of `conversation`, ready for the answer.

        Where the system has the last word and the template knows no such thing, the user says it.

        Raises:
            InvalidParameter: the template refuses the order of the messages.
        """
        if conversation[-1].role == "system" and not (
            self._takes_system_late if len(conversation) > 1 else self._takes_system_alone
        ):
            conversation = [*conversation[:-1], Utterance("user", conversation[-1].text)]
        if self._folds_system:
            conversation = _fold_system(conversation)
        texts = [utterance.text for utterance in conversation]
        if any(self._control.search(text) for text in texts):
            return self._encode_apart(conversation)
        rendered = self._render(conversation, texts)
        ids = encode(self._tokenizer, rendered)
        expected = sum(1 for _ in self._control.finditer(rendered))
        if sum(1 for token in ids if token in self._control_ids) != expected:
            return self._encode_apart(conversation)
        return ids

    def _encode_apart(self, conversation: Sequence[Utterance]) -> list[int]:
        """Like `encode`, but for its control tokens the template's, and the text between them is spelt out."""
        rendered = self._render(conversation, [f"\ue000{n}\ue001" for n in range(len(conversation))])
        ids: list[int] = []
        at = 0
        for control in self._control.finditer(rendered):
            ids += self._spell_out(rendered[at : control.start()], conversation)
            ids.append(self._controls[control.group()])
            at = control.end()
        return ids + self._spell_out(rendered[at:], conversation)

    def _spell_out(self, text: str, conversation: Sequence[Utterance]) -> list[int]:
        text = _MARK.sub(lambda mark: conversation[int(mark.group(1))].text, text)
        return [token for token in self._plain(text) if token not in self._control_ids] if text else []

    def _render(self, conversation: Sequence[Utterance], texts: Sequence[str]) -> str:
        from jinja2 import TemplateError

        messages = [
            {"role": utterance.role, "content": text} for utterance, text in zip(conversation, texts, strict=True)
        ]
        try:
            rendered = self._tokenizer.apply_chat_template(
                messages, chat_template=self._template, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise InvalidParameter("conversation", f"the model's chat template refuses it: {error}") from error
        return str(rendered)

    def _takes(self, *roles: Role) -> bool:
        """Whether the template lets messages of these sides stand, in this order."""
        marks = [f"\ue000{number}\ue001" for number in range(len(roles))]
        try:
            rendered = self._render([Utterance(role, "") for role in roles], marks)
        except InvalidParameter:
            return False
        return [f"\ue000{number}\ue001" for number in _MARK.findall(rendered)] == marks


def encode(tokenizer: Any, text: str) -> list[int]:
    """The ids of `text`, control tokens read as such, nothing added."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return list(tokenizer.encode(text, add_special_tokens=False))
    ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    return ids


def _plain_encoder(tokenizer: Any) -> Any:
    """A function from text to ids that reads no control tokens; the tokenizer itself keeps its settings."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return lambda text: tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    copy: list[Any] = []

    def plain(text: str) -> list[int]:
        if not copy:  # made when the first such message comes: a large vocabulary takes a second
            own = type(backend).from_str(backend.to_str())
            own.encode_special_tokens = True
            copy.append(own)
        ids: list[int] = copy[0].encode(text, add_special_tokens=False).ids
        return ids

    return plain


def _fold_system(conversation: Sequence[Utterance]) -> list[Utterance]:
    """For a template without a system role: the system prompt stands at the head of the first user message."""
    if not conversation or conversation[0].role != "system":
        return list(conversation)
    system, *rest = conversation
    if not rest or rest[0].role != "user":
        return [Utterance("user", system.text), *rest]
    return [Utterance("user", f"{system.text}\n\n{rest[0].text}"), *rest[1:]]
