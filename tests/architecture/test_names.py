"""A name means one thing: no basename twice, no public class name twice."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "finepref"
FILES = sorted(PACKAGE.rglob("*.py"))
# Files that may share a basename (at most five), and classes that mean the same thing in two places.
SAME_FILE = frozenset(
    {"cache.py", "ratings.py", "run.py", "text.py"}
)  # a record in formats/, and the work on it in its room
SAME_CLASS: frozenset[str] = frozenset()


def test_no_basename_twice() -> None:
    """A file's name says which file it is; commands are named after what they run, so `cli/` is left out."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        if path.parent.name != "cli" and not path.name.startswith("__"):
            places[path.name].append(str(path.relative_to(PACKAGE)))
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert len(SAME_FILE) <= 5
    assert set(twice) - SAME_FILE == set(), twice


def test_no_public_class_name_twice() -> None:
    """Two records of one name would be read as one thing."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert set(twice) - SAME_CLASS == set(), twice
