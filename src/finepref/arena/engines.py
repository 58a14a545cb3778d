"""`rate`: votes to ratings by the engine of your choice."""

from __future__ import annotations

from typing import Any

import numpy as np

from finepref.arena import batch, intervals, online
from finepref.arena.counts import PairCounts, count
from finepref.arena.freeforall import run_games
from finepref.arena.link import get_link
from finepref.arena.ratings import BETA, LEVEL, SIGMA0, C, Ratings
from finepref.arena.settings import DEFAULTS, RatingOptions
from finepref.core.errors import InputError, check_word
from finepref.core.rng import numpy_generator
from finepref.formats.ratings import RatingSettings
from finepref.formats.votefiles import VoteTable, votes_in
from finepref.formats.votes import Votes

FEW = 30  # votes under which a model is called thinly rated
CHUNK = 1 << 20  # votes that are Python numbers at one time
IDLE = {"batch": ("preset", "order", "passes"), "online": ("link", "prior", "interval", "cluster")}  # without effect
ORDERS = ("given", "shuffled")
PRIORS = ("normal", "flat", "empirical-bayes")
BATCH_TIES = ("fit", "half", "drop")


def rate(
    votes: Votes | VoteTable,
    *,
    engine: str = DEFAULTS.engine,
    preset: str = DEFAULTS.preset,
    link: str = DEFAULTS.link,
    prior: str = DEFAULTS.prior,
    ties: str = DEFAULTS.ties,
    interval: str = DEFAULTS.interval,
    cluster: str | None = DEFAULTS.cluster,
    order: str = DEFAULTS.order,
    passes: int = DEFAULTS.passes,
    seed: int = DEFAULTS.seed,
) -> Ratings:
    """Rate the models of these votes.

    batch: the most probable ratings under P(left) = F((mu_l - mu_r - m)/c), c = sqrt(2) 25/6, tie margin m, all votes
    at once. online: one Gaussian update per vote, in order.

    Args:
        votes: n votes over M models, or what `read_votes` returned.
        engine: "batch" or "online".
        preset: online only: "ksort" (default; tau = 25/300, ties as draws) or "appendix_a" (tau = 0, ties skipped).
        link: batch only: "probit" (default) or "logit".
        prior: batch only: "normal" (default; N(25, (25/3)^2) per model), "flat", or "empirical-bayes" (sd fitted).
        ties: batch: "fit" (default), "half", "drop". online: "fit" (the preset's own way), "draw", "skip", "half".
        interval: batch only: "laplace", "sandwich", "bootstrap", or "auto" (default; sandwich over games, prompts or
            voters where there are at least 30 and 4 per model, else Laplace).
        cluster: "game", "prompt" or "voter": which votes go together, for sandwich and bootstrap; by default as "auto".
        order: online only: "given" or "shuffled" (by `seed`).
        passes: online only: how often to go through the votes, >= 1.
        seed: of the shuffled order and of the bootstrap.

    Returns:
        Ratings with [M] mu and sigma; batch also the [M, M] covariance of mu minus its mean.

    Raises:
        InputError: unknown or idle option; under the flat prior, votes that do not tie all models together.

    References:
        ArenaPO section 4.1 and Appendix A (online); research behind both engines: docs/arena.md.
    """
    options = RatingOptions(
        engine=engine, preset=preset, link=link, prior=prior, ties=ties, interval=interval, cluster=cluster,
        order=order, passes=passes, seed=seed,
    )  # fmt: skip
    return rate_by(votes_in(votes), options)


def rate_by(votes: Votes, options: RatingOptions) -> Ratings:
    """Rate the models of these votes; see `rate`."""
    check_word(options.engine, IDLE, "engine")
    for name in IDLE[options.engine]:
        if getattr(options, name) != getattr(DEFAULTS, name):
            raise InputError(f"{name} has no effect with engine {options.engine!r}", remedy=f"leave {name} out")
    return _online(votes, options) if options.engine == "online" else _batch(votes, options)


def _batch(votes: Votes, options: RatingOptions) -> Ratings:
    plan = intervals.plan(votes, options.interval, options.cluster)
    counts = count(votes)
    model = fit_counts(counts, votes.models, options)
    covariance = C * C * batch.centred(intervals.covariance(votes, model, plan, options))
    settings = RatingSettings(
        link=model.link.name, prior=options.prior, prior_sd=model.prior_sd, ties=options.ties, intervals=plan.method,
        cluster=plan.cluster, intervals_why=plan.why, votes=int(counts.total),
        log_likelihood=model.fit.log_likelihood, seed=options.seed if plan.method == "bootstrap" else None,
        beta=BETA, tie_margin=C * model.fit.margin, level=LEVEL,
    )  # fmt: skip
    sigma = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return _ratings(votes, counts, settings, engine="batch", mu=model.mu, sigma=sigma, covariance=covariance)


