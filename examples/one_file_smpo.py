"""SmPO in one file: rewards -> smoothed preferences -> inversion with ReNoise -> weighted DPO, on the lab world.

    python examples/one_file_smpo.py votes.parquet --steps 20 --out losses.json

It imports nothing of finepref but the lab's model and reward, and gives the loss series of

    finepref score votes.parquet --scorer lab-reward --out rewards-lab-reward.parquet
    finepref signals votes.parquet --kind smoothed --rewards rewards-lab-reward.parquet --out signals-smoothed.parquet
    finepref train -c lab/smpo --out runs/smpo

up to rounding (a test holds both together). Read it from top to bottom: it is the whole method.
Shapes: B pairs, R = 2B rows (winners, then losers), C channels, H W latent size.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import io
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from finepref.lab.model import materialise
from finepref.lab.scorers import lab_reward

Pair = tuple[str, str, bytes, bytes, float]  # pair id, prompt, winner, loser, weight


# ---------------------------------------------------------------- 1. smoothed preferences: who won, and how surely
def smooth(rows: list[dict], gamma: float) -> list[Pair]:
    """Eq. 8-12: rewards scaled to [0, 1] over the data set, p = sigmoid(r'_w - r'_l), weight = gamma (2p - 1)."""
    scorer = lab_reward()
    scores = np.empty((2, len(rows)))
    for side in (0, 1):
        for start in range(0, len(rows), 256):
            some = rows[start : start + 256]
            images = [Image.open(io.BytesIO(row[f"jpg_{side}"])) for row in some]
            scores[side, start : start + len(some)] = scorer.score(images, [row["caption"] for row in some])
    low, high = scores.min(), scores.max()
    pairs = []
    for row, (first, second) in zip(rows, scores.T, strict=True):
        if row["label_0"] == 0.5:  # human ties are left out; otherwise the humans' choice is not looked at
            continue
        won, lost = (0, 1) if first > second else (1, 0)
        difference = abs((first - low) / (high - low) - (second - low) / (high - low))
        weight = gamma * math.tanh(difference / 2)  # = gamma (2 sigmoid(difference) - 1)
        pairs.append((str(row["ranking_id"]), row["caption"], row[f"jpg_{won}"], row[f"jpg_{lost}"], weight))
    return pairs


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


# ---------------------------------------------------------------- 4. inversion: each pair to its own level t
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
ALPHA_BAR = torch.cumprod(1 - BETAS, 0).double()


def level(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """a(t), b(t) of x_t = a x0 + b eps, shaped to multiply latents."""
    alpha_bar = ALPHA_BAR[t]
    a, b = alpha_bar.sqrt().float().view(-1, 1, 1, 1), (1 - alpha_bar).sqrt().float().view(-1, 1, 1, 1)
    return a, b


def step(x: torch.Tensor, eps: torch.Tensor, source: torch.Tensor, destination: torch.Tensor) -> torch.Tensor:
    """Eq. 13, DDIM backwards: the x0 that eps stands for, noised to the next level with the same eps."""
    (a_s, b_s), (a_d, b_d) = level(source), level(destination)
    return a_d * (x - b_s * eps) / a_s + b_d * eps


def levels(t: int, steps: int) -> list[int]:
    """0 = s_0 < ... < s_K = t, evenly spaced; K = steps at the highest level, fewer in proportion below."""
    count = max(1, min(t, math.ceil(steps * t / 999)))
    return [round(k * t / count) for k in range(count + 1)]


@torch.no_grad()
def invert(
    network: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    x0: torch.Tensor,
    t: torch.Tensor,
    steps: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows x0 [R,...] to levels t [R]; Eq. 13 up to t, then one ReNoise (Eq. 14). Returns x_t and tau (Eq. 16).

    network(x, labels, rows) predicts the noise. Rows that have arrived leave the batch.
    """
    ladders = [levels(int(value), steps) for value in t]
    x, before = x0.clone(), x0.clone()
    for k in range(max(map(len, ladders))):
        moving = torch.tensor([r for r, ladder in enumerate(ladders) if k < len(ladder) - 1], dtype=torch.long)
        arrived = torch.tensor([r for r, ladder in enumerate(ladders) if k == len(ladder) - 1], dtype=torch.long)
        if len(moving):
            source, to = (torch.tensor([ladders[r][n] for r in moving.tolist()]) for n in (k, k + 1))
            eps = network(x[moving], source, moving).to(x.dtype)
            before[moving] = x[moving]
            x[moving] = step(x[moving], eps, source, to)
        if len(arrived):  # predict where the last step ended, and take that step again from where it began
            source = torch.tensor([ladders[r][k - 1] for r in arrived.tolist()])
            eps = network(x[arrived], t[arrived], arrived).to(x.dtype)
            x[arrived] = step(before[arrived], eps, source, t[arrived])
    a, b = level(t)
    return x, (x - a * x0) / b


