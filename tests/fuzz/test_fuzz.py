"""A small run of scripts/fuzz: nothing that no input may do; and the harness itself sees what it must see."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from fuzz import votes
from fuzz.reading import arena_failures
from fuzz.running import Command, Done, failures, run, snapshot
from fuzz.trial import KINDS, schedule, table, try_all
from fuzz.votes import Ballot, Truth

SEED = 1
DONE = Done(0, "", "", "", 0.0)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # 15 and 45 CPU-seconds; on a busy machine much longer
@pytest.mark.parametrize("inputs", [60, 600])
def test_no_input_does_what_none_may_do(inputs: int) -> None:
    tallies, found = try_all(schedule(inputs, None), seed=SEED)
    listed = [
        f"{each.failure.count}: {each.failure.what} (--only {each.kind!r} --index {each.index})" for each in found
    ]
    assert not found, "\n".join([table(tallies), *listed[:20], f"scripts/fuzz --inputs {inputs} --seed {SEED}"])
    assert set(tallies) == set(KINDS)
    assert sum(tally.fine for tally in tallies.values()) > inputs // 4


def test_the_same_seed_draws_the_same_inputs() -> None:
    drawn = [votes.votes(random.Random("1/votes/7")) for _ in range(2)]
    assert drawn[0].saved == drawn[1].saved
    assert drawn[0].truth == drawn[1].truth


def counted(folder: Path, text: str, *, left_out: str = "") -> list[str]:
    """What is said of an arena whose truth is one vote for a over b, and a row without a vote."""
    truth = Truth(rows=2, void=1)
    truth.add(Ballot("a", "b", 1, "", ""))
    folder.mkdir()
    (folder / "ratings.json").write_text(text)
    (folder / "arena.html").write_text(left_out)
    return [failure.count for failure in arena_failures(folder, DONE, truth)]


def test_wrong_numbers_and_lost_rows_are_seen(tmp_path: Path) -> None:
    def record(*counts: tuple[int, int, int]) -> str:
        keys = ("name", "wins", "losses", "ties")
        rows = [dict(zip(keys, (name, *row), strict=True)) for name, row in zip("ab", counts, strict=True)]
        return json.dumps({"models": rows})

    right = record((1, 0, 0), (0, 1, 0))
    assert counted(tmp_path / "listed", right, left_out="1 rows without a vote") == []
    assert counted(tmp_path / "silent", right) == ["lost"]
    assert counted(tmp_path / "turned", record((0, 1, 0), (1, 0, 0))) == ["wrong"]
    assert counted(tmp_path / "none", record((0, 0, 0), (0, 0, 0))) == ["lost"]


@pytest.mark.parametrize(
    ("done", "count"),
    [
        (Done(2, "", "finepref: v.csv: bad; mend it\n", "", 0.1), None),
        (Done(2, "", "a note\nfinepref: v.csv: bad; mend it\n", "", 0.1), None),
        (Done(2, "", "Usage: finepref arena\n\nError: no such option\n", "", 0.1), None),
        (Done(2, "", "finepref: v.csv: bad\nand more\n", "", 0.1), "sentence"),
        (Done(2, "", "finepref: v.csv: \x1b[31mbad\n", "", 0.1), "sentence"),
        (Done(2, "", "bad\n", "", 0.1), "sentence"),
        (Done(0, "\u202ename\n", "", "", 0.1), "sentence"),
        (Done(None, "", "", "ValueError: x", 0.1), "traceback"),
        (Done(1, "", "Traceback (most recent call last):\n", "", 0.1), "traceback"),
        (Done(None, "", "", "", 0.1, late=True), "slow"),
        (Done(0, "", "", "", 130.0), "slow"),
    ],
)
def test_what_a_command_says_is_judged(done: Done, count: str | None) -> None:
    found = failures(Command(("arena",)), done, {}, {})
    assert [each.count for each in found] == ([] if count is None else [count])


def test_files_of_the_person_are_watched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "old").mkdir()
    before = snapshot(tmp_path)
    (tmp_path / "old" / "result.json").write_text("{}")
    assert failures(Command((), out=("old",)), DONE, before, snapshot(tmp_path)) == []
    assert [f.count for f in failures(Command(()), DONE, before, snapshot(tmp_path))] == ["left over"]
    (tmp_path / "mine.txt").write_text("ours")
    assert [f.count for f in failures(Command((), out=("old",)), DONE, before, snapshot(tmp_path))] == ["changed"]


def test_a_command_runs_as_if_alone(tmp_path: Path) -> None:
    done = run(Command(("arena", "none.csv", "--out", "arena")), tmp_path)
    assert (done.code, done.error) == (2, "")
    assert done.err.startswith("finepref: none.csv: ")
    assert Path.cwd() != tmp_path


def test_a_pipe_that_is_read_is_a_run_without_an_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "votes.csv")
    (tmp_path / "reads.py").write_text("open('votes.csv').read()\n")
    assert not run(Command(("arena", "none.csv")), tmp_path).late
    assert run(Command(("arena", "none.csv", "--plugin", "reads.py")), tmp_path).late
