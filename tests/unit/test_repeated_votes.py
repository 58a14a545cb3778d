"""Equal votes read as one row with a count: the same arena as vote by vote, in the memory of a few rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finepref import Votes
from finepref.arena import engines, whole
from finepref.arena.orders import MOST_VOTES, order_sensitivity
from finepref.arena.settings import RatingOptions
from finepref.arena.whole import ArenaRequest, run_arena
from finepref.core.errors import InputError
from finepref.core.rng import numpy_generator
from finepref.formats import repeated, tables
from finepref.formats.reading import AS_IT_IS
from finepref.formats.repeated import once
from finepref.formats.tables import Batch
from finepref.formats.votefiles import read_as

N = 3000
WORDS = ["left", "right", "tie", "both_bad", "model_a", "B"]


def columns(n: int = N) -> dict[str, Any]:
    chance = numpy_generator(0, "repeated", n)
    names = np.array(["sd15", "sdxl", " sd15", "flux", "pixart"])
    left, right = names[chance.integers(0, 5, n)], names[chance.integers(0, 5, n)]
    return {"left": left, "right": right, "winner": np.array(WORDS)[chance.integers(0, len(WORDS), n)]}


def write(path: Path, held: dict[str, Any]) -> Path:
    pq.write_table(pa.table(held), path, row_group_size=500)
    return path


def both(tmp_path: Path, held: dict[str, Any], **asked: Any) -> tuple[Path, Path]:
    """The arena of these votes, and that of the same ones with a number each, which are read one by one."""
    found = []
    for name, more in (("once", {}), ("each", {"vote_id": [f"v{row}" for row in range(len(held["left"]))]})):
        out = tmp_path / name
        run_arena([write(tmp_path / f"{name}.parquet", {**held, **more})], out, ArenaRequest(**asked))
        found.append(out)
    return found[0], found[1]


def rated(folder: Path) -> dict[str, Any]:
    held = json.loads((folder / "ratings.json").read_text())
    for name in ("provenance", "counted", "votes"):
        held.pop(name, None)
    return held


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PARQUET_ROWS", 700)
    monkeypatch.setattr(repeated, "MANY", 60)
    monkeypatch.setattr(repeated, "FEWEST", 64)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("asked", [
    {}, {"passes": 2}, {"preset": "appendix_a"}, {"ties": "half", "passes": 3}, {"skip_bad_rows": True},
    {"merge": ("flux=sdxl",)},
])  # fmt: skip
def test_online_votes_are_read_again_and_not_held(
    tmp_path: Path, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The online engine takes the votes from the file: bit for bit what it makes of votes in memory."""
    seen: list[int] = []

    def read(*given: Any, **told: Any) -> Any:
        table = read_as(*given, **told)
        seen.append(len(table.votes))
        return table

    monkeypatch.setattr(whole, "read_as", read)
    monkeypatch.setattr(engines, "CHUNK", 611)
    held = columns()
    if "skip_bad_rows" in asked:
        held["left"][[5, 1234, 2999]] = ""
    of_arena = {name: asked[name] for name in ("skip_bad_rows", "merge") if name in asked}
    rating = {name: value for name, value in asked.items() if name not in of_arena}
    found, expected = both(tmp_path, held, rating=RatingOptions(engine="online", **rating), **of_arena)
    assert rated(found) == rated(expected)
    assert seen[0] <= 4 * 4 * 4
    assert seen[1] > 2900


@pytest.mark.usefixtures("small")
def test_a_shuffled_order_needs_the_votes(tmp_path: Path) -> None:
    """It is that of the rows, whether they have names or not."""
    found, expected = both(tmp_path, columns(), rating=RatingOptions(engine="online", order="shuffled", seed=3))
    assert rated(found) == rated(expected)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("asked", [{}, {"normalise": "mean"}, {"merge": ("flux=sdxl",)}, {"skip_bad_rows": True}])
def test_the_arena_is_that_of_the_votes_one_by_one(tmp_path: Path, asked: dict[str, Any]) -> None:
    held = columns()
    if "skip_bad_rows" in asked:
        held["left"][[5, 1234, 2999]] = ""
    found, expected = both(tmp_path, held, **asked)
    assert rated(found) == rated(expected)
    assert (found / "leaderboard.csv").read_text() == (expected / "leaderboard.csv").read_text()
    ours, theirs = (pq.read_table(folder / "gaps.parquet") for folder in (found, expected))
    assert set(theirs.schema.names) - set(ours.schema.names) == {"vote_id"}
    for name in ours.schema.names:
        np.testing.assert_allclose(ours[name].to_numpy(), theirs[name].to_numpy(), rtol=1e-12)
    if "skip_bad_rows" in asked:
        told = [
            [line for line in (folder / "quarantine.jsonl").read_text().splitlines()] for folder in (found, expected)
        ]
        places = [[json.loads(line)["where"].split(".parquet")[1] for line in lines] for lines in told]
        assert places[0] == places[1] == [": row 5", ": row 1234", ": row 2999"]


