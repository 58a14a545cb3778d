"""What is seen of a run while it goes on: statistics of a step, trackers, sample images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finepref.core import rng
from finepref.core.errors import ConfigError, nearest
from finepref.core.files import atomic_folder, write_json
from finepref.core.tensors import ObjectiveOutput
from finepref.formats.folders import SAMPLES
from finepref.formats.metrics import BucketMetrics
from finepref.train.config import ValidationSection
from finepref.train.processes import World

Images = dict[tuple[int, int], Any]  # (prompt number, seed) -> PIL image
TRACKERS = ("tensorboard", "wandb", "trackio")


class Tally:
    """Sums and counts of per-pair statistics of an optimiser step, per t-bucket, on the device until it ends.

    highest: the level t at which the last bucket ends.
    """

    def __init__(self, *, buckets: int, highest: float, device: torch.device) -> None:
        self.buckets, self.highest, self.device = buckets, highest, device
        self.names: tuple[str, ...] = ()
        self.sums = torch.zeros(0)

    def add(self, output: ObjectiveOutput, t: Tensor) -> None:
        """Add loss and statistics of pairs at levels t [B]."""
        bucket = (t.to(torch.float64) / self.highest * self.buckets).long().clamp(0, self.buckets - 1)
        stats = {"loss": output.loss, **output.stats}
        if not self.names:
            self.names = tuple(sorted(stats))
            self.sums = torch.zeros(2 * len(self.names) + 1, self.buckets, dtype=torch.float64, device=self.device)
        one = torch.ones_like(output.loss, dtype=torch.float64)
        counts = [output.applies[name].double() if name in output.applies else one for name in self.names]
        rows = [stats[name].detach().double() * count for name, count in zip(self.names, counts, strict=True)]
        self.sums.index_add_(1, bucket, torch.stack([*rows, *counts, one]))

    def finish(
        self, world: World, calls: Mapping[str, int]
    ) -> tuple[dict[str, float], tuple[BucketMetrics, ...], dict[str, int]]:
        """Means over the pairs of all processes, also by t-bucket, and sums of network calls; one reduction."""
        own = torch.tensor([float(count) for count in calls.values()], dtype=torch.float64).to(self.device)
        together = torch.cat([self.sums.flatten(), own])
        if world.size > 1:
            world.sum(together)
        together = together.cpu()
        held = together[: self.sums.numel()].view_as(self.sums)
        total = dict(zip(calls, map(int, together[self.sums.numel() :].tolist()), strict=True))
        sums, counts = held[:-1].chunk(2)
        means, by_t = sums.sum(1) / counts.sum(1), sums / counts
        buckets = tuple(
            BucketMetrics(int(held[-1, b]), dict(zip(self.names, by_t[:, b].tolist(), strict=True)))
            for b in range(self.buckets)
        )
        return dict(zip(self.names, means.tolist(), strict=True)), buckets, total


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
    with atomic_folder(folder, own=SAMPLES) as place:
        for (prompt, one), image in images.items():
            image.save(place / f"{prompt:03d}-{one}.png")
        write_json(place / "samples.json", options.model_dump(include={"prompts", "seeds", "steps", "guidance"}))


def make_trackers(names: Sequence[str], folder: Path, config: Mapping[str, Any]) -> list[Any]:
    """Trackers through accelerate, by name; each is given the resolved config once.

    Raises:
        ConfigError: an unknown tracker, or one that is not installed.
    """
    trackers = []
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"unknown tracker {name!r}", where="log.trackers", remedy=nearest(name, TRACKERS))
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

        if name not in {str(getattr(found, "value", found)) for found in get_available_trackers()}:
            remedy = f"pip install 'finepref[{name}]'"
            raise ConfigError(f"tracker {name!r} is not installed", where="log.trackers", remedy=remedy)
        tracker_class = LOGGER_TYPE_TO_CLASS[name]
        place = {"logging_dir": folder} if getattr(tracker_class, "requires_logging_directory", False) else {}
        tracker = tracker_class(folder.name, **place)
        if hasattr(tracker, "start"):
            tracker.start()
        tracker.store_init_configuration(dict(flat(config)))
        trackers.append(tracker)
    return trackers


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A nested config as (dotted key, value); what is neither number nor word becomes text."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, bool | int | float | str) else str(value)
