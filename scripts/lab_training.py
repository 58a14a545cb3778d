"""How the lab's weights are made: autoencoder, then text encoder and UNet together; every draw from one seed.

Both trainings are functions of (seed, step), save their state while they run, and continue where they stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from finepref.core import rng
from finepref.core.files import atomic_file
from finepref.core.progress import progress, say
from finepref.lab import architecture, world
from finepref.lab.reward import as_input

STATE_EVERY = 200
WARMUP = 100


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every number of the lab's training."""

    seed: int = 0
    pictures: int = 24_000
    vae_steps: int = 1_800
    vae_batch: int = 32
    vae_learning_rate: float = 2e-3
    vae_kl: float = 1e-4
    unet_steps: int = 4_000
    unet_batch: int = 64
    unet_learning_rate: float = 1e-3
    unet_ema: float = 0.995
    early_step: int = 2_000
    prompt_drop: float = 0.2


def pictures(recipe: Recipe) -> tuple[np.ndarray, list[str]]:
    """The training pictures [n,32,32,3] uint8 with their prompts: every prompt of the world in turn."""
    every = world.prompts("all")
    asked = [every[i % len(every)] for i in range(recipe.pictures)]
    generator = rng.numpy_generator(recipe.seed, "lab pictures")
    return np.stack([world.draw(prompt, generator) for prompt in progress(asked, "pictures")]), asked


def _initialised(build: Callable[[], Any], seed: int, name: str) -> Any:
    """Build a module whose initial weights are a function of the seed and its name."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng.key(seed, "lab init", name) & (2**63 - 1))
        return build()


def _rate(step: int, total: int, peak: float) -> float:
    """Learning rate: linear warm-up, then a cosine to 2 % of the peak."""
    if step < WARMUP:
        return peak * (step + 1) / WARMUP
    return peak * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * (step - WARMUP) / (total - WARMUP))))


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state of the training, whole or not at all."""
    with atomic_file(path) as temporary:
        torch.save(state, temporary)


