"""A run that starts from another one and is compared with the base: both networks by plain diffusers, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import pytest
import torch

from finepref.core.errors import ConfigError
from finepref.train.config import load_config
from finepref.train.opened import load_adapter
from finepref.train.run import train_run

BASE = "train.reference={kind: base}"
FIRST = ("train.max_steps=2", "train.learning_rate=1e-2", "train.lr_scheduler=constant", "train.lr_warmup_steps=0")
LORA = "lora={rank: 4}"


def first_run(world: Path, out: Path, *words: str) -> Path:
    return train_run(load_config(world / "run.yaml", [*FIRST, *words]), out)


def predictions(world: Path, words: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """(policy, reference) on one drawn latent, as a run has them before its first step."""
    adapter = load_adapter(load_config(world / "run.yaml", words), reference=True, device="cpu")
    generator = torch.Generator().manual_seed(0)
    network = adapter.network
    latent = torch.randn(1, network.config.in_channels, 8, 8, generator=generator)
    text = torch.randn(1, 5, network.config.cross_attention_dim, generator=generator)
    with torch.no_grad():
        ours = network(latent, torch.tensor([300]), encoder_hidden_states=text).sample
        if adapter.frozen is not None:
            return ours, adapter.frozen(latent, torch.tensor([300]), encoder_hidden_states=text).sample
        assert adapter.switch is not None
        with adapter.switch.reference():
            return ours, network(latent, torch.tensor([300]), encoder_hidden_states=text).sample


def plain(world: Path) -> torch.Tensor:
    """The base by plain diffusers on the same latent."""
    network = diffusers.UNet2DConditionModel.from_pretrained(world / "model" / "unet")
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(1, network.config.in_channels, 8, 8, generator=generator)
    text = torch.randn(1, 5, network.config.cross_attention_dim, generator=generator)
    with torch.no_grad():
        return network(latent, torch.tensor([300]), encoder_hidden_states=text).sample


@pytest.mark.parametrize("kind", [(), (LORA,)])
def test_policy_is_the_start_and_reference_the_base(world: Path, tmp_path: Path, kind: tuple[str, ...]) -> None:
    start = first_run(world, tmp_path / "first", *kind)
    begun, base = [f"model.init_from={start}", *kind], plain(world)
    policy, reference = predictions(world, [*begun, BASE])
    usual, frozen = predictions(world, begun)
    torch.testing.assert_close(reference, base, rtol=0, atol=1e-5)
    assert torch.equal(policy, usual)
    torch.testing.assert_close(frozen, usual, rtol=0, atol=1e-6)
    assert (policy - base).abs().max() > 1e-3
    run = train_run(load_config(world / "run.yaml", [*begun, BASE, "train.max_steps=1"]), tmp_path / "run")
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["u"] != 0.0


def test_what_it_does_not_go_with(world: Path, tmp_path: Path) -> None:
    start = first_run(world, tmp_path / "full")
    for words, said in (
        ([BASE], "which is its frozen reference"),
        ([BASE, f"model.init_from={start}", LORA], "lies on a start's full weights"),
        ([BASE, f"model.init_from={start}", f"train.reference_cache={tmp_path / 'errors'}"], "what the start says"),
    ):
        with pytest.raises(ConfigError, match=said):
            train_run(load_config(world / "run.yaml", list(words)), tmp_path / "refused")
