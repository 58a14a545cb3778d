"""Votes as Pick-a-Pic v2 has them, for who writes them; the dialect `pickapic` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("are_different", pa.bool_()), ("best_image_uid", pa.string()), ("caption", pa.string()),
        ("created_at", pa.timestamp("ns")), ("has_label", pa.bool_()), ("image_0_uid", pa.string()),
        ("image_0_url", pa.string()), ("image_1_uid", pa.string()), ("image_1_url", pa.string()),
        ("jpg_0", pa.binary()), ("jpg_1", pa.binary()), ("label_0", pa.float64()), ("label_1", pa.float64()),
        ("model_0", pa.string()), ("model_1", pa.string()), ("ranking_id", pa.int64()), ("user_id", pa.int64()),
        ("num_example_per_prompt", pa.int64()), ("__index_level_0__", pa.int64()),
    ]
)  # fmt: skip
"""Pick-a-Pic v2, columns in its order. `jpg_*` are bytes of any image format."""

Pair = tuple[Sequence[Any], Sequence[Any]]


def pickapic_table(
    *,
    share: npt.NDArray[np.float64],
    caption: Sequence[str],
    created_at: npt.NDArray[np.datetime64],
    user_id: npt.NDArray[np.int64],
    per_prompt: npt.NDArray[np.int64],
    uid: Pair,
    url: Pair,
    jpg: Pair,
    model: Pair,
) -> pa.Table:
    """A table in `SCHEMA` of votes that are all labelled, ranking ids from 1.

    Args:
        share: [n] 1 image 0 won, 0 image 1 won, 0.5 tie. per_prompt: [n] votes on the prompt of each.
        uid, url, jpg, model: [n] of image 0 and [n] of image 1.
    """
    rows = np.arange(len(share))
    best = [a if s == 1.0 else b if s == 0.0 else "tie" for s, a, b in zip(share, *uid, strict=True)]
    columns: dict[str, Any] = {
        "are_different": [a != b for a, b in zip(*jpg, strict=True)], "best_image_uid": best, "caption": caption,
        "created_at": created_at, "has_label": np.ones(len(share), dtype=bool), "label_0": share,
        "label_1": 1.0 - share, "ranking_id": 1 + rows, "user_id": user_id, "num_example_per_prompt": per_prompt,
        "__index_level_0__": rows,
    }  # fmt: skip
    for side in (0, 1):
        columns[f"image_{side}_uid"], columns[f"image_{side}_url"] = uid[side], url[side]
        columns[f"jpg_{side}"], columns[f"model_{side}"] = jpg[side], model[side]
    return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)


def shown_images(table: pa.Table) -> int:
    """How many images are in votes."""
    return len({*table["image_0_uid"].to_pylist(), *table["image_1_uid"].to_pylist()})


def tie_share(table: pa.Table) -> float:
    """Share of votes that are ties."""
    return float(np.mean(np.asarray(table["label_0"]) == 0.5))
