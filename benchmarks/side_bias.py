"""The test of the side: how often it warns without a bias, how often with one, and how often its interval is right.

    python benchmarks/side_bias.py --out benchmarks/results/2026-11-29-side-bias.json

Votes are those of `arena_coverage.py` (six models, 2,000 votes, 60 voters with tastes of their own). Bias: every fourth
win of the right is turned into one of the left, by all voters alike. The advantage to be found is that of the same model
on infinitely many such votes (60 x 2,000,000 votes, all pairs of voters and models counted with their chances).
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from arena_coverage import MODELS, TASTE, TIES, VOTERS, Setting, simulate
from scipy.stats import norm

from finepref import Votes, rate
from finepref.arena.ratings import C
from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator

TURNED = 0.25
BAND, MOST_ALARMS = (0.93, 0.97), 0.01
HABIT = 1.5  # spread of the voters' own habits of clicking one side, in rating units

CASES = {
    "no bias, no voter named": (Setting("none", unnamed=1.0), 0.0, 0.0),
    "no bias, 60 voters": (Setting("voters"), 0.0, 0.0),
    "no bias, 60 voters, 70 % of the votes unnamed": (Setting("some", unnamed=0.7), 0.0, 0.0),
    "no bias, 60 voters with habits of their own": (Setting("habits"), 0.0, HABIT),
    "25 % turned, no voter named": (Setting("none", unnamed=1.0), TURNED, 0.0),
    "25 % turned, 60 voters": (Setting("voters"), TURNED, 0.0),
    "25 % turned, 60 voters, 70 % of the votes unnamed": (Setting("some", unnamed=0.7), TURNED, 0.0),
}


def draw(setting: Setting, seed: int, *, turned: float, habit: float) -> tuple[Votes, np.ndarray]:
    """Votes, and the true centred ratings; habit: spread of each voter's own advantage of the left."""
    own = habit * numpy_generator(seed, "habits").standard_normal(VOTERS + 1)
    votes, truth = simulate(setting, seed)
    if habit:
        assert votes.voter is not None
        votes, truth = simulate(setting, seed, side=own[votes.voter])
    flip = (votes.outcome < 0) & (numpy_generator(seed, "turned").random(len(votes)) < turned)
    return replace(votes, outcome=np.where(flip, 1, votes.outcome).astype(np.int8)), truth


def expected(truth: np.ndarray, turned: float) -> float:
    """The advantage that infinitely many votes would show."""
    left, right = (codes.ravel() for codes in np.indices((MODELS, MODELS)))
    left, right = left[left != right], right[left != right]
    shrink = C / np.sqrt(C**2 + 2 * TASTE**2)
    d, m = truth[left] - truth[right], TIES * shrink
    win, lose = norm.cdf((d - m) / C), norm.cdf((-d - m) / C)
    weight = 1e6 * np.concatenate([win + turned * lose, (1 - turned) * lose, 1 - win - lose])
    names = tuple(f"m{k}" for k in range(MODELS))
    outcome = np.repeat(np.array([1, -1, 0], dtype=np.int8), len(left))
    votes = Votes(names, np.tile(left, 3), np.tile(right, 3), outcome, weight=weight)
    found = rate(votes, prior="flat", interval="laplace").side
    assert found is not None
    return found.advantage


def run(name: str, simulations: int) -> dict:
    """Share of the simulations that warn, and of the intervals that hold the advantage."""
    setting, turned, habit = CASES[name]
    warned, held, advantage = 0, 0, 0.0
    for seed in range(simulations):
        votes, truth = draw(setting, seed, turned=turned, habit=habit)
        side = rate(votes).side
        assert side is not None
        assert side.interval is not None
        real = expected(truth, turned) if turned else 0.0
        warned += side.warned
        held += side.interval[0] <= real <= side.interval[1]
        advantage += side.advantage / simulations
    return {"case": name, "warned": warned / simulations, "coverage": held / simulations, "mean_advantage": advantage}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    started, records = time.process_time(), []
    for name in CASES:
        records.append(run(name, options.simulations))
        print(records[-1])
    if options.out is not None:
        about = {
            "command": " ".join(["python benchmarks/side_bias.py", *sys.argv[1:]]), "turned": TURNED, "habit": HABIT,
            "simulations": options.simulations, "seeds": f"0 to {options.simulations - 1}", "versions": versions(),
            "cpu_seconds": round(time.process_time() - started, 1), "level_of_test": 0.005, "band": BAND,
        }  # fmt: skip
        write_json(options.out, {"about": about, "records": records})
    biased = [record for record in records if "turned" in record["case"]]
    plain = [record for record in records if "turned" not in record["case"]]
    covered = all(BAND[0] <= record["coverage"] <= BAND[1] for record in biased)
    return int(not covered or any(record["warned"] > MOST_ALARMS for record in plain))


if __name__ == "__main__":
    sys.exit(main())