# ---------------------------------------------------------------- 5. Diffusion-DPO at the inverted points, weighted
def error(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (prediction - target).square().flatten(1).mean(1)


def train(
    pipe: StableDiffusionPipeline,
    images: list[bytes],
    pairs: list[Pair],
    *,
    steps: int,
    seed: int,
    per_step: int,
    inversion_steps: int,
    beta: float,
    rate: float,
    warmup: int,
    dropout: float,
) -> list[float]:
    """Returns the mean loss of every step."""
    latents = encode_images(pipe, images)
    texts = encode_prompts(pipe, [pair[1] for pair in pairs])
    policy, reference = pipe.unet.train(), copy.deepcopy(pipe.unet).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        policy.parameters(), lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, fused=True
    )
    losses = []
    for number in range(steps):
        rows = []
        for k in range(number * per_step, (number + 1) * per_step):
            epoch = k // len(pairs)
            order = np.random.Generator(np.random.Philox(key=key(seed, "order", epoch))).permutation(len(pairs))
            rows.append((pairs[order[k % len(pairs)]], epoch))
        ids = [(pair[0], visit) for pair, visit in rows]
        t = torch.tensor([1 + int(uniform(seed, "t", *i) * 999) for i in ids])  # at t = 0 tau does not exist
        sides = []
        for place, word in ((2, "w"), (3, "l")):
            found = [latents[pair[place]] for pair, _ in rows]
            drawn = [normal(m.shape, seed, f"posterior-{word}", *i) for (m, _), i in zip(found, ids, strict=True)]
            sides.append(torch.stack([m + s * z for (m, s), z in zip(found, drawn, strict=True)]))
        dropped = [uniform(seed, "prompt", *i) < dropout for i in ids]
        text = torch.stack([texts["" if drop else pair[1]] for (pair, _), drop in zip(rows, dropped, strict=True)])
        weight = torch.tensor([pair[4] for pair, _ in rows], dtype=torch.float32)

        x0, t2, text2 = torch.cat(sides), torch.cat([t, t]), torch.cat([text, text])
        x_t, tau = invert(lambda x, s, r, c=text2: policy(x, s, c[r], return_dict=False)[0], x0, t2, inversion_steps)
        prediction = policy(x_t, t2, text2, return_dict=False)[0]
        with torch.no_grad():
            L_ref = error(reference(x_t, t2, text2, return_dict=False)[0], tau)
        A_w, A_l = (L_ref - error(prediction, tau)).split(per_step)
        u = beta / 2 * weight * (A_w - A_l)  # Eq. 15: a pair that the reward finds close hardly counts
        loss = -torch.nn.functional.logsigmoid(u)

        optimizer.zero_grad()
        (loss.sum() / per_step).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (number + 1) / warmup) if warmup else rate
        optimizer.step()
        losses.append(loss.double().mean().item())
        print(f"step {number + 1:4d}   loss {losses[-1]:.6f}   accuracy {(A_w > A_l).float().mean():.2f}")
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("votes", help="votes.parquet of `finepref lab votes`")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-step", type=int, default=32)
    parser.add_argument("--inversion-steps", type=int, default=9)
    parser.add_argument("--gamma", type=float, default=10.0)
    parser.add_argument("--beta", type=float, default=500.0)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--dropout", type=float, default=0.1, help="share of empty prompts")
    parser.add_argument("--model", help="folder for the lab's model; a temporary one by default")
    parser.add_argument("--out", help="write the losses as JSON")
    options = parser.parse_args()

    rows = pq.read_table(options.votes, columns=["ranking_id", "caption", "jpg_0", "jpg_1", "label_0"]).to_pylist()
    pairs = smooth(rows, options.gamma)
    print(f"{len(pairs)} pairs, mean weight {np.mean([pair[4] for pair in pairs]):.2f}")
    images = [row[f"jpg_{side}"] for row in rows for side in (0, 1)]  # those of ties too: the cache encodes them all
    with tempfile.TemporaryDirectory() as folder:
        model = materialise(options.model or Path(folder) / "lab")
        pipe = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, requires_safety_checker=False)
    names = ("steps", "seed", "per_step", "inversion_steps", "beta", "rate", "warmup", "dropout")
    losses = train(pipe, images, pairs, **{name: getattr(options, name) for name in names})
    if options.out:
        Path(options.out).write_text(json.dumps(losses))


if __name__ == "__main__":
    main()
