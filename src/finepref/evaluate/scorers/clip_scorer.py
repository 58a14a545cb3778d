"""Scorers that are a cosine: PickScore, HPSv2.0, HPSv2.1, CLIP scores."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from transformers import CLIPModel

from finepref.core.errors import InputError
from finepref.evaluate.scorers.clip import image_features, image_side, text_features
from finepref.evaluate.scorers.preprocess import check_variant, pixel_batch
from finepref.evaluate.scorers.tokenizer import ClipText
from finepref.evaluate.scorers.weights import fingerprint, full_precision

CACHED_PROMPTS = 16384


def check_inputs(name: str, images: Sequence[Image], prompts: Sequence[str]) -> None:
    """One prompt for every image, or an `InputError`."""
    if len(images) != len(prompts):
        raise InputError(
            f"{len(images)} images and {len(prompts)} prompts", where=name, remedy="give one prompt per image"
        )


class ClipScorer:
    """cos(image feature, text feature) in float32; `logit_scale` is exp of the trained temperature.

    PickScore's README prints `logit_scale * cosine`, the papers print the cosine or 100 times it; the score here is
    always the cosine.
    """

    higher_is_better = True

    def __init__(
        self,
        name: str,
        *,
        load: Callable[[], CLIPModel],
        text: ClipText,
        preprocess: str,
        weights: str,
        batch_size: int = 16,
    ) -> None:
        """A scorer that loads its model when the first image comes.

        Args:
            name: stable short name.
            load: gives the model, in evaluation mode on its device.
            text: tokenizer.
            preprocess: one of `preprocess.VARIANTS`.
            weights: SHA-256 of the weights.
            batch_size: images (and prompts) per forward pass; does not change a score.
        """
        self.name, self.preprocess = name, check_variant(preprocess)
        self.fingerprint = fingerprint(
            {
                "scorer": "clip-cosine",
                "version": 1,
                "weights": weights,
                "preprocess": preprocess,
                "cleaned": text.cleaned,
                "merges": text.sha256,
                "precision": "float32",
            }
        )
        self._load, self._text, self._batch = load, text, batch_size
        self._features: OrderedDict[str, Tensor] = OrderedDict()

    @functools.cached_property
    def model(self) -> CLIPModel:
        """The backbone, loaded once."""
        return self._load()

    @property
    def logit_scale(self) -> float:
        """exp of the trained temperature (about 100)."""
        return float(self.model.logit_scale.double().exp())

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> np.ndarray:
        """Cosines, float64 [n], in [-1, 1]; an image's score does not depend on the others."""
        check_inputs(self.name, images, prompts)
        model = self.model
        size, values = image_side(model), []
        with full_precision(model.device):
            texts = self._texts(prompts)
            for start in range(0, len(images), self._batch):
                stop = start + self._batch
                features = image_features(model, pixel_batch(images[start:stop], self.preprocess, size=size))
                values.append((features.cpu() * texts[start:stop]).sum(dim=-1).double().numpy())
        return np.concatenate(values) if values else np.zeros(0)

    def _texts(self, prompts: Sequence[str]) -> Tensor:
        """Text features [n, D] on the CPU, each prompt computed once (the latest 16384 are kept)."""
        fresh = [p for p in dict.fromkeys(prompts) if p not in self._features]
        ids: Mapping[str, list[int]] = dict(zip(fresh, self._text.ids(fresh), strict=True)) if fresh else {}
        fresh.sort(key=lambda p: len(ids[p]))
        found = {p: self._features[p] for p in prompts if p in self._features}
        for start in range(0, len(fresh), self._batch):
            batch = fresh[start : start + self._batch]
            found |= zip(batch, text_features(self.model, [ids[p] for p in batch]).cpu(), strict=True)
        for prompt in dict.fromkeys(prompts):
            self._features[prompt] = found[prompt]
            self._features.move_to_end(prompt)
        while len(self._features) > CACHED_PROMPTS:
            self._features.popitem(last=False)
        return torch.stack([found[p] for p in prompts]) if found else torch.zeros(0, 1)
