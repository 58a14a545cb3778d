"""ArenaPO in one file: votes -> ratings -> gaps -> Diffusion-DPO with a margin, on the lab world.

    python examples/one_file_arenapo.py votes.parquet --steps 20 --out losses.json

It imports nothing of finepref but the lab's model, and gives the loss series of

    finepref arena votes.parquet --engine online --out arena
    finepref signals votes.parquet --kind paper --arena arena --out signals.parquet
    finepref train -c lab/arenapo --out runs/arenapo

up to rounding (a test holds both together). Read it from top to bottom: it is the whole method.
Shapes: B pairs, C channels, H W latent size.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import io
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from scipy.special import ndtri

from finepref.lab.model import materialise

# ---------------------------------------------------------------- 1. the arena: one Gaussian rating per model
MU0, SIGMA0, BETA_ARENA, TAU, P_DRAW = 25.0, 25.0 / 3, 25.0 / 6, 25.0 / 300, 0.1  # K-Sort Arena: TrueSkill's defaults


def phi(x: float) -> float:
    return math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def Phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def rate(left: list[str], right: list[str], label: list[float]) -> dict[str, tuple[float, float]]:
    """Appendix A with K-Sort Arena's dynamics: exact moments of the posterior, vote by vote, ties as draws."""
    ratings = {name: (MU0, SIGMA0) for name in sorted({*left, *right})}
    margin = float(ndtri((P_DRAW + 1) / 2)) * math.sqrt(2) * BETA_ARENA
    for a, b, share in zip(left, right, label, strict=True):
        if a == b:
            continue
        winner, loser = (b, a) if share == 0 else (a, b)
        (mu_w, s_w), (mu_l, s_l) = ratings[winner], ratings[loser]
        var_w, var_l = s_w**2 + TAU**2, s_l**2 + TAU**2
        c = math.sqrt(2 * BETA_ARENA**2 + var_w + var_l)
        t, k = (mu_w - mu_l) / c, margin / c
        if share == 0.5:
            mass = Phi(k - t) - Phi(-k - t)
            v = (phi(-k - t) - phi(k - t)) / mass
            w = v * v + ((k - t) * phi(k - t) + (k + t) * phi(k + t)) / mass
        else:
            v = phi(t - k) / Phi(t - k)
            w = v * (v + t - k)
        ratings[winner] = (mu_w + var_w / c * v, math.sqrt(var_w * (1 - var_w / c**2 * w)))
        ratings[loser] = (mu_l - var_l / c * v, math.sqrt(var_l * (1 - var_l / c**2 * w)))
    return ratings


def gap(winner: tuple[float, float], loser: tuple[float, float]) -> float:
    """Eq. 12: E[Q_w - Q_l | Q_w > Q_l] = m + s phi(m/s) / Phi(m/s), a truncated normal."""
    m, s = winner[0] - loser[0], math.hypot(winner[1], loser[1])
    return m + s * phi(m / s) / Phi(m / s)


# ---------------------------------------------------------------- 2. every draw is a function of (seed, pair, visit)
def key(seed: int, *words: object) -> int:
    text = "\x1f".join([str(seed), *(f"{type(word).__name__}:{word}" for word in words)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def uniform(seed: int, *words: object) -> float:
    return (key(seed, *words) >> 75) * 2.0**-53


def normal(shape: tuple[int, ...], seed: int, *words: object) -> torch.Tensor:
    generator = torch.Generator().manual_seed(key(seed, *words) & (2**63 - 1))
    return torch.randn(shape, generator=generator)


# ---------------------------------------------------------------- 3. images and prompts, encoded once
@torch.no_grad()
def encode_images(pipe: StableDiffusionPipeline, images: list[bytes]) -> dict[bytes, tuple[torch.Tensor, torch.Tensor]]:
    """Mean and standard deviation of every image's latent, kept in half precision as the cache keeps them."""
    moments = {}
    unique = list(dict.fromkeys(images))
    for start in range(0, len(unique), 32):
        batch = unique[start : start + 32]
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in batch])
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div(255).sub(0.5).div(0.5)
        posterior = pipe.vae.encode(x).latent_dist
        mean, std = (value * pipe.vae.config.scaling_factor for value in (posterior.mean, posterior.std))
        for i, data in enumerate(batch):
            moments[data] = (mean[i].half().float(), std[i].half().float())
    return moments


@torch.no_grad()
def encode_prompts(pipe: StableDiffusionPipeline, prompts: list[str]) -> dict[str, torch.Tensor]:
    return {p: pipe.encode_prompt([p], "cpu", 1, False)[0][0].half().float() for p in dict.fromkeys(["", *prompts])}


