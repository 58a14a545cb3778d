"""How many threads the commands of a stage take: their share of the cores, or what the person said."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import pytest

from finepref.align import timed
from finepref.align.starter import Ended, Starter

NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, ("4", "4")),
        ({"OMP_NUM_THREADS": "1"}, ("1", "1")),
        ({"MKL_NUM_THREADS": "3"}, ("4", "3")),
        ({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "2"}, ("1", "2")),
    ],
)
def test_what_a_person_says_stands(
    given: dict[str, str], found: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Mapping[str, str]] = []

    class Noted(Starter):
        def run(self, batch: Sequence[Sequence[str]], variables: Mapping[str, str]) -> list[Ended]:
            seen.append(variables)
            return [Ended(0, 0.0, 0.0)] * len(batch)

    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    timed.run_stage(timed.Stage("x", (("doctor",), ("doctor",))), Noted(), workers=2, number="1/1")
    assert [tuple(how[name] for name in NAMES) for how in seen] == [found]
