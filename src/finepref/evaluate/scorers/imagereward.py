"""ImageReward-v1.0: a reward of an image for its prompt, about standard normal over the authors' data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from finepref.evaluate.scorers.blip import RewardNetwork, pad_ids
from finepref.evaluate.scorers.network_scorer import NetworkScorer
from finepref.evaluate.scorers.tokenizer import BERT_LENGTH, BertText


def imagereward_scorer(
    name: str, *, load: Callable[[], RewardNetwork], text: BertText, preprocess: str, weights: str, batch_size: int = 16
) -> NetworkScorer[RewardNetwork]:
    """(head(text state of [CLS] that has seen the image) - 0.1672) / 1.0333. Prompts are cut at 35 BERT tokens.

    Args:
        load, name, preprocess, batch_size: see `NetworkScorer`. text: tokenizer. weights: SHA-256 of the weights.
    """

    def read(network: RewardNetwork, prompts: Sequence[str]) -> list[list[int]]:
        unique = list(dict.fromkeys(prompts))
        ids = dict(zip(unique, text.ids(unique), strict=True))
        return [ids[prompt] for prompt in prompts]

    def rate(network: RewardNetwork, pixels: Tensor, texts: Sequence[Sequence[int]]) -> Tensor:
        tokens, mask = (part.to(pixels.device) for part in pad_ids(texts, BERT_LENGTH))
        rewards: Tensor = network(pixels, tokens, mask)
        return rewards

    def takes(network: RewardNetwork) -> tuple[int, torch.device]:
        return network.side, next(network.parameters()).device

    return NetworkScorer(
        name,
        identity={"scorer": "imagereward", "weights": weights, "vocabulary": text.sha256},
        load=load,
        takes=takes,
        read=read,
        rate=rate,
        preprocess=preprocess,
        batch_size=batch_size,
    )
