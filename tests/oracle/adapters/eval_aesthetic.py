"""LAION's head: a synthetic one always, the real one where its file is here."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from adapters.eval_recipe import state, unit_rows
from finepref.core.provenance import sha256_file
from finepref.evaluate.scorers.families import load_network
from finepref.evaluate.scorers.heads import HIDDEN, INDICES, WIDTH, LinearHead
from finepref.evaluate.scorers.scorer_rows import SCORERS
from finepref.evaluate.scorers.verify import HEAD_SCORES, HEAD_TOLERANCE
from finepref.evaluate.scorers.weights import build
from published_files import aesthetic_head


def check(content: dict[str, Any], meta: dict[str, Any]) -> None:
    real, synthetic = content["real_head"], content["synthetic_head"]
    weights = state(synthetic["shapes"], synthetic["seed"])
    head = build(lambda: LinearHead(WIDTH), weights, where="golden", device="cpu").double()
    with torch.inference_mode():
        found = head(unit_rows(real["input"]).double()).numpy()
    np.testing.assert_allclose(found, synthetic["scores"], rtol=0, atol=1e-6)
    sizes = (WIDTH, *HIDDEN)
    shapes = {f"layers.{i}.weight": [b, a] for i, a, b in zip(INDICES, sizes[:-1], sizes[1:], strict=True)}
    shapes |= {f"layers.{i}.bias": [b] for i, b in zip(INDICES, HIDDEN, strict=True)}
    assert shapes == real["shapes"]
    assert SCORERS["aesthetic"].official == (real["file"], real["sha256"])
    if "RandomState(0).standard_normal((6,768))" in real["input"]:
        np.testing.assert_allclose(HEAD_SCORES, real["scores"], rtol=0, atol=1e-6)
    path = aesthetic_head()
    if path is not None:
        _real(real, path)


def _real(real: dict[str, Any], path: Any) -> None:
    assert sha256_file(path) == real["sha256"]
    head = load_network(SCORERS["aesthetic"], path, "cpu").double()
    with torch.inference_mode():
        found = head(unit_rows(real["input"]).double()).numpy()
        zero, units = head(torch.zeros(1, 768).double()).item(), head(torch.eye(768).double()[:3]).numpy()
    np.testing.assert_allclose(found, real["scores"], rtol=0, atol=HEAD_TOLERANCE)
    np.testing.assert_allclose(found, real["scores_float64"], rtol=0, atol=HEAD_TOLERANCE)
    np.testing.assert_allclose(zero, real["zero_embedding"], rtol=0, atol=HEAD_TOLERANCE)
    np.testing.assert_allclose(units, real["unit_vectors_e0_e1_e2"], rtol=0, atol=HEAD_TOLERANCE)
