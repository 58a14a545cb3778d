"""LAION aesthetic predictor v2: a linear head on the unit-length image feature of OpenAI's CLIP ViT-L/14."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transformers import CLIPModel

from finepref.evaluate.scorers.clip import image_features, takes
from finepref.evaluate.scorers.heads import LinearHead
from finepref.evaluate.scorers.network_scorer import NetworkScorer
from finepref.evaluate.scorers.weights import in_blocks

Networks = tuple[CLIPModel, LinearHead]


def aesthetic_scorer(
    name: str, *, load: Callable[[], Networks], preprocess: str, weights: Sequence[str], batch_size: int = 16
) -> NetworkScorer[Networks]:
    """head(x / |x|), x the CLIP image feature, about 1 to 10; prompts are not looked at.

    The head has no activations, so the score is 5.2366 + w.x with |w| = 17.9956.

    Args:
        load, name, preprocess, batch_size: see `NetworkScorer`. weights: SHA-256 of the backbone and of the head.
    """
    return NetworkScorer(
        name,
        identity={"scorer": "aesthetic", "weights": list(weights)},
        load=load,
        takes=lambda networks: takes(networks[0]),
        read=lambda networks, prompts: prompts,
        rate=lambda networks, pixels, texts: in_blocks(networks[1], image_features(networks[0], pixels)),
        preprocess=preprocess,
        batch_size=batch_size,
    )
