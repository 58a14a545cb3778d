"""How well do gaps match human scores? A table for all kinds and data sets.

    python benchmarks/arena_real.py [--data FOLDER] [--out benchmarks/results/NAME.json]
    python benchmarks/arena_real.py FILE --prompt COLUMN --model COLUMN --score COLUMN[,COLUMN...]

FILE: one row per image, with its prompt, its model and one or several human scores. One score: it gives the votes (all
pairs of one prompt's images from different models) and is the truth. Several: each rater's votes in turn, the mean of
the others is the truth, and figures are means over raters. Without FILE the known sets of FOLDER are used. Definitions
(R2 over the best constant margin and so on): docs/arena.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import pearsonr, rankdata, spearmanr

from finepref import Votes, gaps, rate, read_votes
from finepref.arena.rho import estimate_rho
from finepref.arena.validate import validate
from finepref.core.files import write_json
from finepref.core.provenance import sha256_file, versions
from finepref.core.rng import numpy_generator

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
KINDS = ("uniform", "paper", "truncated", "selection", "image")
THIN = (1, 2, 3, 5)
SEEDS = 3


@dataclass(frozen=True)
class Images:
    """One row per image: prompt and model codes, names of models, [raters, images] scores."""

    prompt: np.ndarray
    model: np.ndarray
    models: tuple[str, ...]
    scores: np.ndarray


def load(path: Path, prompt: str, model: str, scores: Sequence[str]) -> Images:
    """Read a ratings file; rows without a score are left out."""
    with open(path, encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if all(row[score] for score in scores)]
    models = sorted({row[model] for row in rows})
    prompts = {name: k for k, name in enumerate(dict.fromkeys(row[prompt] for row in rows))}
    return Images(
        np.array([prompts[row[prompt]] for row in rows]), np.array([models.index(row[model]) for row in rows]),
        tuple(models), np.array([[float(row[score]) for row in rows] for score in scores]),
    )  # fmt: skip


def all_pairs(images: Images, most: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of one prompt's images from different models; at most `most` random ones per prompt."""
    left, right = [], []
    rng = numpy_generator(seed, "pairs of a prompt", most)
    for number in range(int(images.prompt.max()) + 1):
        rows = np.flatnonzero(images.prompt == number)
        a, b = (rows[k] for k in np.triu_indices(len(rows), 1))
        keep = images.model[a] != images.model[b]
        a, b = a[keep], b[keep]
        if most is not None and len(a) > most:
            chosen = np.sort(rng.choice(len(a), most, replace=False))
            a, b = a[chosen], b[chosen]
        left.append(a)
        right.append(b)
    return np.concatenate(left), np.concatenate(right)


def votes_of(images: Images, score: np.ndarray, left: np.ndarray, right: np.ndarray) -> Votes:
    """The votes that this score would give."""
    return Votes(
        images.models, images.model[left], images.model[right], np.sign(score[left] - score[right]).astype(np.int8),
        left_image=left, right_image=right, prompt=images.prompt[left],
    )  # fmt: skip


def r2_over_constant(gap: np.ndarray, truth: np.ndarray) -> float:
    """1 - sum (T - a g)^2 / sum (T - mean T)^2, a = max(0, sum gT / sum g^2); rows are winner minus loser."""
    a = max(0.0, float(gap @ truth) / float(gap @ gap))
    return 1.0 - float(np.sum((truth - a * gap) ** 2)) / float(np.sum((truth - truth.mean()) ** 2))


