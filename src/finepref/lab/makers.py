"""Image makers of comparable strength: two checkpoints of the lab's model, each at several samplings.

A maker stands for a model of an arena: the same prompt, its own noise, its own way of sampling.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finepref.core import rng
from finepref.core.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 126


@dataclass(frozen=True, slots=True)
class Maker:
    """A model of the lab's arena: a checkpoint ("base" or "early"), a guidance scale, a number of DDIM steps."""

    name: str
    variant: str
    guidance: float
    steps: int


MAKERS: tuple[Maker, ...] = (
    Maker("lab-g1.5-s10", "base", 1.5, 10),
    Maker("lab-g3-s8", "base", 3.0, 8),
    Maker("lab-g4-s10", "base", 4.0, 10),
    Maker("lab-early-g1.5-s10", "early", 1.5, 10),
    Maker("lab-early-g2-s8", "early", 2.0, 8),
    Maker("lab-early-g3-s8", "early", 3.0, 8),
)


def noise(seed: int, name: str, prompts: Sequence[str]) -> Tensor:
    """Initial latents [n,4,8,8], each a function of (seed, maker, prompt, occurrence of the prompt)."""
    import torch

    seen: dict[str, int] = {}
    drawn = []
    for prompt in prompts:
        seen[prompt] = seen.get(prompt, -1) + 1
        generator = rng.torch_generator(seed, "lab maker", name, prompt, seen[prompt])
        drawn.append(torch.randn((4, 8, 8), generator=generator))
    return torch.stack(drawn)


def make_images(
    pipelines: Mapping[str, Any], prompts: Sequence[str], *, seed: int, makers: Sequence[Maker] = MAKERS
) -> dict[str, NDArray[np.uint8]]:
    """Every maker's image of every prompt.

    Args:
        pipelines: variant -> StableDiffusionPipeline.
        prompts: n prompts; a repeated one gets another image.
        seed: decides the initial noise of every image.

    Returns:
        maker name -> [n,32,32,3] uint8.
    """
    latents = {maker.name: noise(seed, maker.name, prompts) for maker in makers}
    work = [(maker, slice(start, start + BATCH)) for maker in makers for start in range(0, len(prompts), BATCH)]

    def make(job: tuple[Maker, slice]) -> NDArray[np.uint8]:
        maker, rows = job
        made = own_state(pipelines[maker.variant])(
            list(prompts[rows]),
            latents=latents[maker.name][rows],
            guidance_scale=maker.guidance,
            num_inference_steps=maker.steps,
            height=32,
            width=32,
            output_type="np",
        ).images
        return np.round(255.0 * made).astype(np.uint8)

    images: dict[str, list[NDArray[np.uint8]]] = {maker.name: [] for maker in makers}
    with _one_core_each() as workers, ThreadPoolExecutor(workers) as pool:
        for (maker, _), made in zip(work, progress(pool.map(make, work), "images", total=len(work)), strict=True):
            images[maker.name].append(made)
    return {name: np.concatenate(parts) for name, parts in images.items()}


def own_state(pipeline: Any) -> Any:
    """The pipeline with a scheduler and a tokenizer of its own, the parts that keep state while sampling.

    A fast tokenizer keeps its padding, which the pipeline sets twice a prompt: threads that share one get each other's.
    """
    parts = dict(pipeline.components)
    parts["scheduler"] = parts["scheduler"].from_config(parts["scheduler"].config)
    parts["tokenizer"] = copy.deepcopy(parts["tokenizer"])
    own = type(pipeline)(**parts, requires_safety_checker=False)
    own.set_progress_bar_config(disable=True)
    return own


@contextmanager
def _one_core_each() -> Iterator[int]:
    """As many workers as torch has threads, each with one: on small tensors that beats threads inside operations."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
