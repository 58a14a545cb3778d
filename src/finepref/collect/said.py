"""What an answer compares, looked up: most answers are one of a few texts."""

from __future__ import annotations

import json
from functools import lru_cache

from finepref.formats.collection import SKIP, Mode, compared


@lru_cache(maxsize=4096)
def comparisons(mode: Mode, text: str, size: int) -> tuple[tuple[int, int, float], ...]:
    """(position, position, share of the first) of every two pictures that an answer compares; none of a skipped set.

    Args:
        text: the answer as it is kept. size: pictures of the set.
    """
    said = json.loads(text)
    return () if said == SKIP else (*compared(mode, said, size),)
