"""Kinds of LoRA - rank-stabilised, DoRA, with dropout - start as the base, resume, and load in plain diffusers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from finepref.core.errors import ConfigError
from finepref.models import lora
from finepref.models.dropout import DrawnFor, Dropout
from finepref.models.export import export
from finepref.models.load import load_adapter, load_pipeline
from finepref.models.lora import LoraSettings
from finepref.train.config import load_config
from finepref.train.run import train_run
from tiny import perturb, picture

KINDS = {"rslora": {"rslora": True}, "dora": {"dora": True}, "dropout": {"dropout": 0.4, "dora": True, "rslora": True}}
STEPS = ("train.max_steps=4", "train.lr_scheduler=constant", "train.learning_rate=1e-3", "train.checkpoints_keep=9")
STEPS += ("train.adam_epsilon=1e-4",)  # Adam's sign-like first steps would magnify rounding


def train(world: Path, out: Path, kind: dict, *words: str, resume: bool = False) -> dict[str, torch.Tensor]:
    settings = json.dumps({"rank": 4, **kind})
    config = load_config(world / "run.yaml", [f"lora={settings}", *STEPS, *words])
    return load_file(train_run(config, out, resume=resume, overwrite=False) / lora.FILE)


def farthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.mark.parametrize("kind", ["dora", "dropout"])
def test_a_run(world: Path, tmp_path: Path, kind: str) -> None:
    """u is exactly 0 before the first step; resumed, the same bits; in other micro-batches, the same to rounding."""
    whole = train(world, tmp_path / "whole", KINDS[kind])
    lines = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    first = json.loads(lines.splitlines()[0])
    assert first["u"] == 0.0
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-7)
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    for name in ("run.json", lora.FILE, "checkpoints/step-000004"):
        place = tmp_path / "half" / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert farthest(train(world, tmp_path / "half", KINDS[kind], resume=True), whole) == 0.0
    assert (tmp_path / "half" / "metrics.jsonl").read_bytes() == lines
    if kind == "dropout":
        assert farthest(train(world, tmp_path / "small", KINDS[kind], "train.micro_batch=1"), whole) < 1e-5
        assert farthest(train(world, tmp_path / "other", {**KINDS[kind], "dropout": 0.0}), whole) > 1e-4


@pytest.mark.parametrize("kind", ["rslora", "dropout"])
def test_exports(world: Path, tmp_path: Path, kind: str) -> None:
    """The oracle is plain diffusers with the run's own file; merged is one product instead of two, to 1e-4."""
    from diffusers import DiffusionPipeline

    adapter = load_adapter(world / "model", lora=LoraSettings(rank=4, alpha=6, **KINDS[kind]), reference=False)
    perturb(adapter)
    adapter.saving()(tmp_path / "run")
    pipe = DiffusionPipeline.from_pretrained(world / "model")
    pipe.set_progress_bar_config(disable=True)
    base = picture(pipe)
    pipe.load_lora_weights(str(tmp_path / "run"))
    wanted = picture(pipe)
    assert (wanted - base).abs().max() > 1e-2
    assert torch.equal(picture(adapter.pipeline()), wanted)
    assert torch.equal(picture(load_pipeline(world / "model", tmp_path / "run")), wanted)
    merged = export(tmp_path / "run", world / "model", tmp_path / "merged", format="merged")
    assert (picture(load_pipeline(merged)) - wanted).abs().max() < 1e-4


def test_the_reference_drops_nothing(world: Path, tmp_path: Path) -> None:
    """In training mode, with trained adapters: it is the base, or the LoRA that the run starts from."""
    x, t = torch.randn(4, 4, 8, 8), torch.tensor([10, 20, 300, 999])
    cond = {"prompt_embeds": torch.randn(4, 77, 32)}
    settings = LoraSettings(rank=4, dropout=0.5)
    first = load_adapter(world / "model", lora=settings)
    start = first.policy(x, t, cond)
    perturb(first)
    trained = first.policy(x, t, cond)
    first.saving()(tmp_path / "run")
    second = load_adapter(world / "model", lora=settings, init_from=tmp_path / "run")
    for adapter, wanted in ((first, start), (second, trained)):
        perturb(adapter)
        adapter.train_mode(True)
        adapter.drawn.tell(["a", "b"], [0, 0])
        assert torch.equal(adapter.reference(x, t, cond), wanted)
        assert (adapter.policy(x, t, cond) - wanted).abs().max() > 1e-3


def test_masks_are_functions_of_seed_layer_pair_and_visit() -> None:
    drawn = DrawnFor(7)
    layer, other = Dropout(0.25, "one", drawn), Dropout(0.25, "two", drawn)
    x = torch.ones(4, 1000, 3)
    with pytest.raises(RuntimeError, match="4 rows for 0 ids"):
        layer(x)
    drawn.tell(["a", "b"], [0, 5])
    first = layer(x)
    assert set(first.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert first.mean().item() == pytest.approx(1.0, abs=4 * (0.25 / 0.75 / 6000) ** 0.5)
    assert torch.equal(first[:2], first[2:])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(other(x), first)
    drawn.tell(["b"], [5])
    assert torch.equal(layer(x[:1]), first[1:2])
    drawn.tell(["b"], [6])
    assert not torch.equal(layer(x[:1]), first[1:2])
    assert torch.equal(layer.eval()(x), x)


def test_dora_in_half_precision_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="policy and reference differ before the first step"):
        train(world, tmp_path / "run", KINDS["dora"], "train.mixed_precision=bf16")
    assert not (tmp_path / "run").exists()


def test_another_kind_than_the_start_is_refused(world: Path, tmp_path: Path) -> None:
    load_adapter(world / "model", lora=LoraSettings(rank=4, dora=True), reference=False).saving()(tmp_path / "run")
    message = "the run asks for False, the LoRA of model.init_from has True; set lora.dora to the file's value"
    with pytest.raises(ConfigError, match=message):
        load_adapter(world / "model", lora=LoraSettings(rank=4), init_from=tmp_path / "run")
