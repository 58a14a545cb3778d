"""Exports load elsewhere: the oracle is plain diffusers, on a run with alpha 16 and rank 4."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny
from finepref.core.errors import InputError
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
            adapter.saving()(folder / "run")
            made[key] = base, folder / "run"
        return made[key]

    return get


def plain(base: Path):
    """The base in plain diffusers."""
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(base, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


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


def test_another_vae_is_exported_too(world, tmp_path: Path) -> None:
    """The oracle is plain diffusers with the other VAE put in by hand."""
    base, run = world("sd15", "lora")
    other = tiny.kl_vae(seed=9, scale=0.5)
    other.save_pretrained(tmp_path / "vae")
    mine = shutil.copytree(run, tmp_path / "run")
    (mine / "config.yaml").write_text(yaml.safe_dump({"model": {"base": str(base), "vae": str(tmp_path / "vae")}}))
    by_hand = plain(base)
    by_hand.vae = other
    by_hand.load_lora_weights(str(run))
    expected = picture(by_hand)
    assert (expected - picture(load_pipeline(base, run))).abs().max() > 0.1
    merged = export(mine, base, tmp_path / "merged", format="merged", half=True)
    assert (picture(plain(merged)) - expected).abs().max() < 2e-2
    merged = export(mine, base, tmp_path / "merged", format="merged", overwrite=True)
    assert (picture(plain(merged)) - expected).abs().max() < 1e-4
    folder = export(mine, base, tmp_path / "diffusers", format="diffusers")
    assert torch.equal(picture(load_pipeline(base, folder)), expected)


def test_a_vae_of_another_class_is_named_in_the_index(world, tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    base, run = world("sd15", "full")
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    ).save_pretrained(tmp_path / "vae")
    mine = shutil.copytree(run, tmp_path / "run")
    (mine / "config.yaml").write_text(yaml.safe_dump({"model": {"base": str(base), "vae": str(tmp_path / "vae")}}))
    merged = export(mine, base, tmp_path / "merged", format="merged")
    assert type(plain(merged).vae).__name__ == "AutoencoderTiny"


def test_a_lora_that_lies_on_other_weights_than_the_base_is_only_merged(world, tmp_path: Path) -> None:
    """Also where the full weights are two runs below: lora <- lora <- full."""
    base, full = world("sd15", "full")
    _, run = world("sd15", "lora")
    chain = {"first": str(full), "second": str(tmp_path / "first")}
    for name, start in chain.items():
        shutil.copytree(run, tmp_path / name)
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump({"model": {"base": str(base), "init_from": start}}))
        for format in ("diffusers", "kohya", "comfyui"):
            message = f"its LoRA lies on the weights of {full}, not on those of the base; use --format merged"
            with pytest.raises(InputError, match=re.escape(message)):
                export(tmp_path / name, base, tmp_path / "out", format=format)
        merged = export(tmp_path / name, base, tmp_path / f"{name}-merged", format="merged")
        difference = (picture(plain(merged)) - picture(load_pipeline(base, tmp_path / name))).abs().max()
        assert difference < 1e-4
    config = {"model": {"base": str(base), "init_from": str(run)}}  # a LoRA that went on from a LoRA holds all of it
    shutil.copytree(run, tmp_path / "third")
    (tmp_path / "third" / "config.yaml").write_text(yaml.safe_dump(config))
    assert export(tmp_path / "third", base, tmp_path / "plain", format="diffusers").is_dir()


def test_refusals(world, tmp_path: Path) -> None:
    base, run = world("sd15", "full")
    with pytest.raises(InputError, match="unknown format 'kohia'; did you mean 'kohya'"):
        export(run, base, tmp_path / "x", format="kohia")
    with pytest.raises(InputError, match="the run trained all weights; use --format merged"):
        export(run, base, tmp_path / "x", format="kohya")
    with pytest.raises(InputError, match="half precision has no effect"):
        export(run, base, tmp_path / "x", format="diffusers", half=True)
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match="holds neither unet/ nor"):
        export(tmp_path / "x", base, tmp_path / "y", format="merged")
    (tmp_path / "x" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"it holds mine\.txt, and is not an exported run"):
        export(run, base, tmp_path / "x", format="merged", overwrite=True)
