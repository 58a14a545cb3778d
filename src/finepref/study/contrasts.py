"""Rows of a study as numbers: gains and win rates, paired by prompt and seed, with intervals."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from finepref.core.errors import InputError
from finepref.core.files import read_object
from finepref.core.interval import Interval
from finepref.evaluate import stats
from finepref.study.arms import DAMAGED, arm_file, arm_identity, read_row
from finepref.study.design import BASE, Study
from finepref.study.trial import Point

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Contrast:
    """An arm against another: S seeds, P prompts.

    gain: mean difference of true quality, p: of zero; wins: win rate on it; over seeds and prompts (`crossed_mean`).
    by_seed: the mean difference of every seed. reward: the mean difference of lab-reward.
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


def read_rows(folder: Path, study: Study, *, world: str) -> dict[str, Row]:
    """Name -> row of every arm (and the base) that has any result.

    Args:
        world: hash of the lab that the rows must come from.

    Raises:
        InputError: a row was written for other settings or another lab.
    """
    found = {}
    for arm in (None, *study.arms()):
        file = arm_file(folder, arm)
        if file.is_file():
            held = read_object(file, remedy=DAMAGED)
            if arm is not None and not {"learning_rate", "strength"} <= {*held}:
                raise InputError("it does not say its tuned values", where=file, remedy=DAMAGED)
            point = None if arm is None else Point(held["learning_rate"], held["strength"])
            found[BASE if arm is None else arm.name] = read_row(file, arm_identity(study, arm, point, world))
    return found


def seeds_of(row: Row) -> list[int]:
    """Seeds that were trained to the end."""
    return [int(seed) for seed, result in row.get("seeds", {}).items() if "quality" in result]


def contrast(row: Row, other: Row, seeds: Collection[int] | None = None) -> Contrast | None:
    """Two rows on the seeds that both have (of these, where some are given); None without a common seed."""
    common = sorted(set(seeds_of(row)) & set(seeds_of(other)))
    common = common if seeds is None else [seed for seed in common if seed in seeds]
    if not common:
        return None
    quality, reward = (
        np.array([np.subtract(row["seeds"][str(s)][name], other["seeds"][str(s)][name]) for s in common])
        for name in ("quality", "reward")
    )
    gain, p = crossed_mean(quality)
    return Contrast(
        gain=gain,
        wins=_wins(quality),
        by_seed=tuple(float(mean) for mean in quality.mean(1)),
        p=p,
        reward=float(reward.mean()),
    )


def _wins(quality: Floats) -> Interval:
    """Win rate with ties half; Wilson's interval over prompts where nothing varies."""
    found, _ = crossed_mean(stats.outcomes(quality))
    if found.low == found.high:
        return stats.win_rate(quality.ravel(), np.tile(np.arange(quality.shape[1]), len(quality)))
    return Interval(found.value, max(0.0, found.low), min(1.0, found.high))


def crossed_mean(table: Floats, *, level: float = 0.95) -> tuple[Interval, float]:
    r"""Mean, interval and two-sided p of zero, with seeds and prompts as crossed random effects.

        Var(mean) = (MS_s + MS_p - MS_e) / (S P)
        MS_s = P var(seed means), MS_p = S var(prompt means), MS_e = what both leave over

    and Student's t with Satterthwaite's degrees of freedom, (S P Var)^2 / (MS_s^2/(S-1) + MS_p^2/(P-1) + MS_e^2/((S-1)
    (P-1))). Seeds or prompts alone bound it from below: S P Var >= max(MS_s, MS_p), with their own degrees of freedom.

    Args:
        table: [S,P] finite, S seeds, P >= 2 prompts. With one seed the interval speaks of that seed alone.

    Returns:
        (interval, p); p is 1 where everything is 0, and 0 where everything is equal and not 0.

    References: Satterthwaite, 1946; Cornfield and Tukey, 1956 (two-way random effects without replication).
    """
    seeds, prompts = table.shape
    mean = float(table.mean())
    by_seed, by_prompt = table.mean(1), table.mean(0)
    rest = table - by_seed[:, None] - by_prompt[None, :] + mean
    of_prompts = seeds * float(by_prompt.var(ddof=1))
    parts = [(of_prompts, prompts - 1.0)]
    if seeds > 1:
        of_seeds, left = prompts * float(by_seed.var(ddof=1)), float((rest**2).sum()) / ((seeds - 1) * (prompts - 1))
        parts.append((of_seeds, seeds - 1.0))
        both = of_seeds + of_prompts - left
        spread = of_seeds**2 / (seeds - 1) + of_prompts**2 / (prompts - 1) + left**2 / ((seeds - 1) * (prompts - 1))
        parts.append((both, both**2 / spread if spread > 0 else seeds - 1.0))
    square, freedom = max(parts)
    error = math.sqrt(max(square, 0.0) / table.size)
    if error == 0:
        return Interval(mean, mean, mean), 1.0 if mean == 0 else 0.0
    half = float(special.stdtrit(freedom, 0.5 + level / 2)) * error
    return Interval(mean, mean - half, mean + half), 2.0 * float(special.stdtr(freedom, -abs(mean) / error))
