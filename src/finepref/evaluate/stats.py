"""The statistics of a paired comparison: win rate, intervals, tests. numpy and scipy only.

Legend: n comparisons (prompt x seed), G clusters (prompts), K columns (metrics or pairs), B resamples.
Comparisons of one prompt under several seeds are not independent, so everything here resamples, flips or counts
whole prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from finepref.core.errors import InputError
from finepref.core.interval import Interval
from finepref.core.rng import numpy_generator

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

RESAMPLES = 10_000
CHUNK = 4_000_000
EXACT_PROMPTS = 14
LEAST_CLUSTERS = 2


def outcomes(differences: ArrayLike) -> Floats:
    """1 for a positive difference, 0 for a negative one, 0.5 for a tie; [n] -> [n]."""
    return (np.sign(np.asarray(differences, dtype=np.float64)) + 1.0) / 2.0


def wilson(successes: float, n: float, *, level: float = 0.95, quantile: float | None = None) -> tuple[float, float]:
    r"""Wilson score interval of a proportion.

    (p + q^2/2n +- q sqrt(p(1-p)/n + q^2/4n^2)) / (1 + q^2/n), p = successes / n, q the normal quantile.

    Args:
        successes: number of successes in [0, n]; ties may count one half.
        n: number of trials, > 0; need not be whole (an effective sample size).
        level: confidence level in (0, 1).
        quantile: q itself, to replace the normal quantile.

    Returns:
        (low, high), inside [0, 1].

    Raises:
        InputError: n is not positive or successes lies outside [0, n].

    References:
        E. B. Wilson, 1927; Brown, Cai and DasGupta, 2001, section 3.1.1.
    """
    if not n > 0 or not 0 <= successes <= n:
        raise InputError(f"{successes:g} successes of {n:g} trials is not a proportion", where="wilson")
    q = quantile if quantile is not None else float(special.ndtri(0.5 + level / 2))
    p = successes / n
    centre = p + q * q / (2 * n)
    half = q * math.sqrt(p * (1 - p) / n + q * q / (4 * n * n))
    scale = 1 + q * q / n
    low, high = (centre - half) / scale, (centre + half) / scale
    return max(0.0, min(low, p)), min(1.0, max(high, p))  # at 0 and 1 rounding would leave p outside


def cluster_codes(labels: Sequence[object] | ArrayLike) -> Codes:
    """Codes 0..G-1 of cluster labels, in sorted order of the labels; [n] -> [n]."""
    return np.unique(np.asarray(labels), return_inverse=True)[1].astype(np.int64).reshape(-1)


def cluster_sums(values: ArrayLike, cluster: Codes) -> tuple[Floats, Floats]:
    """Sum and number of the finite values of every cluster.

    Args:
        values: [n] or [n, K]; nan means missing.
        cluster: [n] codes 0..G-1.

    Returns:
        sums [G, K] and sizes [G, K]; a missing value counts in neither.
    """
    table = np.asarray(values, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    groups = int(cluster.max()) + 1 if len(cluster) else 0
    present = np.isfinite(table)
    sums = np.zeros((groups, table.shape[1]))
    sizes = np.zeros((groups, table.shape[1]))
    np.add.at(sums, cluster, np.where(present, table, 0.0))
    np.add.at(sizes, cluster, present.astype(np.float64))
    return sums, sizes


def win_rate(differences: ArrayLike, cluster: Codes, *, level: float = 0.95) -> Interval:
    r"""Win rate with ties half and a Wilson interval at the effective sample size of the clustered comparisons.

    p = mean(outcome); V = G/(G-1) sum_g (sum_{i in g} (o_i - p))^2 / n^2; n_eff = p(1-p) / V; Wilson with n_eff and
    Student's quantile of G-1 degrees of freedom. One seed without ties gives the plain Wilson interval up to
    (G-1)/G and the Student quantile.

    Args:
        differences: [n] finite, better minus baseline, in the direction in which more is better.
        cluster: [n] prompt codes.
        level: confidence level.

    Returns:
        Interval of the probability of winning, in [0, 1]; limits nan where G is 1.

    Raises:
        InputError: there is nothing to compare.

    Deviations: where V is 0 (all wins, all losses, all ties), n_eff is the number of prompts: the comparisons then say
    nothing of their own spread.
    """
    outcome = outcomes(differences)
    n = len(outcome)
    if n == 0:
        raise InputError("there is no comparison", where="win rate", remedy="score images of both models first")
    p = float(outcome.mean())
    sums, _ = cluster_sums(outcome - p, cluster)
    groups = len(sums)
    if groups < LEAST_CLUSTERS:
        return Interval(p, math.nan, math.nan)
    effective = float(groups)
    variance = groups / (groups - 1) * float((sums**2).sum()) / n**2
    if variance > 1e-18 and 0.0 < p < 1.0:
        effective = p * (1 - p) / variance
    quantile = float(special.stdtrit(groups - 1, 0.5 + level / 2))
    low, high = wilson(p * effective, effective, level=level, quantile=quantile)
    return Interval(p, low, high)


def bootstrap_means(
    values: ArrayLike, cluster: Codes, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> list[Interval]:
    """Means of K columns with percentile bootstrap intervals that resample whole prompts.

    Args:
        values: [n] or [n, K]; nan means missing.
        cluster: [n] prompt codes 0..G-1; every column is resampled with the same prompts.
        level: confidence level.
        resamples: number B of resamples.
        seed: of the stream "bootstrap"; equal inputs give equal intervals.

    Returns:
        K intervals; limits nan for a column with values of one prompt, all nan for one without values.

    References:
        Davison and Hinkley, 1997, section 3.8 (resampling of clusters).
    """
    sums, sizes = cluster_sums(values, cluster)
    groups, columns = sums.shape
    with np.errstate(invalid="ignore"):
        means = sums.sum(0) / sizes.sum(0)
    if groups == 0:
        return [Interval(math.nan, math.nan, math.nan)] * columns
    stream = numpy_generator(seed, "bootstrap")
    replicates = np.empty((resamples, columns))
    chunk = max(1, CHUNK // groups)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = stream.integers(0, groups, size=(rows, groups), dtype=np.int32)
        flat = drawn + np.arange(rows, dtype=np.int64)[:, None] * groups
        counts = np.bincount(flat.ravel(), minlength=rows * groups).reshape(rows, groups).astype(np.float64)
        with np.errstate(invalid="ignore"):
            replicates[start : start + rows] = (counts @ sums) / (counts @ sizes)
    tail = (1 - level) / 2
    found = []
    for column in range(columns):
        kept = replicates[np.isfinite(replicates[:, column]), column]
        enough = (sizes[:, column] > 0).sum() >= LEAST_CLUSTERS
        limits = np.quantile(kept, [tail, 1 - tail]) if enough else (math.nan, math.nan)
        found.append(Interval(float(means[column]), float(limits[0]), float(limits[1])))
    return found


def sign_test(differences: ArrayLike, cluster: Codes) -> float:
    """Exact two-sided sign test over prompts, ties dropped.

    A prompt votes with the sign of (its wins - its losses) over seeds, so that seeds of one prompt do not count as
    independent evidence; one seed gives the ordinary sign test. p = min(1, 2 P(X <= min(wins, losses))),
    X ~ Binomial(wins + losses, 1/2).

    Args:
        differences: [n] finite.
        cluster: [n] prompt codes.

    Returns:
        p in (0, 1]; 1 where every prompt ties.
    """
    sums, _ = cluster_sums(np.sign(np.asarray(differences, dtype=np.float64)), cluster)
    wins, losses = int((sums > 0).sum()), int((sums < 0).sum())
    return binomial_test(wins, wins + losses)


def permutation_tests(differences: ArrayLike, cluster: Codes, *, draws: int = RESAMPLES, seed: int = 0) -> Floats:
    """Two-sided paired permutation tests of mean differences of zero, flipping the sign of whole prompts.

    Exact (all 2^G sign patterns) up to 14 prompts; above, p = (1 + #{|T*| >= |T|}) / (1 + draws).

    Args:
        differences: [n] or [n, K]; nan means missing. Every column sees the same sign patterns.
        cluster: [n] prompt codes.
        draws: random sign patterns where enumeration is too long.
        seed: of the stream "permutation".

    Returns:
        [K] p in (0, 1].

    References:
        Phipson and Smyth, 2010 (the added ones).
    """
    totals, _ = cluster_sums(differences, cluster)
    groups = len(totals)
    observed = np.abs(totals.sum(0)) - 1e-12 * np.abs(totals).sum(0)
    if groups <= EXACT_PROMPTS:
        patterns = (np.arange(2**groups)[:, None] >> np.arange(groups)) & 1
        return (np.abs((1.0 - 2.0 * patterns) @ totals) >= observed).mean(0)
    stream = numpy_generator(seed, "permutation")
    reached, chunk = np.zeros(totals.shape[1]), max(1, CHUNK // groups)
    for start in range(0, draws, chunk):
        rows = min(chunk, draws - start)
        signs = 1.0 - 2.0 * stream.integers(0, 2, size=(rows, groups), dtype=np.int8)
        reached += (np.abs(signs @ totals) >= observed).sum(0)
    return (1 + reached) / (1 + draws)


def binomial_test(successes: float, n: int) -> float:
    """Exact two-sided binomial test of one half, `successes` rounded to a count; p in (0, 1]."""
    count = round(successes)
    return min(1.0, 2.0 * float(special.bdtr(min(count, n - count), n, 0.5)))


def holm(p_values: ArrayLike) -> Floats:
    """Holm's adjusted p-values of a family: p'_(i) = max_{j<=i} min(1, (m - j + 1) p_(j)); [m] -> [m].

    References:
        S. Holm, 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    scaled = np.minimum(1.0, p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(scaled)
    return adjusted


def holm_by(families: Sequence[object], p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values within each family: [m] names of families, [m] p -> [m]."""
    adjusted = np.ones(len(p_values))
    for family in set(families):
        places = [place for place, other in enumerate(families) if other == family]
        adjusted[places] = holm([p_values[place] for place in places])
    return adjusted.tolist()
