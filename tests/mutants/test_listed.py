"""The list of mutants fits the tree: each text occurs once, each change is a change, each test exists."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = [
    m for path in sorted(Path(__file__).parent.glob("*.toml")) for m in tomllib.loads(path.read_text())["mutant"]
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m["name"])
def test_mutant_fits(mutant: dict[str, Any]) -> None:
    """`scripts/mutants` can apply it and has a test to run."""
    text = (ROOT / mutant["file"]).read_text(encoding="utf-8")
    assert text.count(mutant["find"]) == 1
    assert mutant["replace"] != mutant["find"]
    assert mutant["hazard"]
    assert mutant["tests"]
    assert all((ROOT / test).exists() for test in mutant["tests"])


def test_names_are_distinct() -> None:
    """A mutant can be run by its name."""
    assert len({m["name"] for m in MUTANTS}) == len(MUTANTS)
