"""Device seconds of a run contain the encoding; SmPO's Table 1 and ArenaPO's Table 7 with one's own rows."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import own_pairs
import tiny
from finepref.core.files import read_parquet, write_parquet
from finepref.data import building
from finepref.data.latents import LatentCache
from finepref.formats.run import PARTS, read_run, write_run
from finepref.report import report
from finepref.report.inputs import find_inputs
from finepref.train.config import RunConfig, parse_config
from finepref.train.opened import make_cache
from finepref.train.processes import World
from finepref.train.run import train_run
from run_record import run_record

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Four pairs, their cache in shards of 4 images; the clock of its making moves one second at every look."""
    tiny.sd15(tmp_path / "model")
    own_pairs.make_folder(tmp_path / "data", pairs=4)
    ticks = itertools.count()
    monkeypatch.setattr(building.time, "perf_counter", lambda: float(next(ticks)))
    train = {"max_steps": 1, "pairs_per_step": 2, "micro_batch": 2, "lr_warmup_steps": 0}
    return parse_config(
        {
            "model": {"base": str(tmp_path / "model")},
            "data": {"paths": [str(tmp_path / "data")], "resolution": 32},
            "cache": {"folder": str(tmp_path / "cache"), "batch_size": 4, "shard_size": 4},
            "train": train,
        }
    )


def test_a_cache_knows_what_its_encoding_took(config: RunConfig, tmp_path: Path) -> None:
    """Two batches of images and two of prompts (4 and the empty one) are four seconds; lost shards count anew."""
    folder = Path(str(config.cache.folder))
    make_cache(config, folder, world=ALONE)
    assert LatentCache(folder).device_seconds() == 4.0
    first, second = sorted((folder / "images").glob("*.safetensors"))
    second.unlink()
    make_cache(config, folder, world=ALONE)
    assert LatentCache(folder).device_seconds() == 4.0
    index = first.with_suffix(".parquet")
    write_parquet(index, read_parquet(index).replace_schema_metadata(None))  # as an older version wrote it
    second.unlink()
    make_cache(config, folder, world=ALONE)
    assert LatentCache(folder).device_seconds() is None


def test_device_seconds_of_a_run_are_the_sum_of_their_parts(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoding among them; None where it was not measured; nothing before the training where encoding is online."""
    make_cache(config, Path(str(config.cache.folder)), world=ALONE)
    monkeypatch.undo()
    about = read_run(train_run(config, tmp_path / "run"))
    assert {*about.device_seconds_by} == {*PARTS}
    assert about.device_seconds_by["encoding"] == 4.0
    assert about.device_seconds == pytest.approx(sum(value or 0.0 for value in about.device_seconds_by.values()))
    cache = tmp_path / "cache" / "cache.json"
    held = {key: value for key, value in json.loads(cache.read_text()).items() if key != "finepref_sha256"}
    cache.write_text(json.dumps({**held, "device_seconds": None}))
    older = read_run(train_run(config, tmp_path / "older"))
    assert (older.device_seconds, older.device_seconds_by["encoding"]) == (None, None)
    online = config.model_copy(update={"cache": config.cache.model_copy(update={"online": True, "folder": None})})
    assert read_run(train_run(online, tmp_path / "online")).device_seconds_by["encoding"] == 0.0


def shown(folder: Path) -> tuple[str, str]:
    page = report([folder], folder / "r.html").read_text(encoding="utf-8")
    return page, (folder / "r.md").read_text(encoding="utf-8")


def test_what_a_run_cost_stands_beside_the_published_hours(tmp_path: Path) -> None:
    """On its backbone, with its parts; a run of the lab is none of the papers' backbones."""
    parts = {"encoding": 54_000.0, "labelling": 3600.0, "trajectory_cache": 0.0, "reference_cache": 0.0}
    parts["training"] = 91_080.0
    gpu = {"base": "stable-diffusion-v1-5/stable-diffusion-v1-5", "device": "NVIDIA A800", "family": "sd15"}
    for name, about in (
        ("mine", {**gpu, "device_seconds": sum(parts.values()), "device_seconds_by": parts}),
        ("older", {**gpu, "device_seconds": None, "device_seconds_by": {**parts, "encoding": None}}),
        ("oldest", {**gpu, "device_seconds": 94_680.0, "device_seconds_by": {"training": 94_680.0}}),
        ("lab", {"device_seconds": 100.0}),
    ):
        (tmp_path / name).mkdir()
        write_run(tmp_path / name, run_record(**about))
    page, text = shown(tmp_path)
    assert "Table 1: training cost, Stable Diffusion 1.5" in page
    assert "Stable Diffusion XL" not in page
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert "| SmPO-SD1.5 | 41.3 | A800 | – | – | – | – | – |" in rows
    assert "| mine (yours) | 41.3 | NVIDIA A800 | 15.0 | 1.000 | 0.000 | 0.000 | 25.3 |" in rows
    assert "| older (yours) | – | NVIDIA A800 | – | 1.000 | 0.000 | 0.000 | 25.3 |" in rows
    assert "| oldest (yours) | – | NVIDIA A800 | – | – | – | – | 26.3 |" in rows
    assert not any(line.startswith("| lab (yours)") for line in rows)
    assert "A dash: not measured" in text


def test_a_k_sort_evaluation_stands_in_the_papers_table(tmp_path: Path) -> None:
    """With its judge; a prompt file of that name is none."""
    result = {"score": 21.5, "mu": 23.9, "sigma": 0.7, "comparisons": 61, "judge": "some-vlm", "rounds": []}
    (tmp_path / "mine" / "transcripts").mkdir(parents=True)
    (tmp_path / "mine" / "ksort.json").write_text(json.dumps(result))
    (tmp_path / "ksort.json").write_text('[{"prompt": "a dog"}]')
    assert [each.name for each in find_inputs([tmp_path]).ksorts] == ["mine"]
    page, text = shown(tmp_path)
    assert "Table 7: K-Sort Eval, Stable Diffusion 1.5" in page
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert "| ArenaPO (ours) | 21.63 | – | – |" in rows
    assert "| mine (yours) | 21.50 | 61 | some-vlm |" in rows
