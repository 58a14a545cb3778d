"""Held-out votes: does an engine predict votes it has not seen, and does it know how sure it is?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finepref.arena.counts import count
from finepref.arena.link import Link, get_link, p_left_decisive
from finepref.arena.normal import Floats
from finepref.arena.rate import C, fit_counts, rate
from finepref.core.errors import InputError
from finepref.core.progress import progress
from finepref.core.rng import numpy_generator
from finepref.formats.votes import Votes

SEEDS = 5
MOST_VOTES = 2_000_000
BINS = 10
STANDARD: dict[str, dict[str, Any]] = {
    "batch": {"engine": "batch"},
    "batch_drop": {"engine": "batch", "ties": "drop"},
    "online": {"engine": "online"},
    "online_appendix_a": {"engine": "online", "preset": "appendix_a"},
}

DEFAULTS = {"preset": "ksort", "link": "probit", "prior": "normal", "ties": "fit", "order": "given", "passes": 1}
QUIET = {"seed", "interval", "cluster"}  # they do not change a prediction


@dataclass(frozen=True, slots=True)
class Prediction:
    """A trained engine as a predictor: [M] mu in rating units, tie margin, link."""

    mu: Floats
    margin: float
    link: Link


@dataclass(frozen=True, slots=True)
class Bin:
    """Held-out votes whose predicted chance of the left side falls together: its mean, how often left won, how many."""

    predicted: float
    observed: float
    votes: int


@dataclass(frozen=True, slots=True)
class Validation:
    """Scores per engine, each the mean over 5 fold seeds, on at most 2 million votes (or so many whole games).

    log_loss, brier: of p(left | decisive) over the n decisive held-out votes. log_loss_3way: with ties as an outcome,
    over all held-out votes, for engines with a tie margin; None without ties. calibration: of the chosen engine.
    """

    folds: int
    n: int
    log_loss: Mapping[str, float]
    brier: Mapping[str, float]
    log_loss_3way: Mapping[str, float] | None
    calibration: tuple[Bin, ...]
    chosen: str

    def record(self) -> dict[str, Any]:
        """What validation.json holds."""
        found: dict[str, Any] = {"log_loss": dict(self.log_loss), "brier": dict(self.brier), "n": self.n}
        if self.log_loss_3way is not None:
            found["log_loss_3way"] = dict(self.log_loss_3way)
        bins = [{"predicted": b.predicted, "observed": b.observed, "votes": b.votes} for b in self.calibration]
        return found | {"folds": self.folds, "fold_seeds": SEEDS, "chosen": self.chosen, "calibration": bins}


def validate(votes: Votes, *, folds: int = 5, chosen: Mapping[str, Any] | None = None, seed: int = 0) -> Validation:
    """K-fold held-out scores of the standard engines, and of the chosen one if it is another.

    p(left | decisive) = F((D - m)/c) / (F((D - m)/c) + F((-D - m)/c)), m the engine's own margin. Folds are random rows
    (K-wise: whole games), the online engines see the others in the given order.

    Args:
        votes: as rated. folds: at least 2.
        chosen: arguments of `rate`, None for the batch engine.
        seed: the first of the 5 fold seeds.

    Raises:
        InputError: fewer votes or games than folds.
    """
    votes, group = _sample(votes, seed)
    groups = int(group.max()) + 1
    if folds < 2 or groups < folds:
        raise InputError(f"{folds} folds of {groups} votes or games", remedy="give at least 2 folds, and more votes")
    engines, name = _engines(chosen)
    losses: dict[str, list[Floats]] = {engine: [] for engine in engines}
    decisive = votes.outcome != 0
    p_chosen = np.zeros(len(votes))
    for fold_seed in progress(range(seed, seed + SEEDS), f"validating {len(engines)} engines on {folds} folds"):
        fold = (numpy_generator(fold_seed, "arena folds").permutation(groups) % folds)[group]
        for engine, options in engines.items():
            p, three = _held_out(votes, fold, folds, options)
            y = (votes.outcome > 0)[decisive]
            right = np.where(y, p[decisive], -p[decisive])  # log odds of what happened
            scores = [np.logaddexp(0.0, -right).mean(), np.mean((1.0 / (1.0 + np.exp(right))) ** 2), three.mean()]
            losses[engine].append(np.array(scores))
            if engine == name and fold_seed == seed:
                p_chosen = 1.0 / (1.0 + np.exp(-p))
    mean = {engine: np.mean(values, axis=0) for engine, values in losses.items()}
    three_way = {k: float(v[2]) for k, v in mean.items() if np.isfinite(v[2])}
    y = (votes.outcome > 0)[decisive]
    return Validation(
        folds=folds, n=int(decisive.sum()), chosen=name, calibration=calibration_bins(p_chosen[decisive], y),
        log_loss={k: float(v[0]) for k, v in mean.items()}, brier={k: float(v[1]) for k, v in mean.items()},
        log_loss_3way=None if decisive.all() else three_way,
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


def calibration_bins(p: Floats, happened: npt.NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Predictions in 10 bins of equal width; empty bins are left out."""
    which = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    size = np.bincount(which, minlength=BINS)
    total, hits = np.bincount(which, p, BINS), np.bincount(which, happened.astype(np.float64), BINS)
    return tuple(Bin(float(total[b] / size[b]), float(hits[b] / size[b]), int(size[b])) for b in range(BINS) if size[b])


