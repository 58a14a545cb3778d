"""The lab's scorers: learned `lab-reward`, the computed true quality `lab-true`, and `lab-diversity`."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finepref.core.errors import InputError
from finepref.core.provenance import sha256_bytes, sha256_file
from finepref.evaluate.diversity import DiversityScorer
from finepref.lab import model, world

OWN_IMPORTS = re.compile(r"(?:^from finepref\b.*\n)+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LabScorer:
    """A scorer of the lab (see `finepref.evaluate.scorers.scorer.Scorer`)."""

    name: str
    fingerprint: str
    function: Callable[[NDArray[np.uint8], Sequence[str]], NDArray[np.float64]]
    higher_is_better: bool = True

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Images (any mode and size) and their prompts -> float64 [n].

        Raises:
            InputError: not one prompt an image.
        """
        if len(images) != len(prompts):
            raise InputError(f"{len(images)} images for {len(prompts)} prompts", remedy="give one prompt an image")
        if not images:
            return np.zeros(0)
        return self.function(np.stack([_pixels(image) for image in images]), list(prompts))


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Any image as [32,32,3] uint8: RGB, box-filtered to the world's size when it has another."""
    rgb = image.convert("RGB")
    if rgb.size != (world.SIZE, world.SIZE):
        rgb = rgb.resize((world.SIZE, world.SIZE), Image.Resampling.BOX)
    return np.asarray(rgb)


def _code(module: ModuleType) -> str:
    """The text that decides a score: the module's and that of `_pixels`.

    Names of the package's own modules count as they were before `finepref.core`: published rows carry that hash.
    """

    def as_published(block: re.Match[str]) -> str:
        return "".join(sorted(block[0].replace("finepref.core", "finepref").splitlines(keepends=True)))

    return OWN_IMPORTS.sub(as_published, inspect.getsource(module)) + inspect.getsource(_pixels)


def lab_reward() -> LabScorer:
    """The reward that was learned from votes on training prompts; it knows nothing of the true quality."""
    from finepref.lab import reward

    files = {f.name: sha256_file(f) for f in model.part_files("reward")}
    fingerprint = sha256_bytes(json.dumps([files, _code(reward)], sort_keys=True).encode())
    return LabScorer("lab-reward", fingerprint, reward.scoring_function(model.read_part("reward")))


def lab_diversity() -> DiversityScorer:
    """How far apart a model's pictures of one prompt are, by their pixels less grey."""

    def embed(images: Sequence[Image.Image]) -> NDArray[np.float64]:
        return np.stack([_pixels(image).astype(np.float64).ravel() - 127.5 for image in images])

    return DiversityScorer("lab-diversity", "lab pixels", embed)


def lab_true() -> LabScorer:
    """The true quality, `world.judge`: for voters and the final evaluation only, never for training."""
    fingerprint = sha256_bytes(_code(world).encode())
    return LabScorer("lab-true", fingerprint, lambda images, prompts: world.judge(images, prompts).quality)