# ---------------------------------------------------------------- 4. Diffusion-DPO with a margin
def error(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (prediction - target).square().flatten(1).mean(1)


def train(
    pipe: StableDiffusionPipeline,
    images: list[bytes],
    pairs: list[tuple[str, str, bytes, bytes, float]],
    *,
    steps: int,
    seed: int,
    per_step: int,
    beta: float,
    scale: float,
    rate: float,
    warmup: int,
    dropout: float,
) -> list[float]:
    """pairs: (pair id, prompt, winner, loser, gap). Returns the mean loss of every step."""
    latents = encode_images(pipe, images)
    texts = encode_prompts(pipe, [prompt for _, prompt, *_ in pairs])
    policy, reference = pipe.unet.train(), copy.deepcopy(pipe.unet).eval().requires_grad_(False)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alpha_bar = torch.cumprod(1 - betas, 0).double()
    optimizer = torch.optim.AdamW(
        policy.parameters(), lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, fused=True
    )
    losses = []
    for step in range(steps):
        rows = []
        for k in range(step * per_step, (step + 1) * per_step):
            epoch = k // len(pairs)
            order = np.random.Generator(np.random.Philox(key=key(seed, "order", epoch))).permutation(len(pairs))
            rows.append((pairs[order[k % len(pairs)]], epoch))
        ids = [(pair[0], visit) for pair, visit in rows]
        t = torch.tensor([int(uniform(seed, "t", *i) * 1000) for i in ids])
        eps = torch.stack(
            [normal(latents[pair[2]][0].shape, seed, "noise", *i) for (pair, _), i in zip(rows, ids, strict=True)]
        )
        sides = []
        for place, word in ((2, "w"), (3, "l")):
            found = [latents[pair[place]] for pair, _ in rows]
            drawn = [normal(m.shape, seed, f"posterior-{word}", *i) for (m, _), i in zip(found, ids, strict=True)]
            sides.append(torch.stack([m + s * z for (m, s), z in zip(found, drawn, strict=True)]))
        dropped = [uniform(seed, "prompt", *i) < dropout for i in ids]
        text = torch.stack([texts["" if drop else pair[1]] for (pair, _), drop in zip(rows, dropped, strict=True)])
        delta = torch.tensor([scale * np.float32(pair[4]) for pair, _ in rows], dtype=torch.float32)

        a, b = (c.float().view(-1, 1, 1, 1) for c in (alpha_bar[t].sqrt(), (1 - alpha_bar[t]).sqrt()))
        x_t = torch.cat([a * x0 + b * eps for x0 in sides])  # the same t and noise for winner and loser
        both = (x_t, torch.cat([t, t]), torch.cat([text, text]))
        prediction = policy(*both, return_dict=False)[0]
        with torch.no_grad():
            ref = reference(*both, return_dict=False)[0]
        L_w, L_l = error(prediction[:per_step], eps), error(prediction[per_step:], eps)
        R_w, R_l = error(ref[:per_step], eps), error(ref[per_step:], eps)
        u = beta / 2 * ((R_w - L_w) - (R_l - L_l)) - delta  # Eq. 14: the gap is asked for before the pair is content
        loss = -torch.nn.functional.logsigmoid(u)

        optimizer.zero_grad()
        (loss.sum() / per_step).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / warmup) if warmup else rate
        optimizer.step()
        losses.append(loss.double().mean().item())
        print(f"step {step + 1:4d}   loss {losses[-1]:.6f}   accuracy {(R_w - L_w > R_l - L_l).float().mean():.2f}")
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("votes", help="votes.parquet of `finepref lab votes`")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-step", type=int, default=32)
    parser.add_argument("--beta", type=float, default=500.0)
    parser.add_argument("--scale", type=float, default=1.0, help="lambda, the factor of the gap")
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--dropout", type=float, default=0.1, help="share of empty prompts")
    parser.add_argument("--model", help="folder for the lab's model; a temporary one by default")
    parser.add_argument("--out", help="write the losses as JSON")
    options = parser.parse_args()

    columns = ["ranking_id", "caption", "jpg_0", "jpg_1", "label_0", "model_0", "model_1"]
    votes = pq.read_table(options.votes, columns=columns).to_pylist()
    ratings = rate(*([row[name] for row in votes] for name in ("model_0", "model_1", "label_0")))
    for name, (mu, sigma) in sorted(ratings.items(), key=lambda item: -item[1][0]):
        print(f"{name:<16} mu {mu:6.2f}   sigma {sigma:.2f}")
    pairs = []
    for row in votes:
        if row["label_0"] != 0.5:  # ties teach the arena, not the model
            won, lost = (0, 1) if row["label_0"] == 1 else (1, 0)
            delta = gap(ratings[row[f"model_{won}"]], ratings[row[f"model_{lost}"]])
            pairs.append((str(row["ranking_id"]), row["caption"], row[f"jpg_{won}"], row[f"jpg_{lost}"], delta))
    print(f"{len(pairs)} pairs, mean gap {np.mean([pair[4] for pair in pairs]):.2f}")

    images = [row[f"jpg_{side}"] for row in votes for side in (0, 1)]  # those of ties too: the cache encodes them all
    with tempfile.TemporaryDirectory() as folder:
        model = materialise(options.model or Path(folder) / "lab")
        pipe = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, requires_safety_checker=False)
    names = ("steps", "seed", "per_step", "beta", "scale", "rate", "warmup", "dropout")
    losses = train(pipe, images, pairs, **{name: getattr(options, name) for name in names})
    if options.out:
        Path(options.out).write_text(json.dumps(losses))


if __name__ == "__main__":
    main()
