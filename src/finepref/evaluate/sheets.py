"""The scores of an evaluation folder as tables: a row per (prompt row, seed), a column per (model, metric)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finepref.core.errors import InputError
from finepref.evaluate import stats
from finepref.formats.comparison import Metric
from finepref.formats.manifest import LINES, read_record, read_rows
from finepref.formats.scores import SCORES, Score, ScoredBy, read_scores

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sheet:
    """The scores of one prompt set as a table: a row per (prompt row, seed), a column per (model, metric).

    values: model -> metric -> [n], nan where missing. row, seed, cluster: [n]; cluster codes equal prompts. tags: of
    the prompt of every row.
    """

    prompt_set: str
    row: NDArray[np.int64]
    seed: NDArray[np.int64]
    cluster: NDArray[np.int64]
    values: Mapping[str, Mapping[str, Floats]]
    tags: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sheets:
    """A scored evaluation folder: its models in manifest order, its metrics, and a sheet per prompt set."""

    models: tuple[str, ...]
    metrics: Mapping[str, Metric]
    sheets: tuple[Sheet, ...]


def read_sheets(folder: str | Path, *, force: bool = False) -> Sheets:
    """The scores of an evaluation folder by prompt set, model and metric.

    Args:
        folder: the folder; scores without a manifest are taken as they are.
        force: compare scores of one metric although their fingerprints differ.

    Raises:
        InputError: nothing scored, scores of one metric with different fingerprints, of images that the manifest no
            longer lists, or of models whose prompts differ.
    """
    path, scores, about = Path(folder) / SCORES, read_scores(folder), read_record(folder)
    images = {row.key: row for row in read_rows(folder)} if (Path(folder) / LINES).is_file() else {}
    sets: dict[str, list[Score]] = {}
    prints: dict[str, set[str]] = {}
    for row in scores.rows:
        if images and (row.key not in images or images[row.key].image_sha256 != row.image_sha256):
            image = f"{row.model}, {row.prompt_set} {row.prompt_index}, seed {row.seed}"
            what = f"the score of {image} is of an image that is no longer there"
            raise InputError(what, where=path, remedy="run `finepref score` on the folder again")
        sets.setdefault(row.prompt_set, []).append(row)
        prints.setdefault(row.scorer, set()).add(row.fingerprint)
    models, metrics = tuple(dict.fromkeys(row.model for row in scores.rows)), {}
    for name, found in prints.items():
        if len(found) > 1 and not force:
            listed = ", ".join(one[:12] for one in sorted(found))
            what = f"scores of '{name}' come from {len(found)} different scorers (fingerprints {listed})"
            remedy = "score everything with one of them, or compare anyway with --force"
            raise InputError(what, where=path, remedy=remedy)
        about_it = scores.scorers.get(name, ScoredBy(""))
        trained = tuple(model for model in models if model in about.models and name in about.models[model].rewards)
        metrics[name] = Metric(tuple(sorted(found)), about_it.higher_is_better, trained, bool(about_it.together))
    tags = {(row.prompt_set, row.prompt_index): row.tags for row in images.values()}
    return Sheets(models, metrics, tuple(_sheet(name, rows, tags, path) for name, rows in sets.items()))


def _sheet(name: str, rows: Sequence[Score], tags: Mapping[tuple[str, int], Mapping[str, str]], path: Path) -> Sheet:
    keys = sorted({(row.prompt_index, row.seed) for row in rows})
    place = {key: position for position, key in enumerate(keys)}
    prompts: dict[int, str] = {}
    values: dict[str, dict[str, Floats]] = {}
    for row in rows:
        if prompts.setdefault(row.prompt_index, row.prompt_sha256) != row.prompt_sha256:
            what = f"prompt row {row.prompt_index} of '{name}' is another prompt for '{row.model}' than for the models"
            raise InputError(f"{what} before it", where=path, remedy="generate all models from one prompt set")
        line = values.setdefault(row.model, {}).setdefault(row.scorer, np.full(len(keys), np.nan))
        line[place[row.prompt_index, row.seed]] = row.value
    index, seeds = np.array(keys, dtype=np.int64).T
    cluster = stats.cluster_codes([prompts[row] for row, _ in keys])
    return Sheet(name, index, seeds, cluster, values, tuple(tags.get((name, row), {}) for row, _ in keys))