def _steps(
    path: Path,
    parts: dict[str, torch.nn.Module],
    *,
    total: int,
    peak: float,
    loss_at: Callable[[int], Tensor],
    after: Callable[[int], None],
    what: str,
) -> None:
    """AdamW with clipping over `total` steps; the state at `path` is saved every STATE_EVERY steps and resumed."""
    weights = [p for part in parts.values() for p in part.parameters() if p.requires_grad]
    trained = [name for name, part in parts.items() if any(p.requires_grad for p in part.parameters())]
    optimiser = torch.optim.AdamW(weights, lr=peak, weight_decay=1e-3, betas=(0.9, 0.99))
    start, recent = 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        optimiser.load_state_dict(state["optimiser"])
        start = int(state["step"])
    for name in trained:
        parts[name].train()
    for step in progress(range(start, total), what, total=total - start):
        for group in optimiser.param_groups:
            group["lr"] = _rate(step, total, peak)
        loss = loss_at(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        recent += float(loss.detach())
        after(step + 1)
        if (step + 1) % STATE_EVERY == 0 or step + 1 == total:
            say(f"{what} step {step + 1}: loss {recent / (step % STATE_EVERY + 1):.5f}")
            recent = 0.0
            named = {name: part.state_dict() for name, part in parts.items()}
            save_state(path, {**named, "optimiser": optimiser.state_dict(), "step": step + 1})


def train_autoencoder(recipe: Recipe, images: np.ndarray, work: Path) -> Any:
    """Train the autoencoder on mean-square error plus a small KL; its config carries one over the latents' std."""
    vae = _initialised(architecture.autoencoder, recipe.seed, "vae")

    def loss_at(step: int) -> Tensor:
        rows = rng.numpy_generator(recipe.seed, "vae batch", step).integers(len(images), size=recipe.vae_batch)
        x = as_input(images[rows])
        posterior = vae.encode(x).latent_dist
        z = posterior.sample(generator=rng.torch_generator(recipe.seed, "vae noise", step))
        return F.mse_loss(vae.decode(z).sample, x) + recipe.vae_kl * posterior.kl().mean() / z[0].numel()

    _steps(
        work / "vae.pt",
        {"vae": vae},
        total=recipe.vae_steps,
        peak=recipe.vae_learning_rate,
        loss_at=loss_at,
        after=lambda step: None,
        what="autoencoder",
    )
    vae.eval()
    latents = encode(vae, images[:2048])
    vae.register_to_config(scaling_factor=round(float(1.0 / latents.std()), 5))
    with torch.no_grad():
        again = vae.decode(latents[:512]).sample.clamp(-1.0, 1.0)
        error = F.mse_loss(again, as_input(images[:512])) / 4.0
    say(f"autoencoder: {-10.0 * math.log10(float(error)):.2f} dB, scaling factor {vae.config.scaling_factor}")
    return vae


@torch.no_grad()
def encode(vae: Any, images: np.ndarray, batch: int = 256) -> Tensor:
    """Unscaled posterior means [n,4,8,8] of uint8 images."""
    parts = [vae.encode(as_input(images[i : i + batch])).latent_dist.mean for i in range(0, len(images), batch)]
    return torch.cat(parts)


def train_diffusion(
    recipe: Recipe,
    vae: Any,
    images: np.ndarray,
    asked: list[str],
    work: Path,
    *,
    keep: Callable[[str, dict[str, Tensor]], None],
) -> None:
    """Train text encoder and UNet together on epsilon; `keep(part, state)` gets the averaged weights at the end.

    The average is exponential with a warm-up, min(ema, (1+step)/(10+step)). Parts are "base.text_encoder",
    "base.unet" and, as they were at `early_step`, "early.text_encoder" and "early.unet".
    """
    parts = {
        name + suffix: _initialised(made, recipe.seed, name)
        for suffix in ("", "_average")
        for name, made in (("text", architecture.text_encoder), ("unet", architecture.unet))
    }
    for name in ("text_average", "unet_average"):
        parts[name].requires_grad_(False).eval()
    tokenizer, noiser = architecture.tokenizer(), architecture.scheduler()
    latents = encode(vae, images) * vae.config.scaling_factor
    every = world.prompts("all")
    number = {prompt: i for i, prompt in enumerate(every)}
    ids = tokenizer([*every, ""], padding="max_length", truncation=True, return_tensors="pt").input_ids
    prompt_of = np.array([number[prompt] for prompt in asked])

    def loss_at(step: int) -> Tensor:
        draws = rng.numpy_generator(recipe.seed, "unet batch", step)
        rows = draws.integers(len(latents), size=recipe.unet_batch)
        dropped = draws.random(recipe.unet_batch) < recipe.prompt_drop
        t = torch.from_numpy(draws.integers(1000, size=recipe.unet_batch))
        x0 = latents[rows]
        noise = torch.randn(x0.shape, generator=rng.torch_generator(recipe.seed, "unet noise", step))
        words = ids[np.where(dropped, len(every), prompt_of[rows])]
        states = parts["text"](words).last_hidden_state
        return F.mse_loss(parts["unet"](noiser.add_noise(x0, noise, t), t, states).sample, noise)

    def averages() -> dict[str, dict[str, Tensor]]:
        return {"text_encoder": parts["text_average"].state_dict(), "unet": parts["unet_average"].state_dict()}

    @torch.no_grad()
    def after(step: int) -> None:
        decay = min(recipe.unet_ema, (1.0 + step) / (10.0 + step))
        for name in ("text", "unet"):
            pairs = zip(parts[f"{name}_average"].parameters(), parts[name].parameters(), strict=True)
            for average, now in pairs:
                average.lerp_(now, 1.0 - decay)
        if step == recipe.early_step:
            save_state(work / "early.pt", averages())

    _steps(
        work / "diffusion.pt",
        parts,
        total=recipe.unet_steps,
        peak=recipe.unet_learning_rate,
        loss_at=loss_at,
        after=after,
        what="diffusion",
    )
    for variant, states in (("base", averages()), ("early", torch.load(work / "early.pt", weights_only=True))):
        for name, state in states.items():
            keep(f"{variant}.{name}", state)
