"""Diversity: how far a picture is from the others that a model made of the same prompt.

Shapes: n pictures of one prompt, D width of an embedding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finepref.core.provenance import sha256_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

    from finepref.evaluate.scorers.scorer_rows import Spec

Floats = NDArray[np.float64]
ALONE = "the only picture of its prompt: generate two or more (--seeds 0,1)"


def distances(embeddings: Floats) -> Floats:
    """[n] mean of 1 - cos to the other rows of [n,D], in [0, 2]; n is 2 or more."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = np.clip(unit @ unit.T, -1.0, 1.0)
    count = len(unit)
    found: Floats = 1.0 - (cosines.sum(axis=1) - np.diag(cosines)) / (count - 1)
    return found


@dataclass(frozen=True, slots=True)
class DiversityScorer:
    """A scorer (`scorers.scorer.Scorer`) of whole groups: one call has all pictures that a model made of one prompt.

    identity: of the embedding, for the fingerprint. embed: pictures -> [n,D]. together: tells `score` to call it so.
    """

    name: str
    identity: str
    embed: Callable[[Sequence[Image]], Floats]
    release: Callable[[], None] = lambda: None
    higher_is_better: bool = True
    together: bool = field(default=True, init=False)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that shapes the number."""
        return sha256_bytes(json.dumps(["diversity", 1, self.identity]).encode())

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> Floats:
        """Mean distance of each of n pictures of one prompt to the others, float64 [n]; nan where it is alone."""
        return distances(self.embed(images)) if len(images) > 1 else np.full(len(images), np.nan)


def clip_diversity(chosen: Spec, device: str) -> DiversityScorer:
    """Distances of image features of OpenAI's CLIP ViT-L/14."""
    from finepref.evaluate.scorers import clip
    from finepref.evaluate.scorers.families import load_network
    from finepref.evaluate.scorers.network_scorer import NetworkScorer, Rater
    from finepref.evaluate.scorers.scorer_rows import weights_path
    from finepref.evaluate.scorers.weights import weights_id

    row, path = chosen.kind, weights_path(chosen)
    rater: Rater[Any] = Rater(
        {"embedding": "clip", "weights": weights_id(path)},
        takes=clip.takes,
        read=lambda model, prompts: prompts,
        rate=lambda model, pixels, texts: clip.image_features(model, pixels),
    )
    network = NetworkScorer(
        chosen.name, rater, lambda: load_network(row, path, device), chosen.preprocess or row.preprocess
    )
    return DiversityScorer(
        name=chosen.name,
        identity=network.fingerprint,
        embed=lambda images: network.score(images, [""] * len(images)),
        release=network.release,
    )
