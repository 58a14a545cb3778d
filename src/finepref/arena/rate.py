"""`rate`: votes to ratings by the engine of your choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from finepref.arena import batch, intervals, online
from finepref.arena.counts import PairCounts, count
from finepref.arena.freeforall import run_games
from finepref.arena.link import Link, get_link
from finepref.arena.normal import SQRT_2, Floats
from finepref.arena.ratings import BETA, MU0, SIGMA0, Ratings
from finepref.core.errors import InputError, nearest
from finepref.core.rng import numpy_generator
from finepref.formats.votes import Votes

C = SQRT_2 * BETA
FEW = 30  # votes under which a model is called thinly rated
CHUNK = 1 << 20  # votes that are Python numbers at one time
ENGINES = ("batch", "online")
PRIORS = ("normal", "flat", "empirical-bayes")
BATCH_TIES = ("fit", "half", "drop")


def rate(
    votes: Votes,
    *,
    engine: str = "batch",
    preset: str = "ksort",
    link: str = "probit",
    prior: str = "normal",
    ties: str = "fit",
    interval: str = "auto",
    cluster: str | None = None,
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
    if engine == "online":
        _idle(
            engine, link=(link, "probit"), prior=(prior, "normal"), interval=(interval, "auto"), cluster=(cluster, None)
        )
        return _online(votes, preset=preset, ties=ties, order=order, passes=passes, seed=seed)
    if engine != "batch":
        raise InputError(f"unknown engine {engine!r}", remedy=nearest(engine, ENGINES))
    _idle(engine, preset=(preset, "ksort"), order=(order, "given"), passes=(passes, 1))
    plan = intervals.plan(votes, interval, cluster)
    counts = count(votes)
    model = fit_counts(counts, votes.models, link=link, prior=prior, ties=ties)
    covariance = intervals.covariance(
        votes,
        model.counts,
        model.link,
        model.fit,
        plan,
        ties=model.ties,
        prior_precision=model.prior_precision,
        seed=seed,
    )
    covariance = C * C * batch.centred(covariance)
    record = counts.record()
    settings: dict[str, Any] = {
        "link": model.link.name, "prior": model.prior, "prior_sd": model.prior_sd, "ties": model.ties,
        "intervals": plan.method, "cluster": plan.cluster, "intervals_why": plan.why,
        "votes": int(counts.total), "log_likelihood": model.fit.log_likelihood,
    }  # fmt: skip
    if plan.method == "bootstrap":
        settings["seed"] = seed
    return Ratings(
        models=votes.models, mu=model.mu, sigma=np.sqrt(np.maximum(np.diag(covariance), 0.0)), covariance=covariance,
        engine="batch", settings=settings, tie_margin=C * model.fit.margin, wins=record[:, 0], losses=record[:, 1],
        ties=record[:, 2], component=counts.components(), warnings=_warnings(counts, votes.models),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class BatchModel:
    """A batch fit and what it was fitted with; counts: with ties as they were treated, prior_sd in rating units."""

    counts: PairCounts
    link: Link
    fit: batch.Fit
    prior: str
    prior_sd: float | None
    ties: str

    @property
    def mu(self) -> Floats:
        """[M] ratings."""
        return np.asarray(MU0 + C * self.fit.x)

    @property
    def prior_precision(self) -> float:
        """1/sd^2 in units of c, 0 for the flat prior."""
        return 0.0 if self.prior_sd is None else (C / self.prior_sd) ** 2


def fit_counts(counts: PairCounts, models: tuple[str, ...], *, link: str, prior: str, ties: str) -> BatchModel:
    """The batch engine on counts per pair of models, without intervals; arguments as in `rate`."""
    for value, known, what in ((prior, PRIORS, "prior"), (ties, BATCH_TIES, "treatment of ties")):
        if value not in known:
            raise InputError(f"unknown {what} {value!r}", remedy=nearest(value, known))
    chosen, used = get_link(link), counts.with_ties(ties)
    if prior == "flat":
        _refuse_infinite(used, models)
        return BatchModel(used, chosen, batch.fit(used, chosen, prior_precision=0.0), prior, None, ties)
    if prior == "empirical-bayes":
        sd, fit = batch.empirical_bayes(used, chosen)
        return BatchModel(used, chosen, fit, prior, C * sd, ties)
    fit = batch.fit(used, chosen, prior_precision=(C / SIGMA0) ** 2)
    return BatchModel(used, chosen, fit, prior, SIGMA0, ties)


def _online(votes: Votes, *, preset: str, ties: str, order: str, passes: int, seed: int) -> Ratings:
    chosen = online.get_preset(preset)
    ties = chosen.ties if ties == "fit" else ties
    if ties not in online.TIES:
        raise InputError(f"unknown treatment of ties {ties!r}", remedy=nearest(ties, online.TIES))
    if order not in ("given", "shuffled"):
        raise InputError(f"unknown order {order!r}", remedy=nearest(order, ("given", "shuffled")))
    if passes < 1:
        raise InputError(f"passes is {passes}", remedy="give at least 1")
    games = votes.games if ties == "draw" else None  # Appendix A knows pairs only
    n = len(votes) if games is None else len(games)
    permutation = numpy_generator(seed, "arena order").permutation(n) if order == "shuffled" else None
    mu, sigma = online.start(len(votes.models))
    for _ in range(passes):
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


def _idle(engine: str, **options: tuple[object, object]) -> None:
    """Refuse an option of the other engine that is not at its default."""
    for name, (value, default) in options.items():
        if value != default:
            raise InputError(f"{name} has no effect with engine {engine!r}", remedy=f"leave {name} out")


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
