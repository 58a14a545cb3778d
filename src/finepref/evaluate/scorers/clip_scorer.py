"""Scorers that are a cosine: PickScore, HPSv2.0, HPSv2.1, CLIP scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import CLIPModel

from finepref.evaluate.scorers.clip import image_features, takes, text_features
from finepref.evaluate.scorers.network_scorer import NetworkScorer
from finepref.evaluate.scorers.tokenizer import ClipText

CACHED_PROMPTS = 16384


def clip_scorer(
    name: str, *, load: Callable[[], CLIPModel], text: ClipText, preprocess: str, weights: str, batch_size: int = 16
) -> NetworkScorer[CLIPModel]:
    """cos(image feature, text feature), in [-1, 1].

    PickScore's README prints `logit_scale * cosine`, the papers print the cosine or 100 times it; the score here is
    always the cosine.

    Args:
        load, name, preprocess, batch_size: see `NetworkScorer`. text: tokenizer. weights: SHA-256 of the weights.
    """
    return NetworkScorer(
        name,
        identity={"scorer": "clip-cosine", "weights": weights, "cleaned": text.cleaned, "merges": text.sha256},
        load=load,
        takes=takes,
        read=_reader(text, batch_size),
        rate=lambda model, pixels, texts: (image_features(model, pixels).cpu() * texts).sum(dim=-1),
        preprocess=preprocess,
        batch_size=batch_size,
    )


def _reader(text: ClipText, batch: int) -> Callable[[CLIPModel, Sequence[str]], Tensor]:
    """(model, prompts) -> text features [n, D] on the CPU, each prompt computed once (the latest 16384 are kept)."""
    kept: dict[str, Tensor] = {}

    def read(model: CLIPModel, prompts: Sequence[str]) -> Tensor:
        fresh = [p for p in dict.fromkeys(prompts) if p not in kept]
        ids = dict(zip(fresh, text.ids(fresh), strict=True)) if fresh else {}
        fresh.sort(key=lambda p: len(ids[p]))
        for start in range(0, len(fresh), batch):
            some = fresh[start : start + batch]
            kept.update(zip(some, text_features(model, [ids[p] for p in some]).cpu(), strict=True))
        found = torch.stack([kept[p] for p in prompts])
        for prompt in list(kept)[: max(0, len(kept) - CACHED_PROMPTS)]:
            del kept[prompt]
        return found

    return read
