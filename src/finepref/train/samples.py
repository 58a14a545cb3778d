"""Images of a few prompts while a run goes on: the strip per prompt over training steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from finepref import rng
from finepref.files import atomic_folder, write_json
from finepref.train.config import ValidationSection


@torch.no_grad()
def write_samples(pipeline: Any, options: ValidationSection, folder: Path) -> None:
    """One image per validation prompt and seed, `<prompt number>-<seed>.png`, and samples.json with the prompts.

    The initial noise depends on prompt number and seed alone, so that the images of different steps can be compared.
    """
    jobs = [(p, s) for p in range(len(options.prompts)) for s in options.seeds]
    pipeline.set_progress_bar_config(disable=True)
    with atomic_folder(folder) as place:
        for prompt, one in jobs:
            image = pipeline(
                options.prompts[prompt],
                num_inference_steps=options.steps,
                guidance_scale=options.guidance,
                generator=rng.torch_generator(one, "validation", prompt),
            ).images[0]
            image.save(place / f"{prompt:03d}-{one}.png")
        write_json(
            place / "samples.json",
            {"prompts": options.prompts, "seeds": options.seeds, "steps": options.steps, "guidance": options.guidance},
        )
