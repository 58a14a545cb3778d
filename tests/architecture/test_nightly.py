"""What is left to the nightly run is there, and no test is named that is not."""

from __future__ import annotations

import re
from pathlib import Path

from nightly import LONG

ROOT = Path(__file__).resolve().parents[2]


def test_every_long_test_is_one() -> None:
    for name in LONG:
        place, _, test = name.partition("::")
        assert re.search(rf"^def {test.partition('[')[0]}", (ROOT / place).read_text(), re.MULTILINE), name
