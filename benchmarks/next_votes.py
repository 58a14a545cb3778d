"""Votes until the whole order of the models is right, by the way in which pairs are chosen.

    OMP_NUM_THREADS=1 python benchmarks/next_votes.py [--seeds 50] [--models 8 12] [--out FILE.json]

Simulated crowds: neighbours in the true order are 0.7 to 2 rating units apart (425 to 55 votes of a pair that meets by
itself), votes are Thurstone's with c = 5.89 and a dead zone of 0.75 for ties. All rules start from one vote for every
model, ask for 10 votes at a time, or for 1/20 of those cast if that is more, and refit after them. The figure: votes
after which the order of the ratings is right and stays so up to 4,000 votes. Intervals (95 %): bootstrap over the
seeds, which have one truth for all rules.

    random       pairs drawn at random
    information  the rule before: 1/2 log(1 + var(D) I), what a vote tells about the ratings
    neighbours   neighbours in the order of the ratings, in turn
    closest      of those neighbours always the one whose order is least certain, as if the votes before were cast
    next         `finepref next`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from finepref import Votes, rate
from finepref.arena.nextpairs import next_pairs
from finepref.arena.orders import information
from finepref.arena.ratings import C, Ratings
from finepref.core.files import write_json
from finepref.core.progress import progress
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator

FEWEST, SHARE, MOST, REPLICATES = 10, 20, 4000, 10_000
GAPS, ZONE = (0.7, 2.0), 0.75
Pairs = list[tuple[int, int]]
Rule = Callable[[Ratings, int, np.random.Generator], Pairs]


def by_random(ratings: Ratings, number: int, rng: np.random.Generator) -> Pairs:
    """Any two models."""
    return [tuple(rng.choice(len(ratings.models), 2, replace=False).tolist()) for _ in range(number)]


def by_neighbours(ratings: Ratings, number: int, rng: np.random.Generator) -> Pairs:
    """Neighbours in turn, from a random one on."""
    order, start = ratings.order(), int(rng.integers(len(ratings.models) - 1))
    places = [(start + k) % (len(order) - 1) for k in range(number)]
    return [(int(order[at]), int(order[at + 1])) for at in places]


def greedy(gain: Callable[[Ratings, Any, Any, Any], Any]) -> Rule:
    """Always the largest gain (ratings, D, variance of D, information), as if the votes before it were cast."""

    def choose(ratings: Ratings, number: int, rng: np.random.Generator) -> Pairs:
        covariance, found = np.array(ratings.covariance), []
        difference = np.subtract.outer(ratings.mu, ratings.mu)
        informs = information(ratings, difference)
        for _ in range(number):
            diagonal = np.diag(covariance)
            variance = np.maximum(np.add.outer(diagonal, diagonal) - 2.0 * covariance, 1e-12)
            gains = np.triu(gain(ratings, difference, variance, informs), 1)
            i, j = divmod(int(np.argmax(gains)), len(gains))
            line = covariance[:, i] - covariance[:, j]
            covariance -= np.outer(line, line) * (informs[i, j] / (1.0 + variance[i, j] * informs[i, j]))
            found.append((i, j))
        return found

    return choose


def _closest(ratings: Ratings, difference: Any, variance: Any, informs: Any) -> Any:
    order, gains = ratings.order(), np.zeros_like(variance)
    a, b = order[:-1], order[1:]
    gains[a, b] = gains[b, a] = 1.0 / (1e-9 + np.abs(difference[a, b]) / np.sqrt(variance[a, b]))
    return gains


RULES: dict[str, Rule | None] = {
    "random": by_random, "information": greedy(lambda ratings, d, variance, informs: np.log1p(variance * informs)),
    "neighbours": by_neighbours, "closest": greedy(_closest), "next": None,
}  # fmt: skip


def run(rule: str, models: int, seed: int) -> dict[str, float]:
    """right: votes until the order is right for good; of `next` also certain: votes after which it asks no more."""
    rng = numpy_generator(seed, "next votes", models)
    mu = rng.permutation(np.cumsum(rng.uniform(*GAPS, models)))
    truth, names = np.argsort(-mu), tuple(f"model {k:02d}" for k in range(models))
    votes = Votes(names, *(np.zeros(0, dtype=kind) for kind in (np.int64, np.int64, np.int8)))
    pairs: Pairs = [(k, k + 1) for k in range(models - 1)]  # a first vote for everybody
    until, certain, correct = 0, float("nan"), False
    while pairs and len(votes) < MOST:
        left, right = np.array(pairs).T
        lead = mu[left] - mu[right] + C * rng.normal(size=len(pairs))
        outcome = np.where(np.abs(lead) < ZONE, 0, np.sign(lead)).astype(np.int8)
        columns = (
            np.concatenate(both) for both in ((votes.left, left), (votes.right, right), (votes.outcome, outcome))
        )
        votes = Votes(names, *columns)
        if not votes.outcome.any():
            continue
        ratings = rate(votes, interval="laplace")
        correct = bool(np.array_equal(np.argsort(-ratings.mu), truth))
        until = until if correct and until else len(votes) if correct else 0
        choose, number = RULES[rule], max(FEWEST, len(votes) // SHARE)
        if choose is not None:
            pairs = choose(ratings, number, rng)
            continue
        pairs = [(pair.left, pair.right) for pair in next_pairs(votes, number=number, seed=len(votes)).pairs]
        certain = float(len(votes)) if not pairs else certain
    return {"right": float(until or MOST), "certain": certain, "correct": float(correct)}


def interval(values: Any) -> list[float]:
    """Mean of [seeds] and its 95 % bootstrap interval."""
    rng = numpy_generator(0, "next votes bootstrap")
    means = values[rng.integers(0, len(values), (REPLICATES, len(values)))].mean(axis=1)
    return [float(values.mean()), *np.quantile(means, (0.025, 0.975)).tolist()]


def compare(models: int, seeds: int) -> dict[str, Any]:
    """Every rule on the same truths."""
    found = {
        rule: [run(rule, models, seed) for seed in progress(range(seeds), f"{models} models, {rule}")]
        for rule in RULES
    }  # fmt: skip
    right = {rule: np.array([each["right"] for each in runs]) for rule, runs in found.items()}
    certain = np.array([each["certain"] for each in found["next"]])
    stopped = ~np.isnan(certain)
    return {
        "votes": {rule: interval(values) for rule, values in right.items()},
        "more than next": {rule: interval(values - right["next"]) for rule, values in right.items() if rule != "next"},
        "times as many as next": {
            rule: np.exp(interval(np.log(values / right["next"]))).tolist()
            for rule, values in right.items() if rule != "next"
        },
        "not right after all votes": {rule: int((values >= MOST).sum()) for rule, values in right.items()},
        "next stopped": int(stopped.sum()), "votes when it stopped": float(np.mean(certain[stopped])),
        "right when it stopped": int(sum(each["correct"] for each, s in zip(found["next"], stopped, strict=True) if s)),
    }  # fmt: skip


def _print(models: int, seeds: int, result: dict[str, Any]) -> None:
    times, wrong = result["times as many as next"], result["not right after all votes"]
    print(
        f"\n{models} models, {seeds} seeds\n\n| rule | votes | times as many as next | not right |\n|---|---|---|---|"
    )
    for rule, (mean, low, high) in result["votes"].items():
        ratio = "{:.2f} [{:.2f}, {:.2f}]".format(*times[rule]) if rule in times else ""
        print(f"| {rule} | {mean:.0f} [{low:.0f}, {high:.0f}] | {ratio} | {wrong[rule]} |")
    print(
        f"\nnext stopped by itself {result['next stopped']} times, after {result['votes when it stopped']:.0f} votes; "
        f"the order was right then {result['right when it stopped']} times."
    )


def main() -> int:
    """Run; exit 1 unless `next` needs fewer votes than random pairs and than the rule before, beyond doubt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--models", type=int, nargs="+", default=[8, 12])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = {models: compare(models, options.seeds) for models in options.models}
    for models, result in found.items():
        _print(models, options.seeds, result)
    if options.out is not None:
        command = " ".join(["python benchmarks/next_votes.py", *sys.argv[1:]])
        write_json(options.out, {"command": command, "versions": versions(), "results": found})
    beaten = (
        result["times as many as next"][rule][1] > 1.0
        for result in found.values()
        for rule in ("random", "information")
    )
    return 0 if all(beaten) else 1


if __name__ == "__main__":
    sys.exit(main())
