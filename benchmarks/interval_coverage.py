"""How often the intervals of a comparison hold the truth: 200 prompts x 3 seeds, 4,000 simulations a setting.

    python benchmarks/interval_coverage.py --out benchmarks/results/2026-11-21-interval-coverage.json

A difference of scores is d = delta + sqrt(icc) a_prompt + sqrt(1-icc) e with a, e of variance one: normal, or skewed
(a centred exponential). Ties are |d| < margin. icc is the share of the variance that the seeds of a prompt have in
common. `delta` and the truth follow from the true win rate.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
from scipy import optimize
from scipy import stats as laws

from finepref.core.files import write_json
from finepref.core.provenance import provenance
from finepref.core.rng import numpy_generator
from finepref.evaluate import stats

PROMPTS, SEEDS = 200, 3
RATES = (0.3, 0.4, 0.5, 0.6, 0.7)
ICCS = (0.0, 0.5, 0.95)
MARGINS = (0.0, 0.25)
BAND = (0.93, 0.97)
COLUMNS = 500


def shift_for(rate: float, margin: float) -> float:
    """delta so that P(d > margin) + P(|d| < margin) / 2 is the win rate, for normal d of variance one."""
    return float(optimize.brentq(lambda s: (laws.norm.cdf(s - margin) + laws.norm.cdf(s + margin)) / 2 - rate, -4, 4))


def draw(stream: np.random.Generator, shift: float, icc: float, count: int, *, skewed: bool = False) -> np.ndarray:
    """[count, prompts * seeds] differences, prompt by prompt."""
    law = (lambda size: stream.exponential(size=size) - 1.0) if skewed else (lambda size: stream.normal(size=size))
    common = law((count, PROMPTS, 1))
    own = law((count, PROMPTS, SEEDS))
    return (shift + np.sqrt(icc) * common + np.sqrt(1 - icc) * own).reshape(count, -1)


def covered(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    """Share of the intervals that hold the truth."""
    return float(np.mean((np.asarray(low) <= truth) & (truth <= np.asarray(high))))


def win_rate_coverage(differences: np.ndarray, rate: float, cluster: np.ndarray) -> float:
    """Coverage of `stats.win_rate`."""
    found = [stats.win_rate(row, cluster) for row in differences]
    return covered([f.low for f in found], [f.high for f in found], rate)


def mean_coverage(differences: np.ndarray, truth: float, cluster: np.ndarray, resamples: int) -> float:
    """Coverage of `stats.bootstrap_means`, many simulations as columns of one call."""
    found = []
    for start in range(0, len(differences), COLUMNS):
        block = differences[start : start + COLUMNS].T
        found += stats.bootstrap_means(block, cluster, resamples=resamples, seed=start)
    return covered([f.low for f in found], [f.high for f in found], truth)


def wilson_coverage(rate: float, simulations: int, stream: np.random.Generator) -> float:
    """Coverage of the plain Wilson interval of independent prompts (printed win rates)."""
    wins = stream.binomial(PROMPTS, rate, size=simulations)
    limits = np.array([stats.wilson(int(w), PROMPTS) for w in wins])
    return covered(limits[:, 0], limits[:, 1], rate)


def run(simulations: int, resamples: int) -> list[dict]:
    """All settings; one record a setting and interval."""
    cluster = np.repeat(np.arange(PROMPTS), SEEDS)
    records = []
    for rate in RATES:
        value = wilson_coverage(rate, simulations, numpy_generator(0, "wilson", rate))
        records.append({"interval": "wilson of printed rates", "rate": rate, "coverage": value})
    for rate, icc, margin in itertools.product(RATES, ICCS, MARGINS):
        shift = shift_for(rate, margin)
        differences = draw(numpy_generator(0, "coverage", rate, icc, margin), shift, icc, simulations)
        differences[np.abs(differences) < margin] = 0.0
        value = win_rate_coverage(differences, rate, cluster)
        records.append({"interval": "win rate", "rate": rate, "icc": icc, "ties": margin > 0, "coverage": value})
    for rate, icc, skewed in itertools.product(RATES, ICCS, (False, True)):
        shift = shift_for(rate, 0.0)
        stream = numpy_generator(0, "means", rate, icc, skewed)
        differences = draw(stream, shift, icc, simulations, skewed=skewed)
        value = mean_coverage(differences, shift, cluster, resamples)
        records.append({"interval": "mean difference", "rate": rate, "icc": icc, "skewed": skewed, "coverage": value})
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=4000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    started = time.process_time()
    records = run(options.simulations, options.resamples)
    for record in records:
        inside = BAND[0] <= record["coverage"] <= BAND[1]
        words = ", ".join(f"{key} {value}" for key, value in record.items() if key not in ("interval", "coverage"))
        print(f"{100 * record['coverage']:.1f} %  {'' if inside else 'OUTSIDE '}{record['interval']}: {words}")
    values = [record["coverage"] for record in records]
    print(f"{len(values)} settings, {100 * min(values):.1f} to {100 * max(values):.1f} %")
    if options.out is not None:
        about = {"prompts": PROMPTS, "seeds": SEEDS, **vars(options), "out": None}
        about["cpu_seconds"] = round(time.process_time() - started, 1)
        write_json(options.out, {"about": about, "records": records, "provenance": provenance(seed=0)})


if __name__ == "__main__":
    main()
