"""Rows of a study as numbers: gains and win rates, paired by prompt and seed, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finepref.evaluate import stats
from finepref.evaluate.stats import Interval
from finepref.files import read_json
from finepref.study.plan import BASE, Study

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]
AGREE = 0.8
"""Share of the seeds that must show the sign of the mean before a claim holds or fails."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """An arm against another: S seeds, P prompts.

    gain: mean difference of true quality; wins: win rate on it; both with intervals that cluster by prompt. by_seed:
    the mean difference of every seed. p: permutation test of the mean difference. reward: the same of lab-reward.
    """

    gain: Interval
    wins: Interval
    by_seed: tuple[float, ...]
    p: float
    reward: float

    @property
    def spread(self) -> float:
        """Standard deviation of the seeds' means; nan for one seed."""
        return float(np.std(self.by_seed, ddof=1)) if len(self.by_seed) > 1 else float("nan")

    @property
    def agree(self) -> float:
        """Share of the seeds with the sign of the mean."""
        return float(np.mean(np.sign(self.by_seed) == np.sign(self.gain.value)))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a claim. word: holds | fails | undecided; p: after Holm over all claims that were tested."""

    text: str
    source: str
    contrast: Contrast
    p: float
    word: str


def read_rows(folder: Path, study: Study) -> dict[str, Row]:
    """Name -> row of every arm (and the base) that has any result."""
    found = {}
    for name in (BASE, *(arm.name for arm in study.arms())):
        file = folder / f"{name}.json"
        if file.is_file():
            found[name] = read_json(file)
    return found


def seeds_of(row: Row) -> list[int]:
    """Seeds that were trained to the end."""
    return [int(seed) for seed, result in row.get("seeds", {}).items() if "quality" in result]


def contrast(row: Row, other: Row) -> Contrast | None:
    """Two rows on the seeds that both have; None without a common seed."""
    common = sorted(set(seeds_of(row)) & set(seeds_of(other)))
    if not common:
        return None
    quality, reward = (
        np.array([np.subtract(row["seeds"][str(s)][name], other["seeds"][str(s)][name]) for s in common])
        for name in ("quality", "reward")
    )
    flat = quality.ravel()
    cluster = stats.cluster_codes(np.tile(np.arange(quality.shape[1]), len(common)))
    return Contrast(
        gain=stats.bootstrap_means(flat, cluster)[0],
        wins=stats.win_rate(flat, cluster),
        by_seed=tuple(float(mean) for mean in quality.mean(1)),
        p=stats.permutation_test(flat, cluster),
        reward=float(reward.mean()),
    )


def verdicts(study: Study, rows: dict[str, Row]) -> list[Verdict]:
    """Every claim whose arms have run. It holds (or fails) where Holm's p is below 0.05 and the seeds agree."""
    tested = []
    for claim in study.claims:
        if claim.better in rows and claim.than in rows:
            found = contrast(rows[claim.better], rows[claim.than])
            if found is not None:
                tested.append((claim, found))
    adjusted: Sequence[float] | Floats = stats.holm([found.p for _, found in tested]) if tested else []
    return [
        Verdict(claim.text, claim.source, found, float(p), _word(found, float(p)))
        for (claim, found), p in zip(tested, adjusted, strict=True)
    ]


def _word(found: Contrast, p: float) -> str:
    if p >= 0.05 or found.agree < AGREE:
        return "undecided"
    return "holds" if found.gain.value > 0 else "fails"