def _engines(chosen: Mapping[str, Any] | None) -> tuple[dict[str, dict[str, Any]], str]:
    """The standard engines and the chosen one, and the name of the chosen one; options without a say are dropped."""
    wanted = {k: v for k, v in (chosen or {"engine": "batch"}).items() if k not in QUIET and DEFAULTS.get(k) != v}
    for name, options in STANDARD.items():
        if options == wanted:
            return dict(STANDARD), name
    if wanted.get("order") == "shuffled" and chosen:
        wanted["seed"] = chosen.get("seed", 0)
    return {**STANDARD, "chosen": wanted}, "chosen"


def _train(votes: Votes, options: Mapping[str, Any]) -> Prediction:
    if options["engine"] == "batch":
        named = {**DEFAULTS, **options}
        model = fit_counts(count(votes), votes.models, link=named["link"], prior=named["prior"], ties=named["ties"])
        return Prediction(model.mu, C * model.fit.margin, model.link)
    ratings = rate(votes, **options)
    return Prediction(ratings.mu, ratings.tie_margin, get_link("probit"))


def _held_out(
    votes: Votes, fold: npt.NDArray[np.integer], folds: int, options: Mapping[str, Any]
) -> tuple[Floats, Floats]:
    """[n] log odds of left against right and [n] minus log P of the 3-way outcome, of every vote when held out."""
    odds, three = np.zeros(len(votes)), np.full(len(votes), np.inf)
    for k in range(folds):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        found = _train(votes.take(train), options)
        d = (found.mu[votes.left[test]] - found.mu[votes.right[test]]) / C
        m = found.margin / C
        log_left, log_right = found.link.win(d - m)[0], found.link.win(-d - m)[0]
        odds[test] = log_left - log_right
        if m > 0:
            outcome = votes.outcome[test]
            log_tie = found.link.tie(d, m)[0]
            three[test] = -np.where(outcome > 0, log_left, np.where(outcome < 0, log_right, log_tie))
    return odds, three


def in_sample_calibration(votes: Votes, mu: Floats, margin: float, link: Link) -> tuple[Bin, ...]:
    """Calibration of ratings on the very votes they were made from (pairs of models, weighted by their votes)."""
    counts = count(votes)
    p = p_left_decisive(link, (mu[counts.i] - mu[counts.j]) / C, margin / C)
    both = np.concatenate([p, 1.0 - p])
    wins, losses = np.concatenate([counts.i_wins, counts.j_wins]), np.concatenate([counts.j_wins, counts.i_wins])
    which = np.minimum((both * BINS).astype(np.int64), BINS - 1)
    size = np.bincount(which, wins + losses, BINS)
    total, hits = np.bincount(which, both * (wins + losses), BINS), np.bincount(which, wins, BINS)
    return tuple(Bin(float(total[b] / size[b]), float(hits[b] / size[b]), int(size[b])) for b in range(BINS) if size[b])
