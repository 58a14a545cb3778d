"""CPU seconds of the arena beside its peers, on the same votes.

    python benchmarks/arena_speed.py [--votes 1000000] [--out FILE.json]        (peers: pip install "finepref[bench]")

Process CPU time, best of 3 for what is fast. Slow peers see fewer votes; the table says how many and extrapolates.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finepref import Votes, gaps, rate, read_votes
from finepref.arena.ratings import BETA
from finepref.arena.rho import estimate_rho
from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator

MODELS = 15
BARS = {
    "batch from codes": 0.1, "batch from a parquet file, dictionary columns": 0.5, "online ksort": 1.0,
    "gap table and gather": 0.02, "image gaps, rho included (840k votes)": 4.0,
}  # fmt: skip


def cpu(action: Callable[[], Any], repeats: int = 3) -> float:
    """Smallest process CPU time of some runs."""
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        action()
        best = min(best, time.process_time() - started)
    return best


def make(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Votes between 15 models with 10 % ties: left, right, outcome."""
    rng = numpy_generator(0, "speed", n)
    left = rng.integers(0, MODELS, n)
    right = (left + rng.integers(1, MODELS, n)) % MODELS
    mu = rng.normal(25.0, 2.0, MODELS)
    lead = mu[left] - mu[right] + np.sqrt(2.0) * BETA * rng.normal(size=n)
    outcome = np.where(np.abs(lead) < 0.75, 0, np.sign(lead)).astype(np.int8)
    return left.astype(np.int32), right.astype(np.int32), outcome


def image_votes() -> Votes:
    """14 votes in each of 60,000 prompts of 10 images, 13 models, rho 0.5."""
    prompts, images, per_prompt, models = 60_000, 10, 14, 13
    rng = numpy_generator(1, "speed images")
    model = rng.integers(0, models, (prompts, images))
    quality = rng.normal(0.0, 0.22, models)[model] + np.sqrt(0.25) * rng.normal(size=model.shape)
    a = rng.integers(0, images, (prompts, per_prompt))
    b = (a + rng.integers(1, images, a.shape)) % images
    row = np.arange(prompts)[:, None]
    won = quality[row, a] - quality[row, b] + np.sqrt(0.5) * rng.normal(size=a.shape) > 0
    return Votes(
        tuple(f"model {k}" for k in range(models)), model[row, a].ravel(), model[row, b].ravel(),
        np.where(won, 1, -1).astype(np.int8).ravel(), left_image=(row * images + a).ravel(),
        right_image=(row * images + b).ravel(), prompt=np.repeat(np.arange(prompts), per_prompt),
    )  # fmt: skip


