"""Exports load elsewhere: the oracle is plain diffusers, on a run with alpha 16 and rank 4."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny
from finepref.errors import InputError
from finepref.models.export import export
from finepref.models.load import load_adapter, load_pipeline
from tiny import TRAINED, perturb, picture


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    """(family, kind) -> (base folder, run folder)."""
    made: dict[str, tuple[Path, Path]] = {}

    def get(name: str, kind: str) -> tuple[Path, Path]:
        key = f"{name}-{kind}"
        if key not in made:
            folder = tmp_path_factory.mktemp(key)
            base = tiny.BUILDERS[name](folder / "base")
            adapter = load_adapter(base, lora=TRAINED[kind], reference=False)
            perturb(adapter)
            adapter.save(folder / "run")
            made[key] = base, folder / "run"
        return made[key]

    return get


def plain(base: Path):
    """The base in plain diffusers."""
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(base, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_kohya(world, tmp_path: Path, name: str) -> None:
    base, run = world(name, "lora")
    file = export(run, base, tmp_path / "mine.safetensors", format="kohya")
    with safe_open(str(file), framework="pt") as handle:
        names = list(handle.keys())
        alphas = {handle.get_tensor(each).item() for each in names if each.endswith(".alpha")}
        assert handle.metadata()["ss_network_dim"] == "4"
    assert alphas == {16.0}
    assert all(each.startswith("lora_unet_") for each in names)
    assert {each.split(".", 1)[1] for each in names} == {"alpha", "lora_down.weight", "lora_up.weight"}
    pipe = plain(base)
    pipe.load_lora_weights(str(file))
    assert torch.equal(picture(pipe), picture(load_pipeline(base, run)))


@pytest.mark.parametrize(("name", "kind"), [("sd15", "full"), ("sdxl", "lora"), ("sd3", "lora")])
def test_merged(world, tmp_path: Path, name: str, kind: str) -> None:
    base, run = world(name, kind)
    (base / "stray.safetensors").write_bytes(b"x")
    folder = export(run, base, tmp_path / "whole", format="merged")
    (base / "stray.safetensors").unlink()
    assert not (folder / "stray.safetensors").exists()
    difference = (picture(plain(folder)) - picture(load_pipeline(base, run))).abs().max().item()
    assert difference <= (0.0 if kind == "full" else 1e-4)
    assert (folder / "tokenizer" / "tokenizer.json").read_bytes() == (
        base / "tokenizer" / "tokenizer.json"
    ).read_bytes()
    half = export(run, base, tmp_path / "half", format="merged", half=True)
    part = "transformer" if name == "sd3" else "unet"
    with safe_open(str(half / part / "diffusion_pytorch_model.safetensors"), framework="pt") as handle:
        assert {handle.get_tensor(each).dtype for each in handle.keys()} == {torch.float16}  # noqa: SIM118


def test_diffusers(world, tmp_path: Path) -> None:
    for kind in TRAINED:
        base, run = world("sd15", kind)
        folder = export(run, base, tmp_path / kind, format="diffusers")
        assert torch.equal(picture(load_pipeline(base, folder)), picture(load_pipeline(base, run)))


def test_refusals(world, tmp_path: Path) -> None:
    base, run = world("sd15", "full")
    with pytest.raises(InputError, match="unknown format 'kohia'; did you mean 'kohya'"):
        export(run, base, tmp_path / "x", format="kohia")
    with pytest.raises(InputError, match="the run trained all weights; use --format merged"):
        export(run, base, tmp_path / "x", format="kohya")
    with pytest.raises(InputError, match="half precision has no effect"):
        export(run, base, tmp_path / "x", format="diffusers", half=True)
    with pytest.raises(InputError, match="holds neither unet/ nor"):
        export(tmp_path, base, tmp_path / "x", format="merged")
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match="something is there already"):
        export(run, base, tmp_path / "x", format="merged")
    base, run = world("sd3", "lora")
    with pytest.raises(InputError, match="there is no kohya form for sd3; use --format diffusers"):
        export(run, base, tmp_path / "y", format="kohya")
