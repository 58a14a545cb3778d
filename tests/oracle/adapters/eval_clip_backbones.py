"""Two small CLIPs run by their original code, through our converter and CLIPModel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import CLIPModel

from adapters.eval_recipe import images, state, token_rows
from finepref.evaluate.scorers.clip import (
    ClipShape,
    Tower,
    clip_config,
    from_open_clip,
    image_features,
    text_features,
)
from finepref.evaluate.scorers.weights import build
from tolerance import DOUBLE

COSINE, FEATURE = 2e-6, 1e-5  # as the file says: a float32 run; ours runs in float64


def shape_of(case: dict[str, Any]) -> ClipShape:
    """The case's architecture."""
    config = case["config"]
    vision, text = config["vision"], config["text"]
    return ClipShape(
        config["embed_dim"],
        Tower(vision["layers"], vision["width"], vision["heads"], vision["mlp"]),
        Tower(text["layers"], text["width"], text["heads"], text["mlp"]),
        case["hidden_act"],
        patch=vision["patch"],
        image=vision["image"],
        context=text["context"],
        vocab=text["vocab"],
        end=case["tokens"]["eos"],
    )


def check(content: dict[str, Any], meta: dict[str, Any]) -> None:
    assert content["cases"]
    for name, case in content["cases"].items():
        weights = state(case["shapes"], content["seed"])
        config = clip_config(shape_of(case))
        model = build(lambda c=config: CLIPModel(c), from_open_clip(weights), where=name, device="cpu").double()
        with torch.inference_mode():
            image = image_features(model, images(case["image"], content["seed"]).double()).numpy()
            text = text_features(model, token_rows(case["tokens"])).numpy()
            scale = float(model.logit_scale.exp())
        for found, norms, first in (
            (image, case["image_norms"], case["image_features_first8"]),
            (text, case["text_norms"], case["text_features_first8"]),
        ):
            np.testing.assert_allclose(found[:, :8] * np.array(norms)[:, None], first, rtol=0, atol=FEATURE)
            np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=0, atol=DOUBLE)
        cosines = text @ image.T
        np.testing.assert_allclose(cosines, case["cosine_matrix_text_by_image"], rtol=0, atol=COSINE)
        np.testing.assert_allclose(np.diag(cosines), case["hps_or_clip_score"], rtol=0, atol=COSINE)
        np.testing.assert_allclose(100 * np.diag(cosines), case["score_x100"], rtol=0, atol=100 * COSINE)
        np.testing.assert_allclose(scale, case["pickscore_logits_scale_exp"], rtol=0, atol=1e-3)
        logits = scale * cosines[0]
        softmax = np.exp(logits - logits.max())
        wanted = case["softmax_over_images_of_prompt0"]
        np.testing.assert_allclose(softmax / softmax.sum(), wanted, rtol=0, atol=100 * COSINE)
