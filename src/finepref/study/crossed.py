"""The mean of a table of seeds x prompts, with an interval that holds for new seeds and new prompts alike."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from finepref.evaluate.stats import Interval

Floats = npt.NDArray[np.float64]


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