@pytest.mark.usefixtures("small")
def test_few_rows_are_held(tmp_path: Path) -> None:
    path = write(tmp_path / "votes.parquet", columns())
    table = read_as([path], AS_IT_IS, repeated=True)
    assert table.votes.total == N
    assert len(table.votes) <= 4 * 4 * 4
    assert len(table.row) == 0
    again = read_as([path], AS_IT_IS)
    assert again.votes.repeats is None
    assert len(again.votes) == N
    assert table.sources == again.sources
    assert table.outcome_words == again.outcome_words


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("column", ["left", "winner"])
def test_a_bad_row_is_named_where_it_stands(tmp_path: Path, column: str) -> None:
    held = columns()
    held[column] = held[column].astype(object)
    held[column][2222] = "" if column == "left" else "perhaps"
    with pytest.raises(InputError, match=r"row 2222"):
        run_arena([write(tmp_path / "votes.parquet", held)], tmp_path / "out", ArenaRequest())
    assert not (tmp_path / "out").exists()


def test_text_and_several_files(tmp_path: Path) -> None:
    held = columns(400)
    rows = [",".join(row) for row in zip(held["left"], held["right"], held["winner"], strict=True)]
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("\n".join(["left,right,winner", *rows[:150]]) + "\n")
    second.write_text("\n".join(["left,right,winner", *rows[150:]]) + "\n")
    run_arena([first, second], tmp_path / "text", ArenaRequest())
    run_arena([write(tmp_path / "whole.parquet", held)], tmp_path / "whole", ArenaRequest())
    assert rated(tmp_path / "text")["models"] == rated(tmp_path / "whole")["models"]
    ours, theirs = (pq.read_table(tmp_path / name / "gaps.parquet") for name in ("text", "whole"))
    for name in theirs.schema.names:
        np.testing.assert_allclose(ours[name].to_numpy(), theirs[name].to_numpy(), rtol=1e-12)


def test_what_needs_every_vote_reads_every_vote(tmp_path: Path) -> None:
    path = write(tmp_path / "votes.parquet", columns(300))
    for number, rating in enumerate(
        (RatingOptions(engine="online", order="shuffled"), RatingOptions(interval="bootstrap"))
    ):
        run_arena([path], tmp_path / str(number), ArenaRequest(rating=rating))
        assert pq.read_metadata(tmp_path / str(number) / "gaps.parquet").num_rows == 300


def test_gaps_can_be_left_out_and_made_later(tmp_path: Path) -> None:
    path, out = write(tmp_path / "votes.parquet", columns(300)), tmp_path / "out"
    run_arena([path], out, ArenaRequest(gaps=False))
    assert not (out / "gaps.parquet").exists()
    assert run_arena([path], out, ArenaRequest(gaps=False)) is None
    run_arena([path], out, ArenaRequest())
    assert pq.read_metadata(out / "gaps.parquet").num_rows == 300


def test_a_file_that_changes_between_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "votes.parquet", columns(300))
    examine = whole.examine

    def changed(*given: Any, **more: Any) -> Any:
        held = columns(300)
        held["left"][7] = "newcomer"
        write(path, held)
        return examine(*given, **more)

    monkeypatch.setattr(whole, "examine", changed)
    with pytest.raises(InputError, match="changed while it was read"):
        run_arena([path], tmp_path / "out", ArenaRequest())
    assert not (tmp_path / "out").exists()


cells = st.one_of(st.none(), st.sampled_from(["a", "b", "left", "", "1"]))


@given(rows=st.lists(st.tuples(cells, cells, st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0]))), min_size=1))
def test_every_row_can_be_had_back(rows: list[tuple[Any, ...]]) -> None:
    names = ["left", "right", "winner"]
    kinds = [pa.string(), pa.string(), pa.float64()]
    arrays = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
    batch = pa.RecordBatch.from_arrays(arrays, names=names)
    at = np.arange(len(rows))
    found = once(Batch(batch, at, at, len(rows)))
    assert found.batch.columns.take(pa.array(found.became)).to_pylist() == batch.to_pylist()
    assert found.batch.repeats is not None
    np.testing.assert_array_equal(found.batch.repeats, np.bincount(found.became))
    assert len(found.batch.at) == len({tuple(row) for row in rows})


@pytest.mark.parametrize("many", [4, 10**4, 10**10])
def test_order_is_looked_at_whatever_the_number(many: int) -> None:
    plain = Votes.from_columns(
        left=["a", "a", "b", "a"], right=["b", "c", "c", "b"], outcome=["left", "tie", "left", "right"]
    )
    found = order_sensitivity(replace(plain, repeats=np.full(4, many)), shuffles=2)
    assert found is not None
    assert found.votes == min(4 * many, MOST_VOTES)
