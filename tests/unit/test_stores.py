"""Votes and pairs that are no files of this disk: at an address, in a database, behind a query."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_shared_reading import votes as pair_votes

from finepref.arena.whole import ArenaRequest, run_arena
from finepref.core import rereading
from finepref.core.addresses import Address, address_of
from finepref.core.errors import ConfigError, InputError
from finepref.core.rng import numpy_generator
from finepref.data.convert import convert
from finepref.data.convertedparts import convert_together
from finepref.data.inspect import inspect
from finepref.formats import stretches
from finepref.formats.gaps import GAPS
from finepref.formats.ratings import RATINGS
from finepref.formats.sources import identities, stamp_of
from finepref.formats.votefiles import read_votes

MODELS = ("a", "b", "c", "d", "e")


def ballots(count: int = 900) -> pa.Table:
    """Votes of a few models, some ties."""
    chance = numpy_generator(0, "stores")
    left = chance.integers(0, len(MODELS), count)
    right = (left + chance.integers(1, len(MODELS), count)) % len(MODELS)
    said = np.where(chance.random(count) < 0.1, "tie", np.where(left < right, "left", "right"))
    said = np.where(chance.random(count) < 0.2, "right", said)
    return pa.table({"left": np.take(MODELS, left), "right": np.take(MODELS, right), "winner": said})


@pytest.fixture
def store() -> Iterator[Any]:
    """A store in memory, `memory://`."""
    held = fsspec.filesystem("memory")
    yield held
    held.rm("/", recursive=True)


def put(store: Any, path: str, file: Path) -> None:
    store.pipe(path, file.read_bytes())


@pytest.fixture
def local(tmp_path: Path) -> Path:
    pq.write_table(ballots(), tmp_path / "votes.parquet", row_group_size=200)
    return tmp_path / "votes.parquet"


def board(votes: str | Path, out: Path, **options: Any) -> tuple[dict[str, Any], str]:
    """ratings.json but for where the votes are, and the gaps."""
    assert run_arena([votes], out, ArenaRequest(**options)) is not None
    held = json.loads((out / RATINGS).read_text())
    held["votes"]["sources"] = [{**each, "path": ""} for each in held["votes"]["sources"]]
    return {name: value for name, value in held.items() if name != "provenance"}, repr(
        pq.read_table(out / GAPS).to_pylist()
    )


def inputs_of(out: Path) -> dict[str, str]:
    return dict(json.loads((out / RATINGS).read_text())["provenance"]["inputs"])


def test_votes_at_an_address_are_those_of_the_file(store: Any, local: Path, tmp_path: Path) -> None:
    """A file, a folder and a pattern; as text and as what a path makes of it; what identifies it is said."""
    put(store, "/bucket/all/votes.parquet", local)
    table = pq.read_table(local)
    for number in range(3):
        pq.write_table(table.slice(300 * number, 300), tmp_path / "part.parquet")
        put(store, f"/bucket/parts/v{number}.parquet", tmp_path / "part.parquet")
    store.pipe("/bucket/parts/readme.md", b"votes")
    wanted = board(local, tmp_path / "here")
    for number, name in enumerate(("memory://bucket/all/votes.parquet", Path("memory://bucket/all/votes.parquet"))):
        assert board(name, tmp_path / f"there {number}") == wanted
        ((address, told),) = inputs_of(tmp_path / f"there {number}").items()
        assert address == "memory://bucket/all/votes.parquet"
        assert told.startswith(f"{local.stat().st_size} bytes, ")
    for name in ("memory://bucket/parts", "memory://bucket/parts/v*.parquet"):
        assert board(name, tmp_path / f"parts{len(name)}")[0]["models"] == wanted[0]["models"]
        assert [*inputs_of(tmp_path / f"parts{len(name)}")] == [f"memory://bucket/parts/v{n}.parquet" for n in range(3)]
    assert board("memory://bucket/all/votes.parquet", tmp_path / "online", rating=_online()) == board(
        local, tmp_path / "online here", rating=_online()
    )


def _online() -> Any:
    from finepref.arena.settings import RatingOptions

    return RatingOptions(engine="online")


def test_of_a_folder_at_an_address_the_tables_are_chosen_as_here(
    store: Any, local: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("pairs.parquet", "other.parquet", "below/pairs.parquet", ".hidden.parquet", "notes.csv"):
        put(store, f"/bucket/set/{name}", local)
    found = read_votes("memory://bucket/set")
    assert [each.path for each in found.sources] == ["memory://bucket/set/pairs.parquet"]
    assert "memory://bucket/set: notes.csv not read" in capsys.readouterr().err


def test_another_content_at_the_address_is_another_arena(store: Any, local: Path, tmp_path: Path) -> None:
    address, out = "memory://bucket/votes.parquet", tmp_path / "out"
    put(store, "/bucket/votes.parquet", local)
    board(address, out)
    assert run_arena([address], out, ArenaRequest()) is None
    before = stamp_of(address)
    pq.write_table(ballots(880), local)
    put(store, "/bucket/votes.parquet", local)
    assert stamp_of(address) != before
    with pytest.raises(InputError, match="an arena of other votes"):
        run_arena([address], out, ArenaRequest())


def test_votes_in_a_database_are_those_of_the_file(
    local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the only table; behind a query that joins, sorts and reads files; whatever the types that SQL has."""
    monkeypatch.chdir(tmp_path)
    with duckdb.connect("votes.duckdb") as held:
        held.execute("CREATE TABLE votes AS FROM 'votes.parquet'")
    wanted = board(local, tmp_path / "here")
    assert board("votes.duckdb", tmp_path / "database") == wanted
    (told,) = inputs_of(tmp_path / "database").values()
    assert told.startswith("900 rows, sum of their hashes ")
    (tmp_path / "ask.sql").write_text(
        "-- the votes\nATTACH 'votes.duckdb' AS held (READ_ONLY);\nSELECT * FROM held.votes -- in order"
    )
    assert board("ask.sql", tmp_path / "query") == wanted
    with duckdb.connect("votes.duckdb") as held:
        held.execute("INSERT INTO votes VALUES ('a', 'b', 'left')")
    with pytest.raises(InputError, match="an arena of other votes"):
        run_arena(["ask.sql"], tmp_path / "query", ArenaRequest())
    (tmp_path / "counts.sql").write_text(
        "SELECT \"left\"::ENUM ('a', 'b', 'c', 'd', 'e') AS \"left\", \"right\", winner, sum(1) AS weight "
        "FROM 'votes.parquet' GROUP BY ALL ORDER BY ALL"
    )
    counted = read_votes("counts.sql").votes
    assert counted.weight is not None
    assert counted.weight.sum() == 900
    assert len(counted) < 100


