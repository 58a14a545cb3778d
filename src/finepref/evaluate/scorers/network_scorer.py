"""A scorer on a network: loaded with the first image, fed in batches, always in true float32."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from finepref.core.errors import InputError
from finepref.evaluate.scorers.preprocess import check_variant, pixel_batch
from finepref.evaluate.scorers.weights import fingerprint, full_precision

Loaded = TypeVar("Loaded")


def check_inputs(name: str, images: Sequence[Image], prompts: Sequence[str]) -> None:
    """One prompt for every image, or an `InputError`."""
    if len(images) != len(prompts):
        raise InputError(
            f"{len(images)} images and {len(prompts)} prompts", where=name, remedy="give one prompt per image"
        )


@dataclass(frozen=True)
class NetworkScorer(Generic[Loaded]):
    """Scores of a network; an image's score does not depend on the others.

    name: stable short name. identity: what decides a score beside preprocess and precision, for the fingerprint.
    load: gives the network, in evaluation mode on its device. takes: network -> side of its images in pixels, device.
    read: (network, prompts [n]) -> n texts as `rate` takes them. rate: (network, pixels [b,3,S,S], b texts) -> [b].
    preprocess: one of `preprocess.VARIANTS`. batch_size: images per forward pass; does not change a score.
    """

    name: str
    identity: Mapping[str, object]
    load: Callable[[], Loaded]
    takes: Callable[[Loaded], tuple[int, torch.device]]
    read: Callable[[Loaded, Sequence[str]], Any]
    rate: Callable[[Loaded, Tensor, Any], Tensor]
    preprocess: str
    batch_size: int = 16
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        check_variant(self.preprocess)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that shapes the number."""
        return fingerprint({**self.identity, "version": 1, "preprocess": self.preprocess, "precision": "float32"})

    @functools.cached_property
    def network(self) -> Loaded:
        """The network, loaded once."""
        return self.load()

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> np.ndarray:
        """Scores, float64 [n]."""
        check_inputs(self.name, images, prompts)
        if not images:
            return np.zeros(0)
        size, device = self.takes(self.network)
        values = []
        with full_precision(device):
            texts = self.read(self.network, prompts)
            for start in range(0, len(images), self.batch_size):
                rows = slice(start, start + self.batch_size)
                batch = pixel_batch(images[rows], self.preprocess, size=size).to(device)
                values.append(self.rate(self.network, batch, texts[rows]).double().cpu().numpy())
        return np.concatenate(values)
