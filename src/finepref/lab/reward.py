"""`lab-reward`: a small network that learned from votes what voters like; PickScore's part in the lab.

It sees pixels and the words of the prompt, and only votes on training prompts; it never sees the true quality.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from finepref.core import rng
from finepref.core.progress import progress
from finepref.lab import world

WORDS = (*world.COLOURS, *world.SHAPES, *world.BACKGROUNDS)
WIDTHS = (24, 48, 64)


class RewardNet(nn.Module):
    """Three strided convolutions, each scaled and shifted by the prompt's words, then two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *WIDTHS)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(widths, WIDTHS, strict=False)
        )
        self.words = nn.Linear(len(WORDS), 96)
        self.films = nn.ModuleList(nn.Linear(96, 2 * width) for width in WIDTHS)
        self.hidden = nn.Linear(WIDTHS[-1] * 16, 64)
        self.out = nn.Linear(64, 1)

    def forward(self, pixels: Tensor, words: Tensor) -> Tensor:
        """Pixels [n,3,32,32] in [-1, 1] and words [n,24] -> score [n]."""
        text = F.silu(self.words(words))
        x = pixels
        for conv, film in zip(self.convs, self.films, strict=True):
            scale, shift = film(text)[:, :, None, None].chunk(2, dim=1)
            x = F.silu(conv(x) * (1.0 + scale) + shift)
        return self.out(F.silu(self.hidden(x.flatten(1)))).squeeze(1)


def bag_of_words(prompts: Sequence[str]) -> Tensor:
    """[n,24] which words of the world a prompt holds; other words do not count."""
    found = [set(re.findall(r"[a-z]+", prompt.lower())) for prompt in prompts]
    return torch.tensor([[float(word in words) for word in WORDS] for words in found])


def as_input(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [n,32,32,3] -> float32 [n,3,32,32] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def train_reward(
    images: NDArray[np.uint8],
    prompts: Sequence[str],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    share: NDArray[np.float64],
    *,
    seed: int,
    steps: int = 1_200,
    batch: int = 128,
) -> RewardNet:
    """Bradley-Terry on votes: cross-entropy of sigmoid(score_left - score_right) against the left image's share.

    Args:
        images: [n,32,32,3] uint8; prompts: n.
        left, right: [m] image numbers; share: [m], 1 left won, 0 right won, 0.5 tie.
        seed: decides initial weights, batches and the pixel noise that keeps it from learning images by heart.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng.key(seed, "lab init", "reward") & (2**63 - 1))
        net = RewardNet()
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=3e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    pixels, words, target = as_input(images), bag_of_words(prompts), torch.from_numpy(share).float()
    for step in progress(range(steps), "lab-reward"):
        rows = rng.numpy_generator(seed, "reward batch", step).integers(len(left), size=batch)
        both = np.concatenate([left[rows], right[rows]])
        generator = rng.torch_generator(seed, "reward noise", step)
        x = pixels[both] + 0.05 * torch.randn((2 * batch, *pixels.shape[1:]), generator=generator)
        score = net(x, words[both])
        loss = F.binary_cross_entropy_with_logits(score[:batch] - score[batch:], target[rows])
        loss.backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
    return net.eval()


def scoring_function(state: dict[str, Tensor]) -> Callable[[NDArray[np.uint8], Sequence[str]], NDArray[np.float64]]:
    """A function of uint8 images [n,32,32,3] and prompts -> float64 [n].

    It computes in float64 and rounds to nine decimals, so the other images of a batch cannot change a score.
    """
    net: Any = RewardNet()
    net.load_state_dict(state)
    net.double().eval().requires_grad_(False)

    def score(images: NDArray[np.uint8], prompts: Sequence[str]) -> NDArray[np.float64]:
        parts = [
            net(as_input(images[i : i + 256]).double(), bag_of_words(prompts[i : i + 256]).double()).numpy()
            for i in range(0, len(images), 256)
        ]
        return np.round(np.concatenate([*parts, np.zeros(0)]), 9)

    return score
