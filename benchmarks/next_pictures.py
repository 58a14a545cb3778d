"""Gaps from votes on chosen pictures against votes on drawn ones, at equal numbers, replayed on human scores.

    OMP_NUM_THREADS=1 python benchmarks/next_pictures.py [--out FILE.json]

AGIQA-3K (quality; 10 generators, 300 prompts) and GenAI-Bench (alignment; 6 models, 527 prompts): whoever is asked
about two pictures of a prompt says which has the higher score of one rater (AGIQA-3K: the mean of all). Equal scores
are ties. `drawn`: pairs of a prompt drawn, never twice; `few`: fewest-first; `chosen`: purpose training. One voter.
Gaps are of kind image (`finepref.gaps`; rho from the votes).

R2 over the best constant margin (docs/arena.md), truth: the score, or the mean of the other raters,
    cast  on the votes that were cast: chosen votes are on other pairs than drawn ones, closer ones;
    all   on all pairs of a prompt, winner by the sign of the gap: posterior means of pictures, the same pairs for each.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from arena_real import SHARED, Images, all_pairs, load, r2_over_constant, votes_of

from finepref import gaps, rate
from finepref.arena.image import duels, infer, model_means
from finepref.arena.rho import estimate_rho
from finepref.collect.choices import chooser_of
from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator
from finepref.formats.answers import Answer, PictureRow, ShownSet
from finepref.formats.collection import CollectionRecord, StudyQuestion

PER_PROMPT, SEEDS = (2, 4, 6), 5
RULES = ("drawn", "few", "chosen")
CHOICES = {"few": "fewest-first", "chosen": "information"}


def asked(images: Images, score: np.ndarray, rule: str, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of `number` votes."""
    if rule == "drawn":
        left, right = all_pairs(images, None, seed)
        rows = numpy_generator(seed, "drawn votes").choice(len(left), number, replace=False)
        return left[rows], right[rows]
    about = CollectionRecord(
        mode="pair", images=2, questions=(StudyQuestion("overall", "Which?"),), sources=(), seed=seed,
        models=images.models, prompts=tuple(map(str, range(int(images.prompt.max()) + 1))),
        purpose="training" if rule == "chosen" else "order", choice=CHOICES[rule],
    )  # fmt: skip
    cells = zip(images.model.tolist(), images.prompt.tolist(), strict=True)
    chooser = chooser_of([PictureRow(k, model, prompt, "", "", 8, 8) for k, (model, prompt) in enumerate(cells)], about)
    found = []
    for k in range(number):
        pictures = chooser.choose(1)
        assert pictures is not None
        found.append(pictures)
        shown = ShownSet(str(k), 1, pictures, "plain", "", 0.0, k)
        lead = score[pictures[0]] - score[pictures[1]]
        word = "tie" if lead == 0 else "left" if lead > 0 else "right"
        chooser.answered(Answer(k, str(k), 0, json.dumps(word), 0, 0.0, 0, 0, "", ""), shown)
    left, right = np.array(found).T
    return left, right


def measure(images: Images, score: np.ndarray, truth: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> list[float]:
    """R2 on the votes cast and on all pairs, and rho."""
    votes = votes_of(images, score, *pairs)
    ratings = rate(votes)
    rho = estimate_rho(votes, ratings).rho
    values, decided = gaps(votes, ratings, kind="image", rho=rho), votes.outcome != 0
    gain = votes.outcome * (truth[pairs[0]] - truth[pairs[1]])
    cast = r2_over_constant(values[decided], gain[decided])
    known = np.zeros(len(truth))
    means = model_means(votes, ratings)
    fit = infer(duels(votes, means)[0], min(rho, 0.95)).mean
    model_mean = (ratings.mu - ratings.mu.mean())[[ratings.models.index(name) for name in images.models]] / ratings.c
    known[:] = model_mean[images.model]
    voted = np.unique(np.concatenate(pairs))
    known[voted] = fit[voted]
    left, right = all_pairs(images, None, 0)
    gap = known[left] - known[right]
    sign = np.sign(gap)
    return [cast, r2_over_constant(np.abs(gap), sign * (truth[left] - truth[right])), rho]


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    asked_for = parser.parse_args()
    quality = load(SHARED / "agiqa3k.csv", "prompt_id", "generator", ["mos_quality"])
    alignment = load(SHARED / "genai_bench_image.csv", "prompt", "model", [f"rating_{k}" for k in (1, 2, 3)])
    rows: list[dict[str, Any]] = []
    for name, images in (("AGIQA-3K", quality), ("GenAI-Bench", alignment)):
        prompts = int(images.prompt.max()) + 1
        for per in PER_PROMPT:
            for rule in RULES:
                found = []
                for seed in range(SEEDS):
                    rater = seed % len(images.scores)
                    score = images.scores[rater]
                    truth = score if len(images.scores) == 1 else np.delete(images.scores, rater, 0).mean(axis=0)
                    pairs = asked(images, score, rule, per * prompts, seed)
                    found.append(measure(images, score, truth, pairs))
                cast, every, rho = np.mean(found, axis=0)
                error = np.std(found, axis=0, ddof=1) / np.sqrt(SEEDS)
                rows.append({"data": name, "votes": per * prompts, "rule": rule, "runs": found})
                print(
                    f"| {name} | {per} a prompt | {rule} | {cast:.3f} ± {error[0]:.3f} | {every:.3f} ± {error[1]:.3f} "
                    f"| {rho:.2f} |", flush=True,
                )  # fmt: skip
    if asked_for.out is not None:
        write_json(asked_for.out, {"rows": rows, "versions": versions()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
