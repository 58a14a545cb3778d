"""A scorer on a network: loaded with the first image, fed in batches, in true float32 unless half is asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from finepref.core.device import Precision, free_memory
from finepref.core.errors import InputError
from finepref.evaluate.scorers.preprocess import pixel_batch
from finepref.evaluate.scorers.weights import fingerprint, full_precision
from finepref.models.precision import autocast_forward, compute_dtype, store_half

Loaded = TypeVar("Loaded")
BATCH = 16
"""Images of a forward pass; it changes no score."""


def check_inputs(name: str, images: Sequence[Image], prompts: Sequence[str]) -> None:
    """One prompt for every image, or an `InputError`."""
    if len(images) != len(prompts):
        what = f"{len(images)} images and {len(prompts)} prompts"
        raise InputError(what, where=name, remedy="give one prompt per image")


def in_half(towers: Iterable[nn.Module], device: str, precision: Precision) -> None:
    """Let the towers of a network run under autocast, their weights stored as it casts them; heads stay in float32."""
    dtype = compute_dtype(precision, where="precision")
    if dtype is None:
        return
    for tower in towers:
        store_half(tower, dtype)
        autocast_forward(tower, torch.device(device), dtype)


@dataclass(frozen=True)
class Rater(Generic[Loaded]):
    """How a network rates images for their prompts.

    identity: what decides a score beside preprocess and precision, for the fingerprint. takes: network -> side of its
    images in pixels, device. read: (network, prompts [n]) -> n texts as `rate` takes them. rate: (network, pixels
    [b,3,S,S], b texts) -> [b].
    """

    identity: Mapping[str, object]
    takes: Callable[[Loaded], tuple[int, torch.device]]
    read: Callable[[Loaded, Sequence[str]], Any]
    rate: Callable[[Loaded, Tensor, Any], Tensor]


@dataclass(frozen=True)
class NetworkScorer(Generic[Loaded]):
    """Scores of a network; an image's score does not depend on the others.

    name: stable short name. load: gives the network, in evaluation mode on its device. preprocess: one of
    `preprocess.VARIANTS`. precision: of its towers, see `in_half`.
    """

    name: str
    rater: Rater[Loaded]
    load: Callable[[], Loaded]
    preprocess: str
    higher_is_better: bool = True
    precision: Precision = "no"

    @property
    def fingerprint(self) -> str:
        """Hash of everything that shapes the number."""
        precision = "float32" if self.precision == "no" else self.precision
        return fingerprint({**self.rater.identity, "version": 1, "preprocess": self.preprocess, "precision": precision})

    @functools.cached_property
    def network(self) -> Loaded:
        """The network, loaded once."""
        return self.load()

    def release(self) -> None:
        """Forget the network, which the next image loads again."""
        self.__dict__.pop("network", None)
        free_memory()

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> np.ndarray:
        """Scores, float64 [n]."""
        check_inputs(self.name, images, prompts)
        if not images:
            return np.zeros(0)
        size, device = self.rater.takes(self.network)
        values = []
        with full_precision(device):
            texts = self.rater.read(self.network, prompts)
            for start in range(0, len(images), BATCH):
                rows = slice(start, start + BATCH)
                batch = pixel_batch(images[rows], self.preprocess, size=size).to(device)
                values.append(self.rater.rate(self.network, batch, texts[rows]).cpu().double().numpy())
        return np.concatenate(values)
