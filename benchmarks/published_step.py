"""The published Diffusion-DPO training step, restated from its description, to measure against.

One optimiser step is `accumulation` micro-steps of one pair each, as the official launchers run it (batch 1):
pixels of both images through the VAE, a posterior sample, the caption through tokenizer and text encoder, one noise and
one level for both images, the policy on both with gradient, the frozen reference on both without, the DPO loss, four
statistics read by the host, backward; then clip, AdamW, scheduler, zero. The scheduler is that of the scripts, from
diffusers' get_scheduler: the first step of a warm-up has rate 0.

Left out, in its favour: decoding and resizing of images, prompt dropout, wrappers of a launcher.
References: Diffusion-DPO (arXiv 2311.12908) Eq. 14 and its public training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """uint8 pixels [3,R,R] of winner and loser, and the caption (or its token ids)."""

    winner: Tensor
    loser: Tensor
    caption: Any


@dataclass(frozen=True)
class Randomness:
    """What a micro-step draws: posterior samples [2,C,h,w] of winner and loser, noise [1,C,h,w], level t [1]."""

    posterior: Tensor
    noise: Tensor
    t: Tensor


@dataclass
class Loop:
    """The networks and settings of the published loop. alpha_bar: [T] float32. tokenise: captions -> ids [1,L].

    scheduler: of diffusers' get_scheduler; None: the rate stays. amp: autocast dtype on `device`; None for float32.
    """

    vae: Any
    text_encoder: Any
    tokenise: Callable[[Any], Tensor]
    policy: Any
    reference: Any
    alpha_bar: Tensor
    optimizer: torch.optim.Optimizer
    beta: float
    device: torch.device
    scheduler: torch.optim.lr_scheduler.LambdaLR | None = None
    amp: torch.dtype | None = None
    max_grad_norm: float = 1.0

    def draw(self, shape: Sequence[int]) -> Randomness:
        """Fresh random numbers for one pair with latents of a shape [C,h,w]."""
        return Randomness(
            posterior=torch.randn(2, *shape, device=self.device),
            noise=torch.randn(1, *shape, device=self.device),
            t=torch.randint(0, len(self.alpha_bar), (1,), device=self.device),
        )

    def micro_step(self, pair: Pair, randomness: Randomness, *, share: float) -> tuple[float, ...]:
        """One pair forward and backward; its loss counts `share` in the optimiser step."""
        pixels = torch.stack([pair.winner, pair.loser]).to(self.device).float() / 127.5 - 1.0
        autocast = nullcontext() if self.amp is None else torch.autocast(self.device.type, dtype=self.amp)
        with autocast:
            with torch.no_grad():
                posterior = self.vae.encode(pixels).latent_dist
                latents = (posterior.mean + posterior.std * randomness.posterior) * self.vae.config.scaling_factor
                states = self.text_encoder(self.tokenise(pair.caption).to(self.device))[0].repeat(2, 1, 1)
            t, noise = randomness.t.repeat(2), randomness.noise.repeat(2, 1, 1, 1)
            level = self.alpha_bar[t].view(-1, 1, 1, 1)
            noisy = level.sqrt() * latents + (1 - level).sqrt() * noise
            predicted = self.policy(noisy, t, states, return_dict=False)[0].float()
            with torch.no_grad():
                frozen = self.reference(noisy, t, states, return_dict=False)[0].float()
        error = (predicted - noise).square().mean(dim=(1, 2, 3))
        known = (frozen - noise).square().mean(dim=(1, 2, 3))
        advantage = (known[0] - error[0]) - (known[1] - error[1])
        logit = 0.5 * self.beta * advantage
        loss = -F.logsigmoid(logit)
        read = (loss.item(), error.mean().item(), known.mean().item(), float((logit > 0).item()))
        (loss * share).backward()
        return read

    def optimiser_step(self, pairs: Sequence[Pair], randomness: Sequence[Randomness]) -> tuple[float, float]:
        """(mean loss, gradient norm before clipping) of one optimiser step over all pairs."""
        losses = [
            self.micro_step(pair, drawn, share=1 / len(pairs))[0] for pair, drawn in zip(pairs, randomness, strict=True)
        ]
        parameters = [p for p in self.policy.parameters() if p.requires_grad]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm).item()
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        return sum(losses) / len(losses), norm
