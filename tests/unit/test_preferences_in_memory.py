"""Preferences that are handed over in Python: what no file could hold or be called is read, or one sentence."""

from __future__ import annotations

import pytest

from finepref import read_preferences
from finepref.core.errors import InputError


def test_a_name_that_no_file_can_have() -> None:
    for name in ("x" * 300, f"owner/{'x' * 300}.parquet", "a\0b"):
        with pytest.raises(InputError):
            list(read_preferences([name]))


def test_half_a_character_in_an_images_name() -> None:
    """Its pair has an id like any other, and each pair its own."""
    rows = [{"image_0": f"\ud800{at}.png", "image_1": "b.png", "prompt": "a", "label": 1} for at in range(2)]
    pairs = list(read_preferences(rows))
    assert len({pair.pair_id for pair in pairs}) == 2
