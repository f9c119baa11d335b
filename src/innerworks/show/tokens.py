"""Tokens as one can read them: white space and line breaks made visible, control characters spelled out, long ones cut.

Tokens come from any text and any tokenizer, so nothing of them is trusted to be harmless to a terminal or a page.
"""

import re
import unicodedata

_SHOWN = {" ": "·", "\n": "⏎", "\r": "␍", "\t": "⇥"}
LONGEST = 16  # characters of a token that are shown


def visible(token: str, *, longest: int = LONGEST) -> str:
    r"""Make a token readable on one line.

    >>> visible(" the"), visible("\n           "), visible("")
    ('·the', '⏎·×11', '∅')
    """
    text = "".join(_character(character) for character in token)
    text = re.sub("·{4,}", lambda run: f"·×{len(run[0])}", text) or "∅"
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _character(character: str) -> str:
    if character in _SHOWN:
        return _SHOWN[character]
    invisible = unicodedata.category(character)[0] in "CZ"  # control, format (direction marks), unassigned, odd spaces
    return f"U+{ord(character):04X}" if invisible else character
