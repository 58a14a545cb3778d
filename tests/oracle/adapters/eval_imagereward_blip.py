"""A small ImageReward run by its original code, through our mapping onto transformers' BLIP; and its epsilon trap."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from adapters.eval_recipe import images, state, token_rows
from finepref.evaluate.scorers.blip import (
    REWARD_MEAN,
    REWARD_STD,
    BlipShape,
    RewardNetwork,
    from_imagereward,
    pad_ids,
)
from finepref.evaluate.scorers.clip import Tower
from finepref.evaluate.scorers.weights import build

PRECISION = 5e-6  # as the file says: six decimals of a float32 run; ours runs in float64


def shape_of(config: dict[str, Any]) -> BlipShape:
    """The case's architecture."""
    vision, text = config["vision"], config["text"]
    assert text["encoder_width"] == vision["width"]
    return BlipShape(
        vision=Tower(vision["layers"], vision["width"], vision["heads"], vision["mlp"]),
        text=Tower(text["layers"], text["width"], text["heads"], text["mlp"]),
        patch=vision["patch"],
        image=vision["image"],
        vocab=text["vocab"],
        positions=text["max_pos"],
        vision_eps=vision["layer_norm_eps"],
        text_eps=text["layer_norm_eps"],
    )


def _network(shape: BlipShape, state: dict[str, torch.Tensor]) -> RewardNetwork:
    return build(lambda: RewardNetwork(shape), from_imagereward(state), where="golden", device="cpu").double()


def check(content: dict[str, Any], meta: dict[str, Any]) -> None:
    assert (content["mean"], content["std"]) == (REWARD_MEAN, REWARD_STD)
    weights, shape = state(content["shapes"], content["seed"]), shape_of(content["config"])
    pixels = images(content["image"], content["seed"]).double()
    ids, mask = pad_ids(token_rows(content["tokens"]), content["tokens"]["context"])
    network = _network(shape, weights)
    with torch.inference_mode():
        states = network.image_states(pixels)
        text = network.text_state(states, ids, mask)
        rewards, raw = network(pixels, ids, mask), network.head(text)
        one = [network(image[None], ids[1:2], mask[1:2]).item() for image in pixels]
    np.testing.assert_allclose(states[:, 0, :8], content["vision_cls_first8"], rtol=0, atol=PRECISION)
    np.testing.assert_allclose(states[:, 7, :8], content["vision_patch7_first8"], rtol=0, atol=PRECISION)
    np.testing.assert_allclose(text[:, :8], content["text_cls_first8"], rtol=0, atol=PRECISION)
    np.testing.assert_allclose(raw, content["mlp_raw"], rtol=0, atol=PRECISION)
    np.testing.assert_allclose(rewards, content["reward"], rtol=0, atol=PRECISION)
    wanted = content["prompt1_vs_all_images"]
    np.testing.assert_allclose(one, wanted["reward"], rtol=0, atol=PRECISION)
    assert [1 + sum(other > value for other in one) for value in one] == wanted["ranking_1_is_best"]
    wrong = _network(replace(shape, vision_eps=1e-5), weights)
    with torch.inference_mode():  # transformers' default epsilon instead of the original's 1e-6 must show
        trapped = wrong.image_states(pixels)[:, 0, :8].numpy()
    assert np.abs(trapped - np.array(content["vision_cls_first8"])).max() > PRECISION
