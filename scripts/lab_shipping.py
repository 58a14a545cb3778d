"""Train everything the lab ships and write it as package data, with the recipe."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import lab_training as training
import numpy as np

from finepref.core import provenance
from finepref.core.files import write_json
from finepref.core.progress import say
from finepref.lab import ballots as votes
from finepref.lab import makers, model, reward, world

REWARD_SEEDS = (1001, 1002)
"""Seeds of the votes that `lab-reward` learns from; the demo's votes have another."""


def train_lab(work: str | Path, *, recipe: training.Recipe | None = None, weights: Path = model.WEIGHTS) -> None:
    """Train autoencoder, both checkpoints and lab-reward, and write the shards and `recipe.json` into `weights`.

    Args:
        work: states while training; a run that was stopped continues from here.
        recipe: the numbers; the shipped ones when not given.
        weights: where the shards go.
    """
    work, recipe = Path(work), recipe or training.Recipe()
    work.mkdir(parents=True, exist_ok=True)
    weights.mkdir(parents=True, exist_ok=True)
    images, asked = training.pictures(recipe)
    vae = training.train_autoencoder(recipe, images, work)
    model.write_part("vae", vae.state_dict(), folder=weights)
    write_json(weights / "recipe.json", {"scaling_factor": vae.config.scaling_factor})
    keep = partial(model.write_part, folder=weights)
    training.train_diffusion(recipe, vae, images, asked, work, keep=keep)
    train_lab_reward(recipe.seed, weights=weights)
    write_recipe(recipe, scaling_factor=vae.config.scaling_factor, weights=weights)


def train_lab_reward(seed: int, *, weights: Path = model.WEIGHTS) -> None:
    """Train lab-reward on votes of its own seeds, all on training prompts, and write its shard."""
    asked = world.prompts("train")
    pipelines = {variant: model.pipeline(variant, weights=weights) for variant in model.VARIANTS}
    cast = [
        votes.cast(makers.make_images(pipelines, asked, seed=own), asked, seed=own, votes=4_200) for own in REWARD_SEEDS
    ]
    net = reward.train_reward(
        np.concatenate([own.images for own in cast]),
        [prompt for prompt in asked for _ in makers.MAKERS] * len(REWARD_SEEDS),
        np.concatenate([own.left + i * len(own.images) for i, own in enumerate(cast)]),
        np.concatenate([own.right + i * len(own.images) for i, own in enumerate(cast)]),
        np.concatenate([own.share for own in cast]),
        seed=seed,
    )
    model.write_part("reward", net.state_dict(), folder=weights)


def write_recipe(recipe: training.Recipe, *, scaling_factor: float, weights: Path = model.WEIGHTS) -> None:
    """Write `recipe.json`: how the weights were made, and the hash of every shard."""
    files = sorted(weights.glob("*.safetensors"))
    record = {
        "scaling_factor": scaling_factor,
        "command": f"scripts/train_lab --work DIR --seed {recipe.seed}",
        "recipe": asdict(recipe),
        "reward_seeds": list(REWARD_SEEDS),
        "versions": provenance.versions(),
        "bytes": {f.name: f.stat().st_size for f in files},
        "sha256": {f.name: provenance.sha256_file(f) for f in files},
    }
    write_json(weights / "recipe.json", record)
    say(f"{len(files)} shards, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB in {weights.name}/")