def test_pairs_of_both_are_those_of_the_files(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their pictures as bytes; what lies at an address is dealt out in parts as files are."""
    monkeypatch.setattr(stretches, "LEAST", 4)
    data = pair_votes(tmp_path / "pairs", own=True)
    for file in data.iterdir():
        put(store, f"/bucket/pairs/{file.name}", file)
    with duckdb.connect(str(tmp_path / "pairs.duckdb")) as held:
        held.execute(f"CREATE TABLE pairs AS FROM read_parquet('{data}/*.parquet')")
    wanted = inspect(data, full=True)
    for name in ("memory://bucket/pairs", str(tmp_path / "pairs.duckdb")):
        found = inspect(name, full=True)
        assert (found.labels, found.images, found.repeated) == (wanted.labels, wanted.images, wanted.repeated)
        assert [(each.row, each.reason) for each in found.problems] == [(e.row, e.reason) for e in wanted.problems]
    assert stretches.open_stretches("memory://bucket/pairs").stretches() == stretches.open_stretches(data).stretches()
    convert(data, tmp_path / "here.parquet")
    assert convert_together("memory://bucket/pairs", tmp_path / "there") == (56, 4)
    there = [pq.read_table(file) for file in sorted((tmp_path / "there").glob("*.parquet"))]
    assert pa.concat_tables(there).to_pylist() == pq.read_table(tmp_path / "here.parquet").to_pylist()


def test_what_cannot_be_read_is_one_sentence(store: Any, local: Path, tmp_path: Path) -> None:
    store.pipe("/bucket/votes.csv", b"left,right,winner\na,b,left\n")
    store.pipe("/bucket/broken.parquet", b"PAR1")
    put(store, "/bucket/set/train/v.parquet", local)
    put(store, "/bucket/set/test/v.parquet", local)
    with duckdb.connect(str(tmp_path / "two.duckdb")) as held:
        held.execute("CREATE TABLE a AS SELECT 1 AS x; CREATE TABLE b AS SELECT 1 AS x")
    (tmp_path / "no.duckdb").write_bytes(b"no database")
    (tmp_path / "none.sql").write_text("CREATE TABLE a (x INT)")
    (tmp_path / "wrong.sql").write_text("SELEC 1")
    (tmp_path / "late.sql").write_text(
        "SELECT 'a' AS \"left\", 'b' AS \"right\", error('late') AS winner FROM range(9)"
    )
    for name, said in (
        ("memory://bucket/votes.csv", r"votes\.csv: \.csv is not read at an address"),
        ("memory://bucket/none.parquet", "memory://bucket/none.parquet: no parquet file is there"),
        ("memory://bucket/broken.parquet", "memory://bucket/broken.parquet: not a readable parquet file"),
        ("memory://bucket/set", "it holds several splits: test, train"),
        ("nowhere://bucket/v.parquet", "nowhere://bucket/v.parquet: its store does not hand it out"),
        ("s3://me:secret@bucket/v.parquet", "a password stands in the address"),
        (tmp_path / "two.duckdb", "it holds 2 tables"),
        (tmp_path / "no.duckdb", "DuckDB refuses it"),
        (tmp_path / "none.sql", "its last statement is no SELECT"),
        (tmp_path / "wrong.sql", "DuckDB refuses it"),
        (tmp_path / "late.sql", "DuckDB refuses it"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            read_votes(name)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert len(read_votes("memory://bucket/set", split="train").votes) == 900
    with pytest.raises(InputError, match="it is named twice"):
        read_votes(["memory://bucket/set/train/v.parquet"] * 2)


def test_without_duckdb_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "v.sql").write_text("SELECT 1")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ConfigError, match=r"pip install 'finepref\[duckdb\]'"):
        read_votes(tmp_path / "v.sql")


def test_addresses_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("s3://b/k.parquet", Path("s3://b/k.parquet"), Address("s3://b/k.parquet")):
        assert address_of(name) == "s3://b/k.parquet"
    assert str(Address("s3://b") / "k") == "s3://b/k"
    assert address_of(Path("file:///a/b")) == str(Address("file:///a/b")) == "file:///a/b"
    assert [address_of(name) for name in ("votes.csv", "C:/votes.csv", "owner/name:train", "/a:/b", "s3:")] == [
        None
    ] * 5
    (tmp_path / "odd:" / "x").mkdir(parents=True)
    assert address_of("odd:/x") is None
    assert identities(["owner.csv"]) == {}


@pytest.mark.parametrize(
    "words",
    [
        ("arena", "votes.parquet", "--out", "s3://b/arena"),
        ("signals", "votes.parquet", "--kind", "binary", "--out", "gs://b/signals.parquet"),
        ("score", "pairs", "--scorer", "lab-true", "--out", "s3://b/r.parquet"),
        ("cache", "-c", "lab/dpo", "--out", "s3://b/cache"),
        ("train", "-c", "lab/dpo", "--out=s3://b/run"),
        ("train", "-c", "s3://b/run.yaml"),
        ("generate", "--model", "a=s3://b/model", "--prompts", "p.txt", "--out", "e"),
        ("generate", "--model", "a=m", "--prompts", "s3://b/p.txt", "--out", "e"),
        ("report", "s3://b/arena"),
        ("compare", "s3://b/eval", "--baseline", "a"),
        ("collect", "s3://b/pictures", "--out", "study"),
        ("control-maps", "hf://datasets/o/n/pictures", "--kind", "canny", "--out", "maps"),
        ("data", "convert", "v.parquet", "--parts", "s3://b/pairs"),
        ("export", "s3://b/run", "--format", "kohya", "--out", "x"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_where_a_disk_is_needed_an_address_is_refused(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from finepref.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["finepref", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    (address,) = (word.partition("=")[2] if "=" in word else word for word in words if "://" in word)
    assert f"finepref: {address}: it is an address" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_from_python_nothing_is_written_to_an_address(local: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="s3://b/arena: it is an address"):
        run_arena([local], "s3://b/arena", ArenaRequest())


def test_rows_that_change_between_readings_are_refused(local: Path, tmp_path: Path) -> None:
    """One command reads rows several times; what draws them anew each time is no one set of votes."""
    draws = tmp_path / "draws.sql"
    draws.write_text(f"SELECT * FROM '{local}' WHERE random() < 0.5")
    read_votes(draws), read_votes(draws)  # from Python each call stands alone
    with rereading.one_command():
        with pytest.raises(InputError, match="its rows changed while they were read"):
            run_arena([draws], tmp_path / "draws", ArenaRequest())
        same = tmp_path / "same.sql"
        same.write_text(f"SELECT * FROM '{local}' ORDER BY random()")
        run_arena([same], tmp_path / "same", ArenaRequest())


@pytest.mark.parametrize(
    ("first", "fits"),
    [
        ("ATTACH '{db}' AS g; INSERT INTO g.log VALUES (1);", False),
        ("ATTACH '{db}' AS g; CREATE TABLE g.t AS SELECT 1 AS x;", False),
        ("ATTACH '{db}' AS g; UPDATE g.log SET x = 2;", False), ("COPY (SELECT 1) TO '{db}.csv';", False),
        ("ATTACH '{db}' AS g (READ_ONLY); CREATE TABLE t AS SELECT 1 AS x; INSERT INTO t VALUES (2);", True),
        ("ATTACH '{db}' AS g; CREATE TEMP TABLE t AS SELECT x FROM g.log;", True),
        ("CREATE VIEW v AS SELECT 1; SET threads = 1;", True),
    ],
)  # fmt: skip
def test_a_query_that_writes_is_refused_before_it_does(local: Path, tmp_path: Path, first: str, fits: bool) -> None:
    with duckdb.connect(str(tmp_path / "log.duckdb")) as connection:
        connection.execute("CREATE TABLE log AS SELECT 1 AS x")
    before = sorted(path.name for path in tmp_path.iterdir())
    query = tmp_path / "q.sql"
    query.write_text(f"{first.format(db=tmp_path / 'log.duckdb')} SELECT * FROM '{local}'")
    if fits:
        assert len(read_votes(query).votes) == len(read_votes(local).votes)
    else:
        with pytest.raises(InputError, match="its statements are run as often as a command reads the rows"):
            read_votes(query)
    query.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    with duckdb.connect(str(tmp_path / "log.duckdb"), read_only=True) as connection:
        assert connection.execute("FROM log").fetchall() == [(1,)]
