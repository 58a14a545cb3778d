"""The seeded weights, images and token rows of the eval_* files, as their recipe says."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from torch import Tensor

SPREAD_WORDS = ("embedding", "embeddings", "pos_embed", "cls_token", "positional")


def _crc(name: str) -> int:
    return zlib.crc32(name.encode())


def weight(key: str, shape: Sequence[int], seed: int) -> Tensor:
    """One tensor of a state dict in the original's names."""
    a = RandomState((_crc(key) + seed) % 2**32).standard_normal(tuple(shape))
    if key.endswith("logit_scale"):
        a = np.array(4.6052)
    elif len(shape) == 1 and key.endswith("weight") and ("ln_" in key or "norm" in key.lower()):
        a = 1 + 0.1 * a
    elif len(shape) <= 1:
        a = 0.1 * a
    elif any(word in key for word in SPREAD_WORDS):
        a = 0.5 * a
    else:
        a = a / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(a, dtype=np.float32))


def state(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """A whole state dict."""
    return {key: weight(key, shape, seed) for key, shape in shapes.items()}


def images(spec: Mapping[str, Any], seed: int) -> Tensor:
    """The image batch."""
    draws = RandomState(_crc(spec["name"]) + seed).standard_normal(tuple(spec["shape"]))
    return torch.from_numpy(draws.astype(np.float32))


def token_rows(spec: Mapping[str, Any]) -> list[list[int]]:
    """Token ids of each row, start and end id included, without padding."""
    draws = RandomState(_crc(spec["name"]))
    return [
        [spec["bos"], *draws.randint(spec["lo"], spec["hi"], length).tolist(), spec["eos"]] for length in spec["lens"]
    ]


def unit_rows(text: str) -> Tensor:
    """The unit vectors of the aesthetic file, whose seed and shape stand in its text."""
    found = re.search(r"RandomState\((\d+)\)\.standard_normal\(\((\d+), *(\d+)\)\)", text)
    assert found, text
    seed, count, width = map(int, found.groups())
    rows = RandomState(seed).standard_normal((count, width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return torch.from_numpy(rows.astype(np.float32))
