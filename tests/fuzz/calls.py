"""Kinds of input that a person hands to the Python interface: columns, rows in memory, files."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fuzz.damage import STRANGE, any_json
from fuzz.preferences import picture
from fuzz.running import Command, Done, Failure, Step
from fuzz.votes import HOSTILE, MISSING, Ballot, Truth, ballots, votes

Draw = random.Random
SIMPLE = (*STRANGE[:17], *MISSING, *HOSTILE, "left", "tie")


def python_calls(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """One call, whose arguments are right, or nearly."""
    return draw.choice((_columns, _columns, _rows, _rows, _file))(draw, folder)


def _step(name: str, call: Callable[[], object], check: Callable[[Done], list[Failure]] | None = None) -> list[Step]:
    return [Step(Command(("python", name), call=call), check)]


def _columns(draw: Draw, folder: Path) -> list[Step]:
    import finepref as fp

    drawn = ballots(draw, plain=True)
    words = draw.choice((("left", "right", "tie"), ("Left", "RIGHT", "draw"), ("model_a", "model_b", "both")))
    columns: dict[str, list[Any]] = {
        "left": [vote.left for vote in drawn],
        "right": [vote.right for vote in drawn],
        "outcome": [{1: words[0], -1: words[1], 0: words[2]}[vote.outcome] for vote in drawn],
    }
    if draw.random() < 0.5:
        columns["voter"] = [vote.voter for vote in drawn]
    spoilt = draw.random() < 0.6
    if spoilt:
        values = columns[draw.choice(sorted(columns))]
        if draw.random() < 0.2:
            values.pop()
        else:
            values[draw.randrange(len(values))] = draw.choice(SIMPLE)
    truth = Truth(rows=len(drawn))
    for vote in drawn:
        truth.add(vote)
    held: dict[str, Any] = {}

    def call() -> None:
        given = fp.Votes.from_columns(**columns)
        held["votes"] = given
        held["ratings"] = fp.rate(given, engine=draw.choice(("batch", "online")))

    return _step("fp.Votes.from_columns", call, None if spoilt else lambda done: _same(held["votes"], drawn))


def _same(given: Any, drawn: Sequence[Ballot]) -> list[Failure]:
    """Whether the votes are those that were drawn, in order."""
    names = given.models
    found = [(names[a], names[b], int(o)) for a, b, o in zip(given.left, given.right, given.outcome, strict=True)]
    right = [(vote.left, vote.right, vote.outcome) for vote in drawn]
    return [] if found == right else [Failure("wrong", f"the votes are {found[:4]} instead of {right[:4]}")]


def _rows(draw: Draw, folder: Path) -> list[Step]:
    import finepref as fp

    (folder / "a.png").write_bytes(picture(1))
    sides = draw.choice((("chosen", "rejected"), ("path1", "path2"), ("image_0", "image_1")))
    rows: list[Any] = []
    for number in range(draw.randint(1, 5)):
        row: dict[str, Any] = {
            "prompt": "a cat",
            sides[0]: picture(number),
            sides[1]: {"bytes": picture(9), "path": None},
        }
        if sides[0] == "image_0":
            row["label"] = draw.choice((1.0, 0.0, 0.5, None))
        rows.append(row)
    spoilt = draw.random() < 0.6
    if spoilt:
        rows = any_json(draw, rows)
    held: list[Any] = []

    def call() -> None:
        pairs = fp.read_preferences(rows)
        held.extend(pairs)
        fp.make_signals(pairs, kind="uniform")

    def check(done: Done) -> list[Failure]:
        kept = [row for row in rows if row.get("label", 1.0) is not None or sides[0] != "image_0"]
        if len(held) in (len(rows), len(kept)):
            return []
        return [Failure("lost", f"{len(held)} of {len(rows)} rows in memory are pairs")]

    return _step("fp.read_preferences", call, None if spoilt else check)


def _file(draw: Draw, folder: Path) -> list[Step]:
    import finepref as fp

    given = votes(draw)
    path = folder / given.saved.name
    path.write_bytes(given.saved.content)
    return _step("fp.read_votes", lambda: fp.rate(fp.read_votes(path)))
