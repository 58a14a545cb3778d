"""`finepref cache` on a user's own folder of pairs, with a tiny real pipeline."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import own_pairs
import tiny
from finepref.cli.main import main


def test_cache_then_refusal_of_another_resolution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.sd15(tmp_path / "model")
    own_pairs.make_folder(tmp_path / "data", pairs=5)
    next((tmp_path / "data").glob("chosen-003.*")).write_bytes(b"broken")
    config = {
        "model": {"base": str(tmp_path / "model")},
        "data": {"paths": [str(tmp_path / "data")], "resolution": 32, "flip": True},
        "cache": {"folder": str(tmp_path / "cache"), "shard_size": 4, "batch_size": 2},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))

    def finepref(*more: str) -> int | str | None:
        """The command in this process (importing the libraries again would cost more than the work)."""
        monkeypatch.setattr(sys, "argv", ["finepref", "cache", "-c", str(tmp_path / "run.yaml"), *more])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code

    assert not finepref("--json")
    done = capsys.readouterr()
    summary = json.loads(done.out)
    assert (summary["pairs"], summary["quarantined"], summary["encoded_images"]) == (4, 1, 9)
    assert "1 pairs dropped" in done.err
    assert finepref("data.resolution=64") == 2
    said = capsys.readouterr().err
    assert "the cache was made for another resolution (32, now 64); use another folder, or make it again" in said


def test_processes_print_one_summary_of_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As torchrun starts them, one after the other: the last to finish speaks for both."""
    tiny.sd15(tmp_path / "model")
    own_pairs.make_folder(tmp_path / "data", pairs=4)
    words = [f"model.base={tmp_path / 'model'}", f"data.paths=[{tmp_path / 'data'}]", "data.resolution=32"]
    monkeypatch.setattr(sys, "argv", ["finepref", "cache", "-c", "lab/dpo", *words, "--out", str(tmp_path / "cache")])
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = []
    for rank in ("0", "1", "0", "1"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        found.append(capsys.readouterr())
    out = [each.out.partition(": ")[2] for each in found]
    said = "4 pairs, 8 images ({} encoded now), 5 prompts, 0 pairs dropped\n"
    assert out == ["", said.format(8), "", said.format(0)]
    assert "process 0 of 2 is done: " in found[0].err
