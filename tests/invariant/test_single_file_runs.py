"""A run whose base is a single file is the run of the folder: trained, generated with and exported, bit for bit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import own_pairs
from finepref.core.errors import InputError
from finepref.core.files import read_object
from finepref.models.export import export
from finepref.models.load import open_pipeline
from finepref.models.source import locate
from finepref.train.config import load_config
from finepref.train.run import train_run
from single_files import MAKERS, equal, pack, plain, weights
from tiny import picture

CASES = [("sd15", "full"), ("sd15", "lora"), ("sdxl", "full"), ("sdxl", "lora")]


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINEPREF_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    """family -> folder with model/, model.safetensors and data/."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            pack(MAKERS[name](made[name] / "model"), made[name] / "model.safetensors")
            own_pairs.make_folder(made[name] / "data", pairs=4)
        return made[name]

    return get


def train(place: Path, out: Path, kind: str, **model: str) -> Path:
    config = {
        "model": model,
        "data": {"paths": [str(place / "data")], "resolution": 32},
        "lora": {"rank": 2} if kind == "lora" else None,
        "train": {
            "max_steps": 2, "pairs_per_step": 2, "micro_batch": 2, "learning_rate": 1e-3, "lr_scheduler": "constant",
        },
    }  # fmt: skip
    out.mkdir(parents=True)
    (out / "layer.yaml").write_text(yaml.safe_dump(config))
    return train_run(load_config(out / "layer.yaml"), out / "run")


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_file_trains_generates_and_exports_as_its_folder(world, tmp_path: Path, name: str, kind: str) -> None:
    import diffusers

    place = world(name)
    folder, file = place / "model", place / "model.safetensors"
    of_folder = train(place, tmp_path / "folder", kind, base=str(folder))
    run = train(place, tmp_path / "file", kind, base=str(file), config=str(folder))
    assert equal(weights(run), weights(of_folder))
    assert (run / "metrics.jsonl").read_bytes() == (of_folder / "metrics.jsonl").read_bytes()
    pipe = open_pipeline(str(run))
    expected = picture(open_pipeline(str(of_folder)))
    assert torch.equal(picture(pipe), expected)
    assert not torch.equal(picture(plain(folder)), expected)

    single = export(run, file, tmp_path / "single.safetensors", format="single-file")
    cls = getattr(diffusers, read_object(folder / "model_index.json")["_class_name"])
    theirs = cls.from_single_file(str(single), config=str(folder), local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    rounding = 0.0 if (name, kind) == ("sd15", "full") else 1e-4  # of fused weights; SDXL: of a transposed projection
    assert (picture(theirs) - expected).abs().max() <= rounding
    if (name, kind) == ("sd15", "full"):
        _written_again(run, file, single, tmp_path)


def _written_again(run: Path, file: Path, single: Path, place: Path) -> None:
    """A file of ours is replaced on demand, nothing else is; the merged folder is the same pipeline."""
    merged = export(run, file, place / "merged", format="merged")
    assert equal(weights(merged), weights(locate(single, config=str(merged)).folder))
    with safe_open(single, "pt") as handle:
        assert handle.metadata()["finepref_made_by"] == "finepref"
    for out, kind in ((single, "single-file"), (merged, "merged")):
        export(run, file, out, format=kind)  # the same one, as after a kill at its very end
        with pytest.raises(InputError, match="something is there already"):
            export(run, file, out, format=kind, half=True)
    half = export(run, file, single, format="single-file", half=True, overwrite=True)
    assert {value.dtype for value in load_file(half).values()} == {torch.float16}
    with pytest.raises(InputError, match="it is one of the inputs"):
        export(run, file, file, format="single-file", overwrite=True)
