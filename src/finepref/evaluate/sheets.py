"""The scores of an evaluation folder as tables: a row per (prompt row, seed), a column per (model, metric)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finepref.core.errors import InputError
from finepref.core.files import parquet_meta, read_parquet
from finepref.evaluate import stats
from finepref.evaluate.score import SCORES

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sheet:
    """The scores of one prompt set as a table: a row per (prompt row, seed), a column per (model, metric).

    values: model -> metric -> [n], nan where missing. row, seed, cluster: [n]; cluster codes equal prompts.
    """

    prompt_set: str
    row: NDArray[np.int64]
    seed: NDArray[np.int64]
    cluster: NDArray[np.int64]
    values: Mapping[str, Mapping[str, Floats]]


@dataclass(frozen=True, slots=True)
class Scores:
    """A scored evaluation folder: its models in manifest order, its metrics, and a sheet per prompt set."""

    models: tuple[str, ...]
    metrics: Mapping[str, Mapping[str, Any]]
    sheets: tuple[Sheet, ...]


def read_scores(folder: str | Path, *, force: bool = False) -> Scores:
    """Read `scores.parquet` of an evaluation folder.

    Args:
        folder: the folder.
        force: compare scores of one metric although their fingerprints differ.

    Returns:
        The scores by prompt set, model and metric.

    Raises:
        InputError: nothing scored, a key listed twice, or scores of one metric with different fingerprints.
    """
    path = Path(folder) / SCORES
    names = ["model", "prompt_set", "prompt_index", "prompt_sha256", "seed", "scorer", "fingerprint", "value"]
    table = read_parquet(path, names)
    if not len(table):
        raise InputError("no score in it", where=path, remedy="run `finepref score` first")
    column = {name: np.asarray(table[name].to_pylist(), dtype=object) for name in names}
    known = parquet_meta(path).get("scorers", {})
    metrics = {}
    for metric in dict.fromkeys(column["scorer"]):
        prints = sorted(set(column["fingerprint"][column["scorer"] == metric]))
        if len(prints) > 1 and not force:
            raise InputError(
                f"scores of '{metric}' come from {len(prints)} different scorers (fingerprints "
                f"{', '.join(p[:12] for p in prints)})",
                where=path,
                remedy="score everything with one of them, or compare anyway with --force",
            )
        about = known.get(metric, {})
        metrics[metric] = {"fingerprints": prints, "higher_is_better": bool(about.get("higher_is_better", True))}
    models = tuple(dict.fromkeys(column["model"]))
    sheets = tuple(
        _sheet(str(name), {key: values[column["prompt_set"] == name] for key, values in column.items()}, path)
        for name in dict.fromkeys(column["prompt_set"])
    )
    return Scores(models, metrics, sheets)


def _sheet(name: str, column: Mapping[str, NDArray[Any]], path: Path) -> Sheet:
    keys = sorted(set(zip(column["prompt_index"], column["seed"], strict=True)))
    place = {key: position for position, key in enumerate(keys)}
    prompt = [""] * len(keys)
    values: dict[str, dict[str, Floats]] = {}
    seen: set[tuple[object, ...]] = set()
    for model, row, seed, sha, metric, value in zip(
        *(column[key] for key in ("model", "prompt_index", "seed", "prompt_sha256", "scorer", "value")), strict=True
    ):
        if (model, row, seed, metric) in seen:
            raise InputError(f"{metric} of {model}, prompt {row}, seed {seed} is there twice", where=path)
        seen.add((model, row, seed, metric))
        position = place[(row, seed)]
        if prompt[position] not in ("", sha):
            raise InputError(
                f"prompt row {row} of '{name}' is another prompt for '{model}' than for the models before it",
                where=path,
                remedy="generate all models from one prompt set",
            )
        prompt[position] = sha
        line = values.setdefault(model, {}).setdefault(metric, np.full(len(keys), np.nan))
        line[position] = np.nan if value is None else value
    rows, seeds = (np.array([key[side] for key in keys], dtype=np.int64) for side in (0, 1))
    return Sheet(name, rows, seeds, stats.cluster_codes(prompt), values)
