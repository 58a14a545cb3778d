"""`rate`: votes to ratings by the engine of your choice."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from finepref.arena import batch, online
from finepref.arena.counts import PairCounts, count
from finepref.arena.link import get_link
from finepref.arena.normal import SQRT_2
from finepref.arena.ratings import BETA, MU0, SIGMA0, Ratings
from finepref.arena.votes import Votes
from finepref.errors import InputError, nearest
from finepref.rng import numpy_generator

C = SQRT_2 * BETA
FEW = 30  # votes under which a model is called thinly rated

Engine = Literal["batch", "online"]


def rate(
    votes: Votes,
    *,
    engine: str = "batch",
    preset: str | None = None,
    link: str | None = None,
    prior: str | None = None,
    ties: str | None = None,
    order: str = "given",
    passes: int = 1,
    seed: int = 0,
) -> Ratings:
    """Rate the models of these votes.

    batch: the most probable ratings under P(left) = F((mu_l - mu_r - m)/c), c = sqrt(2) 25/6, tie margin m, all votes
    at once. online: one Gaussian update per vote, in order.

    Args:
        votes: n votes over M models.
        engine: "batch" or "online".
        preset: online only: "ksort" (default; tau = 25/300, ties as draws) or "appendix_a" (tau = 0, ties skipped).
        link: batch only: "probit" (default) or "logit".
        prior: batch only: "normal" (default; N(25, (25/3)^2) per model), "flat", or "empirical-bayes".
        ties: batch: "fit" (default), "half", "drop". online: "draw", "skip", "half"; the preset's own by default.
        order: online only: "given" or "shuffled" (by `seed`).
        passes: online only: how often to go through the votes, >= 1.

    Returns:
        Ratings with [M] mu and sigma; batch also the [M, M] covariance of mu minus its mean.

    Raises:
        InputError: unknown or idle option; under the flat prior, votes that do not tie all models together.

    References:
        ArenaPO section 4.1 and Appendix A (online); research behind both engines: docs/arena.md.
    """
    if engine == "online":
        _idle(engine, link=link, prior=prior)
        return _online(votes, preset=preset or "ksort", ties=ties, order=order, passes=passes, seed=seed)
    if engine != "batch":
        raise InputError(f"unknown engine {engine!r}", remedy=nearest(engine, ("batch", "online")))
    _idle(engine, preset=preset, order=None if order == "given" else order, passes=None if passes == 1 else passes)
    return rate_counts(count(votes), votes.models, link=link or "probit", prior=prior or "normal", ties=ties or "fit")


def rate_counts(
    counts: PairCounts, models: tuple[str, ...], *, link: str = "probit", prior: str = "normal", ties: str = "fit"
) -> Ratings:
    """The batch engine on counts per pair of models; arguments as in `rate`."""
    for value, known, what in ((prior, PRIORS, "prior"), (ties, BATCH_TIES, "treatment of ties")):
        if value not in known:
            raise InputError(f"unknown {what} {value!r}", remedy=nearest(value, known))
    chosen, used = get_link(link), counts.with_ties(ties)
    warnings = _warnings(counts, models)
    if prior == "flat":
        _refuse_infinite(used, models)
    fit = batch.fit(used, chosen, prior_precision=0.0 if prior == "flat" else batch.prior_precision(SIGMA0, C))
    covariance = C * C * batch.covariance_of_centred(fit.precision)
    record = counts.record()
    settings: dict[str, Any] = {
        "link": link, "prior": prior, "prior_sd": None if prior == "flat" else SIGMA0, "ties": ties,
        "intervals": "laplace", "votes": int(counts.total), "log_likelihood": fit.log_likelihood,
    }  # fmt: skip
    return Ratings(
        models=models, mu=MU0 + C * fit.x, sigma=np.sqrt(np.maximum(np.diag(covariance), 0.0)), covariance=covariance,
        engine="batch", settings=settings, tie_margin=C * fit.margin,
        wins=record[:, 0], losses=record[:, 1], ties=record[:, 2], component=counts.components(), warnings=warnings,
    )  # fmt: skip


PRIORS = ("normal", "flat")
BATCH_TIES = ("fit", "half", "drop")


def _online(votes: Votes, *, preset: str, ties: str | None, order: str, passes: int, seed: int) -> Ratings:
    chosen = online.get_preset(preset)
    ties = ties or chosen.ties
    if ties not in online.TIES:
        raise InputError(f"unknown treatment of ties {ties!r}", remedy=nearest(ties, online.TIES))
    if order not in ("given", "shuffled"):
        raise InputError(f"unknown order {order!r}", remedy=nearest(order, ("given", "shuffled")))
    if passes < 1:
        raise InputError(f"passes is {passes}", remedy="give at least 1")
    columns = [votes.left, votes.right, votes.outcome]
    if order == "shuffled":
        permutation = numpy_generator(seed, "arena order").permutation(len(votes))
        columns = [column[permutation] for column in columns]
    left, right, outcome = (column.tolist() for column in columns)
    mu, sigma = online.start(len(votes.models))
    for _ in range(passes):
        mu, sigma = online.run_votes(
            left, right, outcome, mu, sigma, tau=chosen.tau, draw_margin=chosen.draw_margin, ties=ties
        )
    counts = count(votes)
    record = counts.record()
    settings: dict[str, Any] = {
        "preset": preset, "tau": chosen.tau, "draw_probability": chosen.draw_probability, "ties": ties,
        "order": order, "passes": passes, "votes": int(counts.total),
    }  # fmt: skip
    if order == "shuffled":
        settings["seed"] = seed
    return Ratings(
        models=votes.models, mu=mu, sigma=sigma, covariance=None, engine="online", settings=settings,
        tie_margin=chosen.draw_margin, wins=record[:, 0], losses=record[:, 1], ties=record[:, 2],
        component=counts.components(), warnings=_warnings(counts, votes.models),
    )  # fmt: skip


def _idle(engine: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise InputError(f"{name} has no effect with engine {engine!r}", remedy=f"leave {name} out")


def _refuse_infinite(counts: PairCounts, models: tuple[str, ...]) -> None:
    component = counts.components()
    if component.max() > 0:
        raise InputError(
            "the votes do not connect all models, so their ratings cannot be compared without a prior "
            f"(apart from the largest group: {batch.names_outside(component, models)})",
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
    record, component = counts.record(), counts.components()
    games = record.sum(axis=1)
    found = []
    if component.max() > 0:
        found.append(
            f"The votes fall into {component.max() + 1} groups of models that never met; ratings compare only within a "
            f"group (apart from the largest: {batch.names_outside(component, models)})."
        )
    thin = [k for k in np.argsort(games, kind="stable") if games[k] < FEW]
    if thin:
        names = ", ".join(f"{models[k]} ({games[k]})" for k in thin[:5])
        more = f" and {len(thin) - 5} more" if len(thin) > 5 else ""
        found.append(f"{len(thin)} models have fewer than {FEW} votes: {names}{more}. Their intervals are wide.")
    one_sided = [k for k in range(len(models)) if games[k] and record[k, 2] == 0 and 0 in record[k, :2]]
    if one_sided:
        names = ", ".join(models[k] for k in one_sided[:5])
        more = f" and {len(one_sided) - 5} more" if len(one_sided) > 5 else ""
        found.append(f"Always won or always lost: {names}{more}. Only the prior keeps such a rating finite.")
    return tuple(found)
