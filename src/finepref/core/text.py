"""Text as people typed it, made fit to be shown."""

from __future__ import annotations

import re

_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def visible(text: str) -> str:
    r"""The text in one line, with control and bidi characters as escapes: ESC is `\x1b`, a line break `\n`.

    Halves of characters (lone surrogates, as in file names that are not utf-8) are escaped too, so that every stream
    can write it.
    """
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