def fit_counts(counts: PairCounts, models: tuple[str, ...], options: RatingOptions) -> batch.BatchModel:
    """The batch engine on counts per pair of models, without intervals: link, prior and ties of the options."""
    prior = options.prior
    check_word(prior, PRIORS, "prior")
    check_word(options.ties, BATCH_TIES, "treatment of ties")
    link, used = get_link(options.link), counts.with_ties(options.ties)
    if prior == "flat":
        _refuse_infinite(used, models)
        return batch.BatchModel(used, link, batch.fit(used, link, prior_precision=0.0), None)
    if prior == "empirical-bayes":
        sd, fit = batch.empirical_bayes(used, link)
        return batch.BatchModel(used, link, fit, C * sd)
    return batch.BatchModel(used, link, batch.fit(used, link, prior_precision=(C / SIGMA0) ** 2), SIGMA0)


def _online(votes: Votes, options: RatingOptions) -> Ratings:
    chosen, order = online.get_preset(options.preset), options.order
    ties = chosen.ties if options.ties == DEFAULTS.ties else options.ties
    check_word(ties, online.TIES, "treatment of ties")
    check_word(order, ORDERS, "order")
    if options.passes < 1:
        raise InputError(f"passes is {options.passes}", remedy="give at least 1")
    seed = options.seed if order == "shuffled" else None
    games = votes.games if ties == "draw" else None  # Appendix A knows pairs only
    n = len(votes) if games is None else len(games)
    permutation = None if seed is None else numpy_generator(seed, "arena order").permutation(n)
    mu, sigma = online.start(len(votes.models))
    for _ in range(options.passes):
        for begin in range(0, n, CHUNK):
            rows: Any = slice(begin, begin + CHUNK) if permutation is None else permutation[begin : begin + CHUNK]
            if games is not None:
                turn = np.arange(n)[rows].tolist()
                mu, sigma = run_games(games, turn, mu, sigma, tau=chosen.tau, draw_margin=chosen.draw_margin)
                continue
            left, right, outcome = (c[rows].tolist() for c in (votes.left, votes.right, votes.outcome))
            mu, sigma = online.run_votes(
                left, right, outcome, mu, sigma, tau=chosen.tau, draw_margin=chosen.draw_margin, ties=ties
            )
    counts = count(votes)
    settings = RatingSettings(
        preset=options.preset, tau=chosen.tau, draw_probability=chosen.draw_probability, ties=ties, order=order,
        passes=options.passes, votes=int(counts.total), seed=seed, beta=BETA, tie_margin=chosen.draw_margin,
        level=LEVEL,
    )  # fmt: skip
    return _ratings(votes, counts, settings, engine="online", mu=mu, sigma=sigma, covariance=None)


def _ratings(votes: Votes, counts: PairCounts, settings: RatingSettings, **found: Any) -> Ratings:
    wins, losses, ties = counts.record().T
    return Ratings(
        models=votes.models, settings=settings, wins=wins, losses=losses, ties=ties, component=counts.components(),
        warnings=_warnings(counts, votes.models), **found,
    )  # fmt: skip


def _refuse_infinite(counts: PairCounts, models: tuple[str, ...]) -> None:
    component = counts.components()
    if component.max() > 0:
        raise InputError(
            "the votes do not connect all models, so their ratings cannot be compared without a prior "
            f"(never met the others: {batch.names_outside(component, models)})",
            remedy="use the normal prior, or add votes between the groups",
        )
    mutual = counts.mutual_components()
    if mutual.max() > 0:
        raise InputError(
            "some models only ever won or only ever lost against the others, so without a prior their ratings are "
            f"infinite ({batch.names_outside(mutual, models)})",
            remedy="use the normal prior, or add votes",
        )


def _warnings(counts: PairCounts, models: tuple[str, ...]) -> tuple[str, ...]:
    if len(models) == 1:
        return (f"All votes name one model, {models[0]!r}: there is nothing to rate.",)
    record, component = counts.record(), counts.components()
    games = record.sum(axis=1)
    found = []
    if component.max() > 0:
        found.append(
            f"The votes fall into {component.max() + 1} groups of models that never met; ratings compare only within a "
            f"group (never met the largest: {batch.names_outside(component, models)})."
        )
    thin = [k for k in np.argsort(games, kind="stable") if games[k] < FEW]
    if thin:
        names = ", ".join(f"{models[k]} ({games[k]})" for k in thin[:5])
        more = f" and {len(thin) - 5} more" if len(thin) > 5 else ""
        who = "1 model has" if len(thin) == 1 else f"{len(thin)} models have"
        found.append(f"{who} fewer than {FEW} votes: {names}{more}. Such intervals are wide.")
    one_sided = [k for k in range(len(models)) if games[k] and record[k, 2] == 0 and 0 in record[k, :2]]
    if one_sided:
        names = ", ".join(models[k] for k in one_sided[:5])
        more = f" and {len(one_sided) - 5} more" if len(one_sided) > 5 else ""
        found.append(f"Always won or always lost: {names}{more}. Only the prior keeps such a rating finite.")
    return tuple(found)
