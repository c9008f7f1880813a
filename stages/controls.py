"""Which tokens steer the model, and how they are spelt: what people write must never become one of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKUP = re.compile(r"<.*>|\[.*\]", re.DOTALL)


def controls(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """These tokens by their spelling: those marked special, and markup among the added ones."""
    return {
        str(added): token
        for token, added in tokenizer.added_tokens_decoder.items()
        if added.special or _MARKUP.fullmatch(str(added))
    }


def spelt_out(spellings: Iterable[str]) -> re.Pattern[str]:
    """What finds any of `spellings` in a text, of several the longest."""
    longest_first = sorted(spellings, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) if longest_first else "(?!)")
