"""A prompt's token ids as text, for a server that tokenises it again with the same model's tokenizer.

What matters is that the same ids come out there: control tokens as they are spelt, the blanks that SentencePiece would
put in once more left out, the beginning-of-text token left out where the server puts it in, and what people wrote never
read as a control token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from stages.controls import controls, spelt_out
from stages.detokenize import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

APART = "\u200b"
"""Zero width: breaks what only looks like a control token. The text stage takes it out of what people write."""

_SAMPLE = "Hello"


class PromptText:
    """Spells prompts out for servers that use the same tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._controls = {token: spelling for spelling, token in controls(tokenizer).items()}
        self._control = spelt_out(self._controls.values())
        self._head = _head(tokenizer)
        control = next(iter(self._controls.values()), "")
        self._blank_at_start = self._begins_blank(_plain(tokenizer, _SAMPLE))
        self._blank_after_control = self._begins_blank(_plain(tokenizer, control + _SAMPLE)[bool(control) :])

    def spell(self, ids: Sequence[int], answer: str = "", *, headed: bool) -> str:
        """The text of `ids`, and of what was answered so far; `headed`: the server puts the first token in itself."""
        head = self._head if headed and tuple(ids[: len(self._head)]) == self._head else ()
        parts: list[str] = []
        blank = self._blank_at_start
        for control, run in groupby(ids[len(head) :], self._controls.__contains__):
            if control:
                parts += [self._controls[token] for token in run]
            else:
                data = b"".join(map(self._vocabulary.bytes_of, run))
                parts.append(self._defused(data.removeprefix(b" ") if blank else data))
            blank = self._blank_after_control
        return "".join(parts) + self._control.sub(_broken, answer)

    def _defused(self, data: bytes) -> str:
        return self._control.sub(_broken, data.decode(errors="replace"))

    def _begins_blank(self, ids: Sequence[int]) -> bool:
        return self._vocabulary.bytes_of(ids[0]).startswith(b" ") if ids else False


def _broken(control: re.Match[str]) -> str:
    return control[0][:1] + APART + control[0][1:]


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def _head(tokenizer: Any) -> tuple[int, ...]:
    """The tokens that the tokenizer puts before every text: the beginning-of-text token, or none."""
    whole, plain = list(tokenizer.encode(_SAMPLE, add_special_tokens=True)), _plain(tokenizer, _SAMPLE)
    places = (at for at in range(len(whole)) if whole[at : at + len(plain)] == plain)
    return tuple(whole[: next(places, 0)])
