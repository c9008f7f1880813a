"""Clean text of what nobody typed on purpose: broken Unicode and invisible characters. Knows no model."""

from __future__ import annotations

import re
import unicodedata

_RUBBISH = re.compile(
    "["
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # controls, but for tab and the line's end
    "\u00ad\u200b\u2060-\u2064\ufeff"  # soft hyphen, zero-width blanks and joiners without effect, byte order mark
    "\u202a-\u202e\u2066-\u206f"  # overrides of the writing direction
    "\ufff9-\ufffc"  # annotation anchors, object replacement
    "\ud800-\udfff"  # lone surrogates
    "\ufdd0-\ufdef\ufffe\uffff"  # no characters at all
    "]"
    # Invisible tags carry hidden instructions; a flag (England's, say) is spelt with them.
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0001-\U000e007f]+"
)
_LINE_END = re.compile("\r\n?|[\x85\u2028\u2029]")


def clean(text: str) -> str:
    """`text` in NFC, with newlines for line ends, without control and invisible characters.

    What has a use stays: tab, newline, the joiners of emoji and of Indic and Persian script, marks of direction.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _RUBBISH.sub("", _LINE_END.sub("\n", text))
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)
