"""Votes simulated from known ratings: are ratings, intervals and steady states what the theory says?

python benchmarks/arena_truth.py [--out FILE.json]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from finepref import Votes, rate
from finepref.arena.boards import load_board
from finepref.arena.ratings import BETA
from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator
from finepref.formats.votes import Games

SEEDS = 20
Z95 = 1.959964


def pairwise(rng: np.random.Generator, mu: np.ndarray, n: int, tie_margin: float = 0.0) -> Votes:
    """n votes between random pairs; a tie within the margin."""
    m = len(mu)
    left = rng.integers(0, m, n)
    right = (left + rng.integers(1, m, n)) % m
    lead = mu[left] - mu[right] + np.sqrt(2.0) * BETA * rng.standard_normal(n)
    outcome = np.where(np.abs(lead) < tie_margin, 0, np.sign(lead)).astype(np.int8)
    return Votes(tuple(f"m{k}" for k in range(m)), left, right, outcome)


def ranked(rng: np.random.Generator, mu: np.ndarray, games: int, size: int) -> Votes:
    """K-wise games of random models."""
    model = np.stack([rng.permutation(len(mu))[:size] for _ in range(games)])
    performance = mu[model] + BETA * rng.standard_normal(model.shape)
    played = Games(np.arange(0, games * size + 1, size), model.ravel(), -performance.ravel())
    first, second, game = played.pairs()
    outcome = played.outcomes(first, second)
    names = [f"m{k}" for k in range(len(mu))]
    return Votes(tuple(names), played.model[first], played.model[second], outcome, game=game, games=played)


def score(votes: Votes, mu: np.ndarray, **options: Any) -> tuple[float, float]:
    """RMSE of centred mu and share of models inside their 95 % interval."""
    ratings = rate(votes, **options)
    miss = (ratings.mu - ratings.mu.mean()) - (mu - mu.mean())
    return float(np.sqrt(np.mean(miss**2))), float(np.mean(np.abs(miss) <= Z95 * ratings.sigma))


def recovery() -> dict[str, Any]:
    """13 models, 1e5 votes."""
    found = []
    for seed in range(SEEDS):
        rng = numpy_generator(seed, "recover")
        mu = rng.normal(25.0, 1.3, 13)
        found.append(score(pairwise(rng, mu, 100_000), mu))
    rmse, inside = np.array(found).T
    return {"rmse_mean": rmse.mean(), "rmse_largest": rmse.max(), "coverage": inside.mean(), "seeds": SEEDS}


def steady_state() -> dict[str, Any]:
    """sigma after 8.5e5 votes with 11 % ties on the paper's Pick-a-Pic ratings."""
    votes = pairwise(numpy_generator(0, "steady"), load_board("arenapo-pickapic").mu, 850_000, 0.86)
    walk, still = (rate(votes, engine="online", preset=preset).sigma for preset in ("ksort", "appendix_a"))
    return {
        "ties": float(np.mean(votes.outcome == 0)), "ksort_mean": walk.mean(), "ksort_smallest": walk.min(),
        "ksort_largest": walk.max(), "appendix_a_largest": still.max(),
    }  # fmt: skip


def games(size: int, number: int) -> dict[str, Any]:
    """30 models: batch with Laplace and with game-clustered intervals."""
    found: dict[str, list[tuple[float, float]]] = {"laplace": [], "sandwich": []}
    for seed in range(SEEDS):
        rng = numpy_generator(seed, "games", size)
        mu = rng.normal(25.0, 3.0, 30)
        votes = ranked(rng, mu, number, size)
        for interval, scores in found.items():
            scores.append(score(votes, mu, interval=interval))
    return {
        "rmse": float(np.mean([s[0] for s in found["laplace"]])),
        **{f"coverage_{interval}": float(np.mean([s[1] for s in scores])) for interval, scores in found.items()},
    }


def main() -> int:
    """Run; exit 1 if a bar fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = {
        "recovery": recovery(), "steady_state": steady_state(), "games of 4 x 1500": games(4, 1500),
        "games of 6 x 1000": games(6, 1000),
    }  # fmt: skip
    print("| what | figure | value |\n|---|---|---|")
    for what, values in found.items():
        for figure, value in values.items():
            print(f"| {what} | {figure} | {value:.4f} |")
    recovered, steady = found["recovery"], found["steady_state"]
    bars = {
        "RMSE of centred mu <= 0.065": recovered["rmse_mean"] <= 0.065,
        "coverage 0.90-0.98": 0.90 <= recovered["coverage"] <= 0.98,
        "ksort sigma 0.76-0.79": 0.76 <= steady["ksort_mean"] <= 0.79,
        "appendix_a sigma < 0.025": steady["appendix_a_largest"] < 0.025,
    }
    for name, good in bars.items():
        print(f"{'pass' if good else 'FAIL'}  {name}")
    if options.out is not None:
        command = " ".join(["python benchmarks/arena_truth.py", *sys.argv[1:]])
        write_json(options.out, {"command": command, "versions": versions(), **found, "bars": bars})
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
