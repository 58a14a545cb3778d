"""Held-out votes: does an engine predict votes it has not seen, and does it know how sure it is?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from finepref.arena.counts import count, count_sides, is_weighted, parts
from finepref.arena.engines import fit_counts, rate_by
from finepref.arena.link import Link, p_left_decisive
from finepref.arena.normal import Floats
from finepref.arena.ratings import C
from finepref.arena.settings import DEFAULTS, RatingOptions
from finepref.core.errors import InputError
from finepref.core.progress import progress
from finepref.core.rng import numpy_generator
from finepref.formats.validation import Bin, Validation
from finepref.formats.votes import Votes

SEEDS = 5
MOST_VOTES = 2_000_000
BINS = 10
STANDARD = {
    "batch": RatingOptions(),
    "batch_drop": RatingOptions(ties="drop"),
    "online": RatingOptions(engine="online"),
    "online_appendix_a": RatingOptions(engine="online", preset="appendix_a"),
}


def validate(votes: Votes, *, folds: int = 5, chosen: RatingOptions = DEFAULTS, seed: int = 0) -> Validation:
    """K-fold held-out scores of the standard engines, and of the chosen one if it is another.

    p(left | decisive) = F((D - m)/c) / (F((D - m)/c) + F((-D - m)/c)), m the engine's own margin. Folds are random rows
    (K-wise: whole games), the online engines see the others in the given order.

    Args:
        votes: as rated. folds: at least 2.
        chosen: the engine whose calibration is looked at.
        seed: the first of the 5 fold seeds.

    Raises:
        InputError: fewer votes or games than folds, or none that was decided.
    """
    votes, group = _sample(votes, seed)
    groups = int(group.max(initial=-1)) + 1
    if folds < 2 or groups < folds:
        raise InputError(f"{folds} folds of {groups} votes or games", remedy="give at least 2 folds, and more votes")
    engines, name = _engines(chosen)
    if is_weighted(votes):  # which the online engines do not know
        engines = {engine: told for engine, told in engines.items() if told.engine == "batch"}
    losses: dict[str, list[Floats]] = {engine: [] for engine in engines}
    left_won, right_won, tied = parts(votes)
    decided = left_won + right_won
    if not decided[votes.left != votes.right].any():
        what = "no vote between two different models was decided, so there is nothing to predict"
        raise InputError(what, where="--validate", remedy="leave it out")
    p_chosen = np.zeros(len(votes))
    for fold_seed in progress(range(seed, seed + SEEDS), f"validating {len(engines)} engines on {folds} folds"):
        fold = (numpy_generator(fold_seed, "arena folds").permutation(groups) % folds)[group]
        for engine, options in engines.items():
            p, three = _held_out(votes, fold, folds, options)
            low, high = np.logaddexp(0.0, -p), np.logaddexp(0.0, p)  # minus log chance of left and of right
            chance = 1.0 / (1.0 + np.exp(-p))
            brier = left_won * (1.0 - chance) ** 2 + right_won * chance**2
            scores = [(left_won @ low + right_won @ high) / decided.sum(), brier.sum() / decided.sum(), three]
            losses[engine].append(np.array(scores))
            if engine == name and fold_seed == seed:
                p_chosen = 1.0 / (1.0 + np.exp(-p))
    mean = {engine: np.mean(values, axis=0) for engine, values in losses.items()}
    three_way = {k: float(v[2]) for k, v in mean.items() if np.isfinite(v[2])}
    return Validation(
        folds=folds, fold_seeds=SEEDS, n=round(float(decided.sum())), chosen=name,
        calibration=calibration_bins(p_chosen[decided > 0], left_won[decided > 0], decided[decided > 0]),
        log_loss={k: float(v[0]) for k, v in mean.items()}, brier={k: float(v[1]) for k, v in mean.items()},
        log_loss_3way=three_way if tied.any() else None,
    )  # fmt: skip


def _sample(votes: Votes, seed: int) -> tuple[Votes, npt.NDArray[np.integer]]:
    """At most 2 million votes in their order, and which fold unit each belongs to (itself, or its game)."""
    rng = numpy_generator(seed, "validation votes")
    if len(votes) > MOST_VOTES:
        if votes.game is None:
            votes = votes.take(np.sort(rng.choice(len(votes), MOST_VOTES, replace=False)))
        else:
            games = int(votes.game.max()) + 1
            kept = np.zeros(games, dtype=bool)
            kept[rng.permutation(games)[: max(1, games * MOST_VOTES // len(votes))]] = True
            votes = votes.take(kept[votes.game])
    if votes.game is None:
        return votes, np.arange(len(votes))
    return votes, np.unique(votes.game, return_inverse=True)[1]


def calibration_bins(p: Floats, happened: Floats, votes: Floats) -> tuple[Bin, ...]:
    """Predictions p of `votes` votes each, of which `happened` did, in 10 bins of equal width; empty ones left out."""
    which = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    size, total, hits = (np.bincount(which, weight, BINS) for weight in (votes, p * votes, happened))
    return tuple(Bin(float(total[b] / size[b]), float(hits[b] / size[b]), int(size[b])) for b in range(BINS) if size[b])


def _engines(chosen: RatingOptions) -> tuple[dict[str, RatingOptions], str]:
    """The standard engines and the chosen one, and its name; what changes no prediction is put aside."""
    seed = chosen.seed if chosen.order == "shuffled" else DEFAULTS.seed
    wanted = replace(chosen, interval=DEFAULTS.interval, cluster=DEFAULTS.cluster, anchor=DEFAULTS.anchor, seed=seed)
    for name, options in STANDARD.items():
        if options == wanted:
            return STANDARD, name
    return {**STANDARD, "chosen": wanted}, "chosen"


def _train(votes: Votes, options: RatingOptions) -> tuple[Floats, float, Link]:
    """[M] mu, the tie margin, and the link that they are read with."""
    if options.engine == "batch":
        model = fit_counts(count_sides(votes), votes.models, options)
        return model.mu, C * model.fit.margin, model.link
    ratings = rate_by(votes, options)
    return ratings.mu, ratings.tie_margin, ratings.link


def _held_out(votes: Votes, fold: npt.NDArray[np.integer], folds: int, options: RatingOptions) -> tuple[Floats, float]:
    """[n] log odds of left against right and the mean of minus log P of the 3-way outcome, of votes when held out."""
    odds, lost, weight = np.zeros(len(votes)), 0.0, 0.0
    won = parts(votes)
    for k in range(folds):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        mu, margin, link = _train(votes.take(train), options)
        d, m = (mu[votes.left[test]] - mu[votes.right[test]]) / C, margin / C
        log_left, log_right = link.win(d - m)[0], link.win(-d - m)[0]
        odds[test] = log_left - log_right
        logs = (log_left, log_right, link.tie(d, m)[0]) if m > 0 else None
        lost += float("inf") if logs is None else -sum(float(p[test] @ log) for p, log in zip(won, logs, strict=True))
        weight += sum(float(p[test].sum()) for p in won)
    return odds, lost / weight


def in_sample_calibration(votes: Votes, mu: Floats, margin: float, link: Link) -> tuple[Bin, ...]:
    """Calibration of ratings on the very votes they were made from (pairs of models, weighted by their votes)."""
    counts = count(votes)
    p = p_left_decisive(link, (mu[counts.i] - mu[counts.j]) / C, margin / C)
    wins, losses = np.concatenate([counts.i_wins, counts.j_wins]), np.concatenate([counts.j_wins, counts.i_wins])
    return calibration_bins(np.concatenate([p, 1.0 - p]), wins, wins + losses)
