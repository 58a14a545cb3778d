"""An option of one value that is given twice is refused on every command; one that is repeatable is not."""

from __future__ import annotations

import pytest

from finepref.cli.main import build
from finepref.cli.repeats import refuse_repeats
from finepref.core.errors import InputError


@pytest.mark.parametrize(
    "words",
    [
        "signals v.csv --kind fused --rewards a --rewards b --out o", "arena v.csv --out a --out=b",
        "compare d --baseline a --baseline b", "lab study -c a --config b", "train -c a --out x --out y",
        "export r --format merged --format kohya --out o", "lab votes --seed 1 --seed 2",
    ],
)  # fmt: skip
def test_twice(words: str) -> None:
    with pytest.raises(InputError, match="it is given twice, and takes one value"):
        refuse_repeats(build(), words.split())


@pytest.mark.parametrize(
    "words",
    [
        "signals v.csv --kind fused --kind smoothed --out o", "train -c a -c b --out o", "demo --quick --quick",
        "generate --model a=b --model c=d --out o", "arena v.csv -- --out --out", "train -c a t.s=1 t.s=2",
    ],
)  # fmt: skip
def test_once(words: str) -> None:
    refuse_repeats(build(), words.split())
