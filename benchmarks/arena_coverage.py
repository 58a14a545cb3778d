"""How often the arena's intervals hold the truth when voters differ and many, or few, of them are named.

    python benchmarks/arena_coverage.py --out benchmarks/results/2026-11-29-arena-coverage.json

Six models, 2,000 votes, 10 % ties. A voter's taste moves every model's rating by N(0, 2^2), so votes of one voter go
together. Every vote without a name is by another voter. The truth is what people prefer on average: with c^2 + 2 taste^2
for c^2 the marginal chances are those of the model, so the ratings to be found are the true ones times
c / sqrt(c^2 + 2 taste^2). Settings: shares without a name, with 60 named voters; one voter of 90 % beside 60 others.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finepref import Votes, rate
from finepref.arena.ratings import C
from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator

MODELS, VOTES, VOTERS, TASTE, TIES = 6, 2000, 60, 2.0, 0.7
BAND = (0.93, 0.97)


@dataclass(frozen=True)
class Setting:
    """unnamed: share of the votes without a voter's name. busiest: share of one voter, or 0."""

    name: str
    unnamed: float = 0.0
    busiest: float = 0.0
    interval: str = "auto"


SETTINGS = (
    *(Setting(f"{share:.0%} unnamed", unnamed=share) for share in (0.0, 0.5, 0.7, 0.9)),
    *(Setting(f"{share:.0%} unnamed, bootstrap", unnamed=share, interval="bootstrap") for share in (0.0, 0.9)),
    Setting("one voter of 90 %", busiest=0.9),
)


def simulate(setting: Setting, seed: int, *, side: float = 0.0) -> tuple[Votes, np.ndarray]:
    """Votes, and the centred ratings that they are about; side: advantage of the left in rating units."""
    rng = numpy_generator(seed, "arena coverage", setting.name)
    truth = rng.normal(0.0, 2.0, MODELS)
    named = rng.integers(0, VOTERS, VOTES)
    kind = rng.random(VOTES)
    voter = np.where(kind < setting.unnamed, -1, named)
    voter = np.where(kind < setting.busiest, VOTERS, voter)
    person = np.where(voter < 0, VOTERS + 1 + np.arange(VOTES), voter)
    taste = TASTE * rng.standard_normal((VOTERS + 1 + VOTES, MODELS))
    left = rng.integers(0, MODELS, VOTES)
    right = (left + rng.integers(1, MODELS, VOTES)) % MODELS
    lead = truth[left] + taste[person, left] - truth[right] - taste[person, right] + side
    lead += C * rng.standard_normal(VOTES)
    outcome = np.where(np.abs(lead) < TIES, 0, np.sign(lead)).astype(np.int8)
    names = tuple(f"m{k}" for k in range(MODELS))
    votes = Votes(names, left, right, outcome, voter=voter, voters=tuple(f"v{k}" for k in range(VOTERS + 1)))
    shrink = C / np.sqrt(C**2 + 2 * TASTE**2)
    return votes, shrink * (truth - truth.mean())


def coverage(setting: Setting, simulations: int) -> dict:
    """Share of the intervals that hold the truth, over models and simulations; how many gave none."""
    held, given, width = 0, 0, 0.0
    for seed in range(simulations):
        votes, truth = simulate(setting, seed)
        ratings = rate(votes, interval=setting.interval)
        low, high = ratings.interval()
        middle = ratings.mu.mean()
        held += int(np.sum((low - middle <= truth) & (truth <= high - middle)))
        given += int(np.sum(np.isfinite(low)))
        width += float(np.nansum(high - low))
    refused = 1.0 - given / (MODELS * simulations)
    found = {"coverage": held / given, "width": width / given} if given else {"coverage": None, "width": None}
    return {"setting": setting.name, **found, "refused": refused, "why": ratings.settings.intervals_why}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    started, records = time.process_time(), []
    for setting in SETTINGS:
        fewer = options.simulations // 10 if setting.interval == "bootstrap" else options.simulations
        records.append({**coverage(setting, fewer), "simulations": fewer})
        print(records[-1])
    if options.out is not None:
        about = {
            "command": " ".join(["python benchmarks/arena_coverage.py", *sys.argv[1:]]), "models": MODELS, "votes": VOTES,
            "voters": VOTERS, "taste": TASTE, "seeds": f"0 to {options.simulations - 1}", "versions": versions(),
            "cpu_seconds": round(time.process_time() - started, 1), "level": 0.95, "band": BAND,
        }  # fmt: skip
        write_json(options.out, {"about": about, "records": records})
    plain = [r for r in records if "bootstrap" not in r["setting"]]
    return int(any(r["coverage"] is not None and not BAND[0] <= r["coverage"] <= BAND[1] for r in plain))


if __name__ == "__main__":
    sys.exit(main())
