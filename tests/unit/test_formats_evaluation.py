"""Files of evaluation that something else wrote: of another version, with values of another type; and data frames."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation_folder import Table, make_folder
from finepref.core.errors import InputError
from finepref.core.files import parquet_meta, read_json, read_parquet, write_json, write_parquet
from finepref.evaluate.compare import compare
from finepref.evaluate.score import score
from finepref.formats.comparison import read_comparison
from finepref.formats.manifest import read_manifest, read_record, read_rows
from finepref.formats.scores import read_scores


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = make_folder(tmp_path, {"set": [f"p{n}" for n in range(9)]}, tags={"style": "anime"})
    score(tmp_path, [Table(rows, lambda row: float(row.model == "new"))])
    compare(tmp_path, "base", resamples=200)
    return tmp_path


def test_files_of_the_version_before_are_read(folder: Path) -> None:
    """They named no version and held the same."""
    found = read_comparison(folder), read_manifest(folder), read_scores(folder)
    for name in ("comparison.json", "manifest.json"):
        held = read_json(folder / name)
        assert held.pop("version") == 1
        write_json(folder / name, held)
    path = folder / "scores.parquet"
    meta = parquet_meta(path)
    assert meta.pop("version") == 1
    write_parquet(path, read_parquet(path), meta)
    assert (read_comparison(folder), read_manifest(folder), read_scores(folder)) == found


def test_another_version_is_refused(folder: Path) -> None:
    for name, read in (("comparison.json", read_comparison), ("manifest.json", read_record)):
        write_json(folder / name, {**read_json(folder / name), "version": 7})
        with pytest.raises(InputError, match=rf"{name}: .*version 7"):
            read(folder)
    path = folder / "scores.parquet"
    write_parquet(path, read_parquet(path), {"version": 7})
    with pytest.raises(InputError, match=r"scores\.parquet: .*version 7"):
        read_scores(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"level": "high"}, "level"),
        ({"pairs": [{"model": "new"}]}, r"pairs\.0\.prompt_set"),
        ({"metrics": []}, "metrics"),
    ],
)
def test_a_comparison_of_another_form_is_one_sentence(folder: Path, change: dict, said: str) -> None:
    write_json(folder / "comparison.json", {**read_json(folder / "comparison.json"), **change})
    with pytest.raises(InputError, match=rf"comparison\.json: {said}.*finepref compare"):
        read_comparison(folder)


@pytest.mark.parametrize("change", ["steps", "guidance"])
@pytest.mark.parametrize("value", [None, "many", [1]])
def test_settings_of_another_form_are_named(folder: Path, change: str, value: object) -> None:
    held = read_json(folder / "manifest.json")
    settings = {"steps": 2, "guidance": 1.0, "own": "kept"}
    write_json(folder / "manifest.json", {**held, "sampling": {"a/p": settings}})
    assert read_record(folder).sampling["a/p"] == settings
    write_json(folder / "manifest.json", {**held, "sampling": {"a/p": settings | {change: value}}})
    with pytest.raises(InputError, match=rf"sampling of a/p: {change}"):
        read_record(folder)


def test_a_manifest_line_of_another_form_is_named(folder: Path) -> None:
    path = folder / "manifest.jsonl"
    lines = path.read_text().splitlines()
    for change, said in (({"seed": "zero"}, "seed"), ({"size": [8]}, r"size\.1")):
        path.write_text("\n".join([lines[0], json.dumps({**json.loads(lines[1]), **change})]) + "\n")
        with pytest.raises(InputError, match=rf"line 2: {said}"):
            read_rows(folder)


def test_a_column_of_another_type_is_refused(folder: Path) -> None:
    path = folder / "scores.parquet"
    table = read_parquet(path)
    index = table.column_names.index("seed")
    pq.write_table(table.set_column(index, "seed", pa.array(["zero"] * len(table))), path)
    with pytest.raises(InputError, match="not a table"):
        read_scores(folder)


def test_records_become_data_frames_where_pandas_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = read_manifest(folder), read_scores(folder), read_comparison(folder)
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=list))
    assert [len(record.to_pandas()) for record in records] == [18, 18, 1]
    assert records[2].to_pandas()[0]["win_rate"] == 1.0
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pandas is not installed"):
        records[0].to_pandas()


def test_groups_of_prompts_have_win_rates(folder: Path) -> None:
    (row,) = read_comparison(folder).groups
    assert (row.tag, row.value, row.n, row.prompts, row.win_rate) == ("style", "anime", 9, 9, 1.0)
