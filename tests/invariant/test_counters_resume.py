"""Resuming with every optimiser, with a moving average and with every layout is bitwise the uninterrupted run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from finepref.core.errors import ConfigError
from finepref.train.config import load_config
from finepref.train.run import train_run

WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"
CASES = {
    "adafactor": ["train.optimizer=adafactor"],
    "average": ["train.ema_decay=0.9", "train.channels_last=true"],
    "lora": ["lora={rank: 2, alpha: 4}", "train.gradient_checkpointing=selective"],
    "shared": ["trajectory={name: renoise, share: 4, eta: 0.1}", "train.stratified_t=true"],
    "inversion": ["trajectory={name: renoise}", "train.stratified_t=true", "train.mixed_precision=bf16"],
}


@pytest.mark.parametrize("case", CASES)
def test_resumed_equals_uninterrupted(world: Path, tmp_path: Path, case: str) -> None:
    """From the checkpoint after step 2 of 3, and with what a killed process left half-written beside it."""
    config = load_config(world / "run.yaml", [*CASES[case], "train.max_steps=3"])
    whole = train_run(config, tmp_path / "whole")
    part = tmp_path / "part"
    part.mkdir()
    for name in ("config.yaml", "metrics.jsonl", "timing.jsonl"):
        shutil.copy(whole / name, part / name)
    shutil.copytree(whole / "checkpoints" / "step-000002", part / "checkpoints" / "step-000002")
    left = part / "checkpoints" / ".finepref-0a1b2c3d4e5f.tmp"
    left.mkdir()
    (left / "trainable.safetensors").write_bytes(b"half")
    train_run(config, part, resume=True, overwrite=False)
    files = [p.relative_to(whole) for p in whole.rglob("*.safetensors")] + [Path("metrics.jsonl")]
    assert len(files) >= 4
    for file in files:
        assert (part / file).read_bytes() == (whole / file).read_bytes(), file
    assert not list(part.rglob(".finepref-*"))


def test_the_average_is_what_is_saved(world: Path, tmp_path: Path) -> None:
    """After two steps with decay 1/2: half the base's and half the first step's average, and half the second's."""
    from safetensors.torch import load_file

    config = load_config(world / "run.yaml", ["train.ema_decay=0.5", "train.max_steps=2", "train.checkpoint_every=1"])
    run = train_run(config, tmp_path / "run")
    saved, base = load_file(run / WEIGHTS), load_file(world / "model" / WEIGHTS)
    steps = [load_file(run / "checkpoints" / f"step-00000{step}" / "trainable.safetensors") for step in (1, 2)]
    for name, start in base.items():
        wanted = 0.25 * start + 0.25 * steps[0][name] + 0.5 * steps[1][name]
        assert saved[name].numpy() == pytest.approx(wanted.numpy(), abs=1e-7)
    assert any((steps[1][name] - saved[name]).abs().max() > 1e-5 for name in base)
    with pytest.raises(ConfigError, match=r"train\.ema_decay"):
        load_config(world / "run.yaml", ["train.ema_decay=1"])


def test_adafactor_takes_the_official_settings(world: Path) -> None:
    """No relative step, no parameter scaling, clip threshold 1: the official SDXL launchers' optimiser."""
    import torch
    from transformers.optimization import Adafactor

    from finepref.train.optim import make_optimizer

    options = load_config(world / "run.yaml", ["train.optimizer=adafactor", "train.lr_scheduler=constant"]).train
    weights = [torch.nn.Parameter(torch.ones(4, 3)) for _ in range(2)]
    ours = make_optimizer(options, weights[:1])
    official = Adafactor(
        weights[1:], lr=1e-4, weight_decay=1e-2, clip_threshold=1.0, scale_parameter=False, relative_step=False
    )
    for step in range(3):
        for weight in weights:
            weight.grad = torch.linspace(-1, 2 + step, 12).view(4, 3)
        ours.step()
        official.step()
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], torch.ones(4, 3))


def test_adamw_in_one_kernel_is_adamw(world: Path) -> None:
    """The fused kernel against torch's plain implementation, over ten steps, on both memory layouts."""
    import torch

    from finepref.train.optim import make_optimizer

    options = load_config(world / "run.yaml", ["train.learning_rate=1e-2", "train.lr_scheduler=constant"]).train
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(8, 6, 3, 3, generator=draw)
    ours, layout, plain = (torch.nn.Parameter(start.clone()) for _ in range(3))
    layout.data = layout.data.contiguous(memory_format=torch.channels_last)
    optimizers = [make_optimizer(options, [ours]), make_optimizer(options, [layout])]
    optimizers.append(torch.optim.AdamW([plain], lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, fused=False))
    for _ in range(10):
        gradient = torch.randn(start.shape, generator=draw)
        for weight, optimizer in zip((ours, layout, plain), optimizers, strict=True):
            weight.grad = torch.empty_like(weight).copy_(gradient)
            optimizer.step()
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-7)
    assert torch.equal(ours, layout)
