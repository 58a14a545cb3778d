"""LAION aesthetic predictor v2: a linear head on the unit-length image feature of OpenAI's CLIP ViT-L/14."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from PIL.Image import Image
from transformers import CLIPModel

from finepref.evaluate.scorers.clip import image_features, image_side
from finepref.evaluate.scorers.clip_scorer import check_inputs
from finepref.evaluate.scorers.heads import LinearHead
from finepref.evaluate.scorers.preprocess import check_variant, pixel_batch
from finepref.evaluate.scorers.weights import fingerprint, full_precision, in_blocks


class AestheticScorer:
    """score = head(x / |x|), x the CLIP image feature; prompts are not looked at.

    The head has no activations, so the score is 5.2366 + w.x with |w| = 17.9956.
    """

    higher_is_better = True

    def __init__(
        self,
        name: str,
        *,
        load: Callable[[], tuple[CLIPModel, LinearHead]],
        preprocess: str,
        weights: Sequence[str],
        batch_size: int = 16,
    ) -> None:
        """A scorer that loads backbone and head when the first image comes.

        Args:
            name: stable short name.
            load: gives the backbone and the head.
            preprocess: one of `preprocess.VARIANTS`.
            weights: SHA-256 of the backbone and of the head.
            batch_size: images per forward pass; does not change a score.
        """
        self.name, self.preprocess = name, check_variant(preprocess)
        self.fingerprint = fingerprint(
            {
                "scorer": "aesthetic",
                "version": 1,
                "weights": list(weights),
                "preprocess": preprocess,
                "precision": "float32",
            }
        )
        self._load, self._batch = load, batch_size

    @functools.cached_property
    def networks(self) -> tuple[CLIPModel, LinearHead]:
        """Backbone and head, loaded once."""
        return self._load()

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> np.ndarray:
        """Predicted ratings, float64 [n], about 1 to 10."""
        check_inputs(self.name, images, prompts)
        model, head = self.networks
        size, values = image_side(model), []
        with full_precision(model.device):
            for start in range(0, len(images), self._batch):
                batch = pixel_batch(images[start : start + self._batch], self.preprocess, size=size)
                values.append(in_blocks(head, image_features(model, batch)).double().cpu().numpy())
        return np.concatenate(values) if values else np.zeros(0)
