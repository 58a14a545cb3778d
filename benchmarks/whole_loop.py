"""Does a whole run move the weights as the published loop does, with the official schedule?

python benchmarks/whole_loop.py [--steps 12] [--warmup 4] [--json] [--out FILE]
    `finepref train` of a Diffusion-DPO config from its files to its saved network, and the published loop restated in
    published_step.py: one pair a micro-step, VAE and text encoder online, AdamW, diffusers' `constant_with_warmup`, the
    launcher's effective rate 2.048e-5, beta 5000. Same weights, pairs and random numbers; tiny pipeline, float32.
    Printed: how far the two final movements are apart, relative to the published one; the same for the warm-up of
    (k+1)/W, which is one step ahead.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))

BAR = 3e-3  # relative to the published movement
RATE = 2.048e-5  # Diffusion-DPO's launchers: 1e-8 times 2048 pairs


def official(folder: Path, *, steps: int, warmup: int, **train: Any) -> Any:
    """The config of a run with the official schedule."""
    from tiny_pipeline import STEP, make_config

    return make_config(
        folder, max_steps=steps, lr_scheduler="constant_with_warmup", lr_warmup_steps=warmup, scale_lr=True,
        learning_rate=RATE / STEP, checkpoint_every=0, **train,
    )  # fmt: skip


def our_movement(config: Any, out: Path) -> dict[str, Tensor]:
    """Parameter -> how far a run by the library moved it."""
    from diffusers import UNet2DConditionModel

    from finepref.train.run import train_run

    start = UNet2DConditionModel.from_pretrained(config.model.base, subfolder="unet")
    end = UNet2DConditionModel.from_pretrained(train_run(config, out) / "unet")
    return _moved(start, end)


def published_movement(config: Any, folder: Path) -> dict[str, Tensor]:
    """Parameter -> how far the published loop moved it, with the run's own random numbers."""
    from diffusers import UNet2DConditionModel
    from tiny_pipeline import SameDraws, our_run, published_run

    start = UNet2DConditionModel.from_pretrained(config.model.base, subfolder="unet")
    loop, draws = published_run(config), SameDraws(our_run(config, folder), folder / "data")
    for step in range(config.train.max_steps):
        loop.optimiser_step(*draws.of(step))
    return _moved(start, loop.policy)


def _moved(start: torch.nn.Module, end: torch.nn.Module) -> dict[str, Tensor]:
    before = dict(start.named_parameters())
    return {name: (value.detach().double() - before[name].detach().double()) for name, value in end.named_parameters()}


def apart(ours: dict[str, Tensor], published: dict[str, Tensor]) -> float:
    """|ours - published| / |published| over all parameters."""
    difference = sum((ours[name] - value).square().sum().item() for name, value in published.items())
    return (difference / sum(value.square().sum().item() for value in published.values())) ** 0.5


def compare(folder: Path, *, steps: int, warmup: int) -> dict[str, float]:
    """How far both warm-ups of ours are from the published movement."""
    config = official(folder, steps=steps, warmup=warmup)
    published = published_movement(config, folder)
    ahead = official(folder, steps=steps, warmup=warmup, lr_warmup_from_zero=False)
    return {
        "official": apart(our_movement(config, folder / "official"), published),
        "one_step_ahead": apart(our_movement(ahead, folder / "ahead"), published),
        "movement": sum(value.square().sum().item() for value in published.values()) ** 0.5,
    }


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--out", type=Path, help="also write it as JSON, with date, command and versions")
    options = parser.parse_args()
    from throughput import device_name
    from tiny_pipeline import STEP

    from finepref.core.files import write_json
    from finepref.core.provenance import provenance

    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder), steps=options.steps, warmup=options.warmup)
    about = {"device": device_name(torch.device("cpu")), "threads": torch.get_num_threads(), "pairs_per_step": STEP}
    result = {**provenance(), **about, "steps": options.steps, "warmup": options.warmup, "relative_difference": found}
    if options.out is not None:
        write_json(options.out, result)
    print(json.dumps(result) if options.json else "\n".join(f"{name:16}{value:12.3e}" for name, value in found.items()))
    if not found["official"] < BAR:
        sys.exit(f"the final movement differs by {found['official']:.1e}")


if __name__ == "__main__":
    main()