def ours(n: int) -> dict[str, tuple[int, float]]:
    """Every operation: votes and CPU seconds."""
    left, right, outcome = make(n)
    names = tuple(f"model {k}" for k in range(MODELS))
    votes = Votes(names, left, right, outcome)
    ratings = rate(votes)
    found = {"batch from codes": (n, cpu(lambda: rate(Votes(names, left, right, outcome))))}
    words = np.array(["right", "tie", "left"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "votes.parquet"
        columns = {
            "left": pa.DictionaryArray.from_arrays(pa.array(left), pa.array(names)),
            "right": pa.DictionaryArray.from_arrays(pa.array(right), pa.array(names)),
            "winner": pa.array(words[outcome + 1]).dictionary_encode(),
        }
        pq.write_table(pa.table(columns), path)
        found["batch from a parquet file, dictionary columns"] = (n, cpu(lambda: rate(read_votes([path]).votes)))
    found["batch, 1000 bootstraps"] = (n, cpu(lambda: rate(votes, interval="bootstrap"), 1))
    found["online ksort"] = (n, cpu(lambda: rate(votes, engine="online")))
    found["online appendix_a"] = (n, cpu(lambda: rate(votes, engine="online", preset="appendix_a")))
    found["gap table and gather"] = (n, cpu(lambda: gaps(votes, ratings, kind="paper")))
    images = image_votes()
    rated = rate(images)
    count = len(images)
    found["image gaps, rho included (840k votes)"] = (count, cpu(lambda: gaps(images, rated, kind="image"), 1))
    rho = estimate_rho(images, rated).rho
    found["image gaps, rho given (840k votes)"] = (count, cpu(lambda: gaps(images, rated, kind="image", rho=rho), 1))
    return found


def peer_trueskill(left: Any, right: Any, outcome: Any) -> None:
    """One update per vote."""
    trueskill = importlib.import_module("trueskill")
    environment = trueskill.TrueSkill()
    ratings = [environment.create_rating() for _ in range(MODELS)]
    for a, b, won in zip(left.tolist(), right.tolist(), outcome.tolist(), strict=True):
        if won < 0:
            a, b = b, a
        ratings[a], ratings[b] = trueskill.rate_1vs1(ratings[a], ratings[b], drawn=won == 0, env=environment)


def peer_openskill(left: Any, right: Any, outcome: Any) -> None:
    """One update per vote, Thurstone-Mosteller full pairing."""
    model = importlib.import_module("openskill.models").ThurstoneMostellerFull()
    ratings = [model.rating() for _ in range(MODELS)]
    for a, b, won in zip(left.tolist(), right.tolist(), outcome.tolist(), strict=True):
        ranks = [0, 0] if won == 0 else ([0, 1] if won > 0 else [1, 0])
        (first,), (second,) = model.rate([[ratings[a]], [ratings[b]]], ranks=ranks)
        ratings[a], ratings[b] = first, second


def peer_choix(left: Any, right: Any, outcome: Any) -> None:
    """Bradley-Terry by I-LSR from a matrix of counts (its own loop over votes is slower); ties are two half wins."""
    choix = importlib.import_module("choix")
    wins = np.zeros((MODELS, MODELS))
    np.add.at(wins, (left, right), (outcome > 0) + 0.5 * (outcome == 0))
    np.add.at(wins, (right, left), (outcome < 0) + 0.5 * (outcome == 0))
    choix.ilsr_pairwise_dense(wins, alpha=1e-6)


def peer_choix_list(left: Any, right: Any, outcome: Any) -> None:
    """Bradley-Terry by I-LSR from the list of decided votes."""
    choix = importlib.import_module("choix")
    decided = outcome != 0
    winner, loser = np.where(outcome > 0, left, right)[decided], np.where(outcome > 0, right, left)[decided]
    choix.ilsr_pairwise(MODELS, list(zip(winner.tolist(), loser.tolist(), strict=True)), alpha=1e-6)


def peer_evalica(method: str) -> Callable[[Any, Any, Any], None]:
    """Bradley-Terry or Elo in Rust, from integer codes."""

    def run(left: Any, right: Any, outcome: Any) -> None:
        evalica = importlib.import_module("evalica")
        named = np.array([evalica.Winner.Y, evalica.Winner.Draw, evalica.Winner.X], dtype=object)[outcome + 1].tolist()
        getattr(evalica, method)(left.tolist(), right.tolist(), named)

    return run


PEERS: tuple[tuple[str, str, Callable[[Any, Any, Any], None], int], ...] = (
    ("trueskill", "trueskill rate_1vs1", peer_trueskill, 10_000),
    ("openskill", "openskill ThurstoneMostellerFull", peer_openskill, 30_000),
    ("choix", "choix ilsr_pairwise_dense", peer_choix, 10**9),
    ("choix", "choix ilsr_pairwise", peer_choix_list, 100_000),
    ("evalica", "evalica bradley_terry", peer_evalica("bradley_terry"), 10**9),
    ("evalica", "evalica elo", peer_evalica("elo"), 10**9),
)


def peers(n: int) -> dict[str, tuple[int, float] | str]:
    """Peer -> (votes, CPU seconds), or why not."""
    found: dict[str, tuple[int, float] | str] = {}
    for package, name, action, most in PEERS:
        try:
            label = f"{name} ({metadata.version(package)})"
            importlib.import_module(package)
        except ImportError:
            found[name] = "not installed"
            continue
        votes = min(n, most)
        columns = make(votes)
        found[label] = (votes, cpu(lambda columns=columns, action=action: action(*columns), 1))
    return found


def main() -> int:
    """Run; exit 1 if a bar fails (bars are for a million votes)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    mine, others = ours(options.votes), peers(options.votes)
    print("| what | votes | CPU s | microseconds per vote | bar |\n|---|---|---|---|---|")
    failed = []
    for name, (n, seconds) in mine.items():
        bar = BARS.get(name) if options.votes == 1_000_000 else None
        failed += [name] if bar is not None and seconds > bar else []
        print(f"| finepref {name} | {n:,} | {seconds:.4f} | {1e6 * seconds / n:.3f} | {'' if bar is None else bar} |")
    for name, value in others.items():
        if isinstance(value, str):
            print(f"| {name} | {value} | | | |")
        else:
            print(f"| {name} | {value[0]:,} | {value[1]:.3f} | {1e6 * value[1] / value[0]:.3f} | |")
    for name in failed:
        print(f"FAIL  {name}")
    if options.out is not None:
        command = " ".join(["python benchmarks/arena_speed.py", *sys.argv[1:]])
        record = {"command": command, "versions": versions(), "bars": BARS, "finepref": mine, "peers": others}
        write_json(options.out, record)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
