"""The training that made the shipped weights: a function of its seed, and a stopped run ends where a whole one does."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import lab_training as training

RECIPE = training.Recipe(
    seed=4, pictures=40, vae_steps=4, vae_batch=4, unet_steps=6, unet_batch=4, early_step=3, unet_ema=0.5
)


class StoppedError(Exception):
    """The process was killed here."""


def train(work: Path, recipe: training.Recipe = RECIPE) -> dict[str, dict[str, torch.Tensor]]:
    work.mkdir(exist_ok=True)
    images, asked = training.pictures(recipe)
    vae = training.train_autoencoder(recipe, images, work)
    made = {"vae": vae.state_dict()}
    training.train_diffusion(recipe, vae, images, asked, work, keep=made.__setitem__)
    return made


def same(one: dict[str, dict[str, torch.Tensor]], other: dict[str, dict[str, torch.Tensor]]) -> bool:
    return all(torch.equal(one[part][name], other[part][name]) for part in one for name in one[part])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"))


def test_parts_are_those_that_ship_and_early_is_older(whole):
    assert set(whole) == {"vae", "base.unet", "base.text_encoder", "early.unet", "early.text_encoder"}
    assert not torch.equal(whole["base.unet"]["conv_in.weight"], whole["early.unet"]["conv_in.weight"])


@pytest.mark.parametrize("saves", [1, 3, 4])
def test_a_stopped_run_ends_bitwise_where_a_whole_one_does(whole, tmp_path, monkeypatch, saves):
    """Stopped right after a save: of the autoencoder (1), of the early weights (3), of the diffusion (4)."""
    monkeypatch.setattr(training, "STATE_EVERY", 2)
    save, count = training.save_state, 0

    def save_then_stop(path, state):
        nonlocal count
        save(path, state)
        count += 1
        if count == saves + (saves > 1):
            raise StoppedError

    monkeypatch.setattr(training, "save_state", save_then_stop)
    with pytest.raises(StoppedError):
        train(tmp_path)
    monkeypatch.setattr(training, "save_state", save)
    assert same(whole, train(tmp_path))


def test_another_seed_gives_other_weights(whole, tmp_path):
    assert not same(whole, train(tmp_path, dataclasses.replace(RECIPE, seed=5)))
