"""A column that a person names for a role plays it, whatever else it is; views are read as plain text."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finepref.arena.whole import ArenaRequest, run_arena
from finepref.formats.preferences import read_preferences
from finepref.formats.ratings import read_ratings
from finepref.formats.votefiles import read_votes

VOTES = {"left": ["a", "b", "c"] * 40, "right": ["b", "c", "a"] * 40, "winner": ["left", "right", "left"] * 40}


@pytest.mark.parametrize("column", ["pair_id", "prompt", "model_0"])
def test_a_column_that_has_a_role_already(tmp_path: Path, column: str) -> None:
    rows = [
        {"pair_id": f"p{n}", "prompt": f"x{n % 3}", "image_0": f"{n}.png", "image_1": f"{n + 1}.png", "label": 1,
         "model_0": "a", "model_1": "b", "voter": "v"}
        for n in range(6)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "v.parquet")
    read = [*read_preferences(tmp_path / "v.parquet", columns={"voter": column}, images=False)]
    assert [each.voter for each in read] == [row[column] for row in rows]
    assert [(each.pair_id, each.prompt) for each in read] == [(row["pair_id"], row["prompt"]) for row in rows]
    table = read_votes(tmp_path / "v.parquet", columns={"voter": column}).votes
    assert table.voters == tuple(dict.fromkeys(row[column] for row in rows))


def test_views_are_text(tmp_path: Path) -> None:
    found = []
    for name, kind in (("plain", pa.string()), ("views", pa.string_view())):
        table = pa.table({column: pa.array(cells).cast(kind) for column, cells in VOTES.items()})
        pq.write_table(table, tmp_path / f"{name}.parquet")
        run_arena([tmp_path / f"{name}.parquet"], tmp_path / name, ArenaRequest())
        found.append(read_ratings(tmp_path / name))
    assert found[0].models == found[1].models
