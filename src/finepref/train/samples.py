"""Images of a few prompts while a run goes on: the strip per prompt over training steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from finepref.core import rng
from finepref.core.files import atomic_folder, write_json
from finepref.train.config import ValidationSection

Images = dict[tuple[int, int], Any]  # (prompt number, seed) -> PIL image


@torch.no_grad()
def draw_samples(pipeline: Any, options: ValidationSection) -> Images:
    """One image per validation prompt and seed.

    The initial noise depends on prompt number and seed alone, so that the images of different steps can be compared.
    """
    pipeline.set_progress_bar_config(disable=True)
    return {
        (prompt, one): pipeline(
            options.prompts[prompt],
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            generator=rng.torch_generator(one, "validation", prompt),
        ).images[0]
        for prompt in range(len(options.prompts))
        for one in options.seeds
    }


def write_samples(images: Images, options: ValidationSection, folder: Path) -> None:
    """Write `<prompt number>-<seed>.png` of every image, and samples.json with the prompts."""
    with atomic_folder(folder) as place:
        for (prompt, one), image in images.items():
            image.save(place / f"{prompt:03d}-{one}.png")
        write_json(
            place / "samples.json",
            {"prompts": options.prompts, "seeds": options.seeds, "steps": options.steps, "guidance": options.guidance},
        )
