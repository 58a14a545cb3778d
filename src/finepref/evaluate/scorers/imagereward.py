"""ImageReward-v1.0: a reward of an image for its prompt, about standard normal over the authors' data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL.Image import Image

from finepref.evaluate.scorers.blip import RewardNetwork, pad_ids
from finepref.evaluate.scorers.clip_scorer import check_inputs
from finepref.evaluate.scorers.preprocess import check_variant, pixel_batch
from finepref.evaluate.scorers.tokenizer import BERT_LENGTH, BertText
from finepref.evaluate.scorers.weights import fingerprint, full_precision


class ImageRewardScorer:
    """(head(text state of [CLS] that has seen the image) - 0.1672) / 1.0333. Prompts are cut at 35 BERT tokens."""

    higher_is_better = True

    def __init__(
        self,
        name: str,
        *,
        load: Callable[[], RewardNetwork],
        text: BertText,
        preprocess: str,
        weights: str,
        batch_size: int = 16,
    ) -> None:
        """A scorer that loads its network when the first image comes.

        Args:
            name: stable short name.
            load: gives the network, in evaluation mode on its device.
            text: tokenizer.
            preprocess: one of `preprocess.VARIANTS`.
            weights: SHA-256 of the weights.
            batch_size: images per forward pass; does not change a score.
        """
        self.name, self.preprocess = name, check_variant(preprocess)
        self.fingerprint = fingerprint(
            {
                "scorer": "imagereward",
                "version": 1,
                "weights": weights,
                "preprocess": preprocess,
                "vocabulary": text.sha256,
                "precision": "float32",
            }
        )
        self._load, self._text, self._batch = load, text, batch_size

    @functools.cached_property
    def network(self) -> RewardNetwork:
        """The network, loaded once."""
        return self._load()

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> np.ndarray:
        """Rewards, float64 [n], unbounded; the same prompt is tokenised once per call."""
        check_inputs(self.name, images, prompts)
        network = self.network
        size, device = network.side, next(network.parameters()).device
        unique = list(dict.fromkeys(prompts))
        ids = dict(zip(unique, self._text.ids(unique), strict=True)) if unique else {}
        values: list[np.ndarray] = []
        with full_precision(device):
            for start in range(0, len(images), self._batch):
                stop = start + self._batch
                batch = pixel_batch(images[start:stop], self.preprocess, size=size)
                tokens, mask = pad_ids([ids[p] for p in prompts[start:stop]], BERT_LENGTH)
                rewards: torch.Tensor = network(batch.to(device), tokens.to(device), mask.to(device))
                values.append(rewards.double().cpu().numpy())
        return np.concatenate(values) if values else np.zeros(0)
