"""A user's own pairs - JPEG, PNG and WebP of different sizes in a folder with a table - through the same commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import own_pairs
import tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    tiny.sd15(folder / "model")
    own_pairs.make_folder(folder / "data")
    config = {
        "model": {"base": str(folder / "model")},
        "data": {"paths": [str(folder / "data")], "resolution": 32},
        "cache": {"folder": str(folder / "cache")},
        "objective": {"name": "dpo", "beta": 500},
        "train": {
            "max_steps": 3,
            "pairs_per_step": 4,
            "micro_batch": 4,
            "learning_rate": 1e-4,
            "lr_warmup_steps": 0,
        },
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_from_folder_to_report(place: Path, finepref) -> None:
    """cache, signals, train, generate, report: exit code 0, and each leaves its files."""
    code, _, err = finepref("data", "validate", place / "data")
    assert code == 0
    assert f"--data {place / 'data'} --out aligned --dry-run" in err.replace("\\\n    ", "")
    code, _, err = finepref("cache", "-c", place / "run.yaml")
    assert code == 0, err
    assert json.loads((place / "cache" / "cache.json").read_text())["summary"]["images"] == 24
    signals = place / "signals.parquet"
    code, _, err = finepref("signals", place / "data", "--kind", "uniform", "--margin", 1, "--out", signals)
    assert code == 0, err
    run = place / "runs" / "own"
    words = ("train", "-c", place / "run.yaml", f"signal.file={signals}", "signal.margin_scale=0.5", "--out", run)
    code, out, err = finepref(*words)
    assert code == 0, err
    assert out.strip() == str(run)
    record = json.loads((run / "run.json").read_text())
    assert record["axes"]["signal"] == "uniform"
    assert record["network_calls"]["policy"] == 3 * 4 * 2
    prompts = place / "prompts.txt"
    prompts.write_text("a red circle\na small blue square\n")
    code, _, err = finepref(
        "generate", "--model", f"base={place / 'model'}", "--model", f"own={run}", "--prompts", prompts,
        "--seeds", "0,1", "--steps", 2, "--out", place / "eval",
    )  # fmt: skip
    assert code == 0, err
    assert len((place / "eval" / "manifest.jsonl").read_text().splitlines()) == 8
    code, _, err = finepref("report", place / "runs", "--out", place / "report.html")
    assert code == 0, err
    page = (place / "report.html").read_text()
    assert "own" in page
    assert "Gradient norm" in page


def test_a_corrupted_image_drops_its_pair_and_is_counted(place: Path, tmp_path: Path, finepref) -> None:
    """One broken file: its pair goes to quarantine with id and reason, all other pairs stay."""
    data = own_pairs.make_folder(tmp_path / "data", pairs=4)
    broken = sorted(data.glob("rejected-002.*"))[0]
    broken.write_bytes(broken.read_bytes()[:40])
    words = (f"data.paths=[{data}]", f"cache.folder={tmp_path / 'cache'}")
    code, out, err = finepref("cache", "-c", place / "run.yaml", *words)
    assert code == 0, err
    assert "1 pairs dropped" in out + err
    lines = [json.loads(line) for line in (tmp_path / "cache" / "quarantine.jsonl").read_text().splitlines()]
    assert len(lines) == 1
    assert lines[0]["row"] == 2
    assert lines[0]["reason"]
    assert json.loads((tmp_path / "cache" / "cache.json").read_text())["summary"]["pairs"] == 3


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("chosen_file_name,prompt\na.png,x\n", "rejected"),
        ("chosen_file_name,rejected_file_name,prompt\n", "no usable preference"),
    ],
)
def test_bad_tables_are_one_sentence(place: Path, tmp_path: Path, finepref, table: str, sentence: str) -> None:
    """A missing column, an empty table: exit code 2, no traceback, nothing written."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "metadata.csv").write_text(table)
    code, _, err = finepref(
        "cache", "-c", place / "run.yaml", f"data.paths=[{data}]", f"cache.folder={tmp_path / 'cache'}"
    )
    assert code == 2
    assert "Traceback" not in err
    assert sentence in err
    assert not (tmp_path / "cache" / "pairs.parquet").exists()


def test_bad_configs_are_one_sentence(place: Path, tmp_path: Path, finepref) -> None:
    """An unknown key, a missing file: exit code 2, no traceback, no run folder."""
    for words, sentence in (
        (("-c", place / "run.yaml", "train.learning_rat=1"), "did you mean 'learning_rate'"),
        (("-c", tmp_path / "none.yaml"), "no such file; name a config file or layer"),
        (("-c", place / "run.yaml", "model.base=" + str(tmp_path / "none")), "none"),
        (("-c", place / "run.yaml", "signal.file=" + str(tmp_path / "none.parquet")), "no such file"),
    ):
        code, _, err = finepref("train", *words, "--out", tmp_path / "run")
        assert code == 2, err
        assert sentence in err
        assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