def quality(gap: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Pearson, Spearman, AUC of "truth in its top quarter", R2 over the best constant margin."""
    if np.ptp(gap) == 0:
        return {"pearson": np.nan, "spearman": np.nan, "auc": 0.5, "r2": 0.0}
    top = truth > np.quantile(truth, 0.75)
    ranks = rankdata(gap)
    auc = (ranks[top].sum() - top.sum() * (top.sum() + 1) / 2) / (top.sum() * (~top).sum())
    return {
        "pearson": float(pearsonr(gap, truth)[0]), "spearman": float(spearmanr(gap, truth)[0]), "auc": float(auc),
        "r2": r2_over_constant(gap, truth),
    }  # fmt: skip


def evaluate(images: Images, engine: str, most: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Quality of every kind of gap, one record per rater."""
    left, right = all_pairs(images, most, seed)
    raters = len(images.scores)
    found: dict[str, Any] = {kind: [] for kind in KINDS} | {"rho": [], "votes": [], "constant": []}
    for rater in range(raters):
        score = images.scores[rater]
        truth = score if raters == 1 else np.delete(images.scores, rater, axis=0).mean(axis=0)
        votes = votes_of(images, score, left, right)
        ratings = rate(votes, engine=engine)
        curve = estimate_rho(votes, ratings)
        gain = votes.outcome * (truth[left] - truth[right])
        decided = votes.outcome != 0
        for kind in KINDS:
            values = gaps(votes, ratings, kind=kind, **({"rho": curve.rho} if kind in ("selection", "image") else {}))
            found[kind].append(quality(values[decided], gain[decided]))
        found["rho"].append(curve.rho if curve.identified else None)
        found["votes"].append(int(decided.sum()))
        found["constant"].append(float(gain[decided].mean()))
    return found


def mean(found: dict[str, Any], kind: str, figure: str) -> float:
    """Mean over raters."""
    return float(np.mean([record[figure] for record in found[kind]]))


def show(name: str, engine: str, found: dict[str, Any]) -> None:
    """One row per kind."""
    rho = ", ".join("not identified" if value is None else f"{value:.2f}" for value in found["rho"])
    for kind in KINDS:
        figures = " | ".join(f"{mean(found, kind, figure):.3f}" for figure in ("pearson", "spearman", "auc", "r2"))
        each = ", ".join(f"{record['r2']:.3f}" for record in found[kind]) if len(found[kind]) > 1 else ""
        extra = rho if kind == "image" else ""
        print(f"| {name} | {engine} | {kind} | {figures} | {each} | {extra} |")


def thinned(name: str, images: Images) -> dict[int, float]:
    """Mean over raters and seeds of R2(image) - R2(truncated), with few random pairs per prompt."""
    result = {}
    for most in THIN:
        runs = [evaluate(images, "batch", most, seed) for seed in range(SEEDS)]
        image, truncated = (np.mean([mean(run, kind, "r2") for run in runs]) for kind in ("image", "truncated"))
        result[most] = float(image - truncated)
        print(f"| {name} | {most} | {truncated:.3f} | {image:.3f} | {image - truncated:+.3f} |")
    return result


def check(results: list[tuple[str, float, str, float]], name: str, value: float, sign: str, limit: float) -> None:
    """Note a bar."""
    results.append((name, value, sign, limit))


def bars(tables: dict[str, Any], thin: dict[str, Any], scores: Any) -> list[tuple[str, float, str, float]]:
    """The figures that must hold."""
    found: list[tuple[str, float, str, float]] = []
    agiqa, genai = tables["AGIQA-3K quality"], tables["GenAI-Bench"]
    check(found, "AGIQA-3K image Spearman", mean(agiqa["batch"], "image", "spearman"), ">=", 0.845)
    check(found, "AGIQA-3K image R2", mean(agiqa["batch"], "image", "r2"), ">=", 0.715)
    gain = mean(agiqa["batch"], "truncated", "r2") - mean(agiqa["batch"], "paper", "r2")
    check(found, "AGIQA-3K truncated R2 - paper R2", gain, ">=", 0.0)
    check(found, "GenAI-Bench image R2", mean(genai["batch"], "image", "r2"), ">=", 0.085)
    check(found, "GenAI-Bench truncated R2", mean(genai["batch"], "truncated", "r2"), ">=", 0.01)
    check(found, "GenAI-Bench paper R2 (online ratings)", mean(genai["online"], "paper", "r2"), "<=", -0.1)
    check(found, "GenAI-Bench paper R2 (batch ratings)", mean(genai["batch"], "paper", "r2"), "<=", -0.1)
    check(found, "GenAI-Bench image R2, rater 1", genai["batch"]["image"][0]["r2"], ">=", 0.055)
    for name, values in thin.items():
        for most, value in values.items():
            check(
                found, f"{name}, {most} pairs per prompt: image - truncated", value, ">=", -1e-9 if most == 1 else -0.01
            )
    loss = scores.log_loss
    check(found, "LLMFAO log-loss, online - batch", loss["online"] - loss["batch"], ">=", 0.006)
    gain = loss["online_appendix_a"] - loss["batch_drop"]
    check(found, "LLMFAO log-loss, online_appendix_a - batch_drop", gain, ">=", 0.0)
    return found


def known_sets(folder: Path) -> tuple[dict[str, Any], list[tuple[str, float, str, float]]]:
    """Everything on the sets of the folder."""
    sets = {
        "AGIQA-3K quality": load(folder / "agiqa3k.csv", "prompt_id", "generator", ["mos_quality"]),
        "AGIQA-3K alignment": load(folder / "agiqa3k.csv", "prompt_id", "generator", ["mos_align"]),
        "GenAI-Bench": load(
            folder / "genai_bench_image.csv", "prompt_id", "model", ["rating_1", "rating_2", "rating_3"]
        ),
    }
    tables: dict[str, Any] = {}
    head("data | ratings | kind | Pearson | Spearman | AUC | R2 over constant | R2 per rater | rho")
    for name, images in sets.items():
        tables[name] = {engine: evaluate(images, engine) for engine in ("batch", "online")}
        for engine, found in tables[name].items():
            show(name, engine, found)
    print()
    head("data | pairs per prompt | truncated R2 | image R2 | difference")
    thin = {name: thinned(name, sets[name]) for name in ("AGIQA-3K quality", "GenAI-Bench")}
    print()
    scores = validate(read_votes([folder / "llmfao_votes.csv"]).votes)
    head("LLMFAO, 5 folds x 5 | log-loss | Brier | 3-way log-loss")
    for name, value in scores.log_loss.items():
        three = (scores.log_loss_3way or {}).get(name)
        print(f"| {name} | {value:.4f} | {scores.brier[name]:.4f} | {'' if three is None else f'{three:.4f}'} |")
    print()
    return {"tables": tables, "thinned": thin, "llmfao": asdict(scores)}, bars(tables, thin, scores)


def head(columns: str) -> None:
    """The first two lines of a Markdown table."""
    print(f"| {columns} |")
    print("|" + "---|" * (columns.count("|") + 1))


def main() -> int:
    """Run; exit 1 if a bar fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--prompt", default="prompt_id")
    parser.add_argument("--model", default="model")
    parser.add_argument("--score", default="score")
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    started = time.process_time()
    if options.file is not None:
        images = load(options.file, options.prompt, options.model, options.score.split(","))
        head("data | ratings | kind | Pearson | Spearman | AUC | R2 over constant | R2 per rater | rho")
        tables = {engine: evaluate(images, engine) for engine in ("batch", "online")}
        for engine, found in tables.items():
            show(options.file.stem, engine, found)
        results: dict[str, Any] = {"tables": tables}
        limits: list[tuple[str, float, str, float]] = []
        inputs = [options.file]
    else:
        results, limits = known_sets(options.data)
        inputs = [options.data / name for name in ("agiqa3k.csv", "genai_bench_image.csv", "llmfao_votes.csv")]
    passed = [value >= limit if sign == ">=" else value <= limit for _, value, sign, limit in limits]
    for (name, value, sign, limit), good in zip(limits, passed, strict=True):
        print(f"{'pass' if good else 'FAIL'}  {name}: {value:.4f} {sign} {limit}")
    print(f"{time.process_time() - started:.1f} CPU-seconds")
    if options.out is not None:
        record = {
            "command": " ".join(["python benchmarks/arena_real.py", *sys.argv[1:]]), "versions": versions(),
            "inputs": {path.name: sha256_file(path) for path in inputs}, "cpu_seconds": time.process_time() - started,
            "bars": [dict(zip(("name", "value", "sign", "limit"), bar, strict=True)) for bar in limits], **results,
        }  # fmt: skip
        write_json(options.out, record)
        print(json.dumps({"written": options.out.name}))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
