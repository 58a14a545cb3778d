"""The pipeline, pairs and runs of the CPU comparison: real files, the real cache, the real loop."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from architectures import KL_VAE, RESOLUTION, TINY_CLIP, UNETS, VAES
from published_step import Loop, Pair, Randomness

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import own_pairs
import tiny
from finepref.core import rng
from finepref.core.buckets import Bucket
from finepref.core.images import fitted
from finepref.core.provenance import sha256_bytes
from finepref.formats.metrics import StepMetrics
from finepref.models.source import load_part, locate
from finepref.train import loop
from finepref.train import state as state_of
from finepref.train.config import RunConfig, parse_config
from finepref.train.identity import Prepared, prepare
from finepref.train.opened import about_base, open_latents
from finepref.train.processes import World
from finepref.train.run import make_run

PAIRS, STEP = 64, 8  # pairs of the data set, pairs of an optimiser step
LATENT = (4, 16, 16)
HERE = World(rank=0, size=1, device=torch.device("cpu"))


def save_pipeline(folder: Path) -> Path:
    """The tiny Stable Diffusion pipeline with random weights, as a diffusers folder."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    levels = len(VAES["tiny"]["block_out_channels"])
    blocks = {
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }
    tokenizer = tiny.clip_tokenizer()
    text = {**TINY_CLIP, "vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    pipe = StableDiffusionPipeline(
        vae=tiny.seeded(1, lambda: AutoencoderKL(**{**KL_VAE, **VAES["tiny"], **blocks})),
        text_encoder=tiny.seeded(2, lambda: CLIPTextModel(CLIPTextConfig(**text))),
        tokenizer=tokenizer,
        unet=tiny.seeded(3, lambda: UNet2DConditionModel(**UNETS["tiny"])),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(str(folder), safe_serialization=True)
    return folder


def make_config(folder: Path, **train: Any) -> RunConfig:
    """The run of the comparison; its model and pairs are made in `folder` at the first call."""
    if not (folder / "model").exists():
        save_pipeline(folder / "model")
        own_pairs.make_folder(folder / "data", pairs=PAIRS)
    options = {"pairs_per_step": STEP, "micro_batch": STEP, "max_steps": 8, "learning_rate": 1e-6}
    return parse_config(
        {
            "model": {"base": str(folder / "model")},
            "data": {"paths": [str(folder / "data")], "resolution": RESOLUTION["tiny"], "prompt_dropout": 0.0},
            "cache": {"folder": str(folder / "cache"), "dtype": "float32"},
            "objective": {"name": "dpo", "beta": train.pop("beta", 5000.0)},
            "train": {**options, "lr_scheduler": "constant", "place_batch": STEP, **train},
        }
    )


@dataclasses.dataclass(frozen=True)
class Ours:
    """A run that is ready for its next optimiser step."""

    prepared: Prepared
    run: state_of.Run
    state: state_of.State

    def step(self, number: int) -> StepMetrics:
        """One optimiser step of the library's loop."""
        return loop.optimiser_step(self.run, self.state, number)


def our_run(config: RunConfig, folder: Path) -> Ours:
    """The library's own run of a config."""
    prepared = prepare(config, cache=open_latents(config, folder, world=HERE), base=about_base(config))
    run = make_run(prepared, folder / "run", world=HERE)
    state = loop.begin(run, resume=False)
    run.adapter.train_mode(True)
    return Ours(prepared, run, state)


def published_run(config: RunConfig) -> Loop:
    """The published loop on the same networks, with the same schedule."""
    from diffusers.optimization import get_scheduler

    source = locate(config.model.base)
    tokenizer = tiny.clip_tokenizer()
    policy = load_part(source, "unet").requires_grad_(True).train()
    options = config.train
    optimizer = torch.optim.AdamW(
        policy.parameters(),
        lr=options.learning_rate * (options.pairs_per_step if options.scale_lr else 1),
        betas=(options.adam_beta1, options.adam_beta2),
        eps=options.adam_epsilon,
        weight_decay=options.adam_weight_decay,
    )
    return Loop(
        vae=load_part(source, "vae"),
        text_encoder=load_part(source, "text_encoder"),
        tokenise=lambda caption: (
            tokenizer(caption, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
        ),
        policy=policy,
        reference=load_part(source, "unet").train(),
        alpha_bar=torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, dim=0),
        optimizer=optimizer,
        scheduler=get_scheduler(
            options.lr_scheduler,
            optimizer,
            num_warmup_steps=options.lr_warmup_steps,
            num_training_steps=options.max_steps,
        ),
        beta=float(config.objective.options()["beta"]),
        device=torch.device("cpu"),
    )


class SameDraws:
    """Pairs and random numbers of an optimiser step of ours, for the published loop."""

    def __init__(self, ours: Ours, data: Path) -> None:
        self.source, self.path, self.seed = ours.run.source, ours.run.adapter.path, ours.run.config.train.seed
        files = [path for path in data.iterdir() if path.suffix != ".csv"]
        self.pixels = {sha256_bytes(path.read_bytes()): self._pixels(path) for path in files}
        self.captions = {sha256_bytes(prompt.encode()): prompt for prompt in own_pairs.PROMPTS}

    @staticmethod
    def _pixels(path: Path) -> torch.Tensor:
        return torch.from_numpy(fitted(path.read_bytes(), Bucket(RESOLUTION["tiny"], RESOLUTION["tiny"]))[0])

    def of(self, step: int) -> tuple[list[Pair], list[Randomness]]:
        """(pairs, random numbers) of optimiser step `step`."""
        table, pairs, randomness = self.source.table, [], []
        for draw in self.source.order(step=step, per_step=STEP):
            row, pair_id, visits = draw.index, [table.pair_id[draw.index]], [draw.visit]
            sample = [rng.normals(self.seed, f"posterior-{w}", pair_id, visits, LATENT) for w in "wl"]
            u = rng.uniforms(self.seed, "t", pair_id, visits)
            images = (self.pixels[table.winner[row]], self.pixels[table.loser[row]])
            pairs.append(Pair(*images, self.captions[table.prompt[row]]))
            randomness.append(
                Randomness(
                    posterior=torch.cat(sample),
                    noise=rng.normals(self.seed, "noise", pair_id, visits, LATENT),
                    t=self.path.draw_t(torch.from_numpy(u), lowest=0),
                )
            )
        return pairs, randomness
