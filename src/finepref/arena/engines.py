"""`rate`: votes to ratings by the engine of your choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from finepref.arena import batch, clusters, doubts, intervals, online
from finepref.arena.blocks import slices
from finepref.arena.counts import PairCounts, both_bad, count, count_sides, is_weighted
from finepref.arena.freeforall import run_games
from finepref.arena.link import get_link
from finepref.arena.ratings import BETA, LEVEL, SIGMA0, C, Ratings
from finepref.arena.settings import DEFAULTS, RatingOptions
from finepref.arena.sides import check_side, knows_sides, side_term, side_warning
from finepref.core.errors import InputError, check_word
from finepref.core.rng import numpy_generator
from finepref.formats.ratings import RatingSettings, SideRecord, VoteCount
from finepref.formats.votefiles import VoteTable, votes_in
from finepref.formats.votes import Rows, Votes

CHUNK = 1 << 20  # votes that are Python numbers at one time
Turns = Callable[[], Iterable[Rows]]
IDLE = {"batch": ("preset", "order", "passes"), "online": ("link", "prior", "interval", "cluster", "side")}
"""Options without effect."""
THIN = 0.1  # share of the mean votes of a model below which it does not help to fix the level
ORDERS = ("given", "shuffled")
SIDES = ("test", "fit")
SIDED = {"winner", "left_votes", "left_share"}  # roles that name a side
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
    side: str = DEFAULTS.side,
    anchor: str | None = DEFAULTS.anchor,
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
            voters where there are effectively at least 4 and more than models, else Laplace; none if one of several
            voters cast more than half of the votes).
        cluster: "game", "prompt" or "voter": which votes go together, for sandwich and bootstrap; by default as "auto".
            A vote without a named prompt or voter is independent.
        side: batch only: "test" (default; whether the side decides votes) or "fit" (a side term in the model).
        anchor: the model that intervals are measured from; by default the mean of the rated models.
        order: online only: "given" (by time, where votes have times) or "shuffled" (by `seed`).
        passes: online only: how often to go through the votes, >= 1.
        seed: of the shuffled order and of the bootstrap.

    Returns:
        Ratings with [M] mu and sigma; batch also the [M, M] covariance of mu minus the mean of the rated models.

    Raises:
        InputError: unknown or idle option; under the flat prior, votes that do not tie all models together.

    References:
        ArenaPO section 4.1 and Appendix A (online); research behind both engines: docs/arena.md.
    """
    options = RatingOptions(
        engine=engine, preset=preset, link=link, prior=prior, ties=ties, interval=interval, cluster=cluster,
        side=side, anchor=anchor, order=order, passes=passes, seed=seed,
    )  # fmt: skip
    return rate_by(votes_in(votes), options, sides=not isinstance(votes, VoteTable) or has_sides(votes))


def has_sides(table: VoteTable) -> bool:
    """Whether a column of the table says which side won; else the winner is listed first, or the items were ranked."""
    return not SIDED.isdisjoint(table.layout.columns)


def rate_by(votes: Votes, options: RatingOptions, *, sides: bool = True, turns: Turns | None = None) -> Ratings:
    """Rate the models of these votes; see `rate`.

    sides: whether left and right are the sides that voters saw. turns: where equal votes are one row, tells each time
    it is called which row every vote is, in the order in which the votes are taken.
    """
    check_word(options.engine, IDLE, "engine")
    for name in IDLE[options.engine]:
        if getattr(options, name) != getattr(DEFAULTS, name):
            raise InputError(f"{name} has no effect with engine {options.engine!r}", remedy=f"leave {name} out")
    if votes.question is not None and len(votes) and votes.question.min() != votes.question.max():
        remedy = "rate the votes on each by themselves"
        raise InputError("the votes answer several questions, and one board would mix them", remedy=remedy)
    if options.anchor is not None:
        check_word(options.anchor, votes.models, "anchor")
    if options.engine == "online":
        return _online(votes, options, turns)
    try:
        return _batch(votes, options, sides=sides)
    except np.linalg.LinAlgError:  # weights so far apart that no number holds their sums
        remedy = "give weights of similar size, such as 1 per vote"
        raise InputError(
            "the votes' weights are too large, or too unlike each other, to be rated", remedy=remedy
        ) from None


def _batch(votes: Votes, options: RatingOptions, *, sides: bool) -> Ratings:
    plan = clusters.plan(votes, options.interval, options.cluster)
    by_side = count_sides(votes)
    counts = by_side.folded()
    check_side(options, votes, by_side, sides=sides)
    model = fit_counts(by_side, votes.models, options)
    core = _core(counts)
    settled = intervals.settled(votes, model, plan, options, core=core)
    plan, covariance = settled.plan, C * C * settled.covariance
    side: SideRecord | None = None
    if sides and knows_sides(votes, by_side):
        side = side_term(votes, by_side, model, plan, options, core=core)
    settings = RatingSettings(
        link=model.link.name, prior=options.prior, prior_sd=model.prior_sd, ties=options.ties, intervals=plan.method,
        cluster=plan.cluster, intervals_why=plan.why, votes=counts.total, anchor=options.anchor,
        clusters=plan.effective if plan.method in ("sandwich", "bootstrap") else None,
        side=options.side if options.side == "fit" else None,
        log_likelihood=model.fit.log_likelihood, seed=options.seed if plan.method == "bootstrap" else None,
        beta=BETA, tie_margin=C * model.fit.margin, level=LEVEL,
    )  # fmt: skip
    sigma = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    told = (
        settled.told
        + doubts.of_voters(votes, plan)
        + ((side_warning(side),) if side is not None and side.warned else ())
    )
    return _ratings(
        votes, counts, settings, told, engine="batch", mu=model.mu, sigma=sigma, covariance=covariance, side=side
    )


def _core(counts: PairCounts) -> npt.NDArray[np.bool_]:
    """[M] the rated models, whose mean others are measured against.

    Those of the largest component with at least a tenth of the votes that such models have on average: a newcomer with
    a few votes would make everybody's interval as wide as its own.
    """
    games, core = counts.record().sum(axis=1), counts.components() == 0
    if not games.any():
        return np.ones(len(games), dtype=bool)
    while (thin := core & (games < THIN * games[core].mean())).any():
        core &= ~thin
    return core


def fit_counts(by_side: PairCounts, models: tuple[str, ...], options: RatingOptions) -> batch.BatchModel:
    """The batch engine on counts per pair of models by side, without intervals: link, prior, ties and side as told."""
    prior, sided = options.prior, options.side == "fit"
    check_word(prior, PRIORS, "prior")
    check_word(options.ties, BATCH_TIES, "treatment of ties")
    check_word(options.side, SIDES, "use of sides")
    link, used = get_link(options.link), (by_side if sided else by_side.folded()).with_ties(options.ties)
    if prior == "flat":
        _refuse_infinite(used, models)
        return batch.BatchModel(used, link, batch.fit(used, link, prior_precision=0.0, sided=sided), None)
    if prior == "empirical-bayes":
        sd, found = batch.empirical_bayes(used if not sided else used.folded(), link)
    else:
        sd, found = SIGMA0 / C, None
    if found is None or sided:
        found = batch.fit(used, link, prior_precision=sd**-2, start=found, sided=sided)
    return batch.BatchModel(used, link, found, C * sd)


def _online(votes: Votes, options: RatingOptions, turns: Turns | None) -> Ratings:
    chosen, order = online.get_preset(options.preset), options.order
    ties = chosen.ties if options.ties == DEFAULTS.ties else options.ties
    check_word(ties, online.TIES, "treatment of ties")
    check_word(order, ORDERS, "order")
    if options.passes < 1:
        raise InputError(f"passes is {options.passes}", remedy="give at least 1")
    if is_weighted(votes):
        what = "the online engine takes whole votes one by one, and these have weights or shares"
        raise InputError(what, remedy="rate them with --engine batch")
    seed = options.seed if order == "shuffled" else None
    games = votes.games if ties == "draw" else None  # Appendix A knows pairs only
    n = len(votes) if games is None else len(games)
    permutation = None if seed is None else numpy_generator(seed, "arena order").permutation(n)
    told: tuple[str, ...] = ()
    if seed is None and votes.time is not None:
        permutation, order = _by_time(votes, games is not None), "time"
        told = ("The votes were taken in the order of their times.",)
    mu, sigma = online.start(len(votes.models))
    for _ in range(options.passes):
        for rows in _held(n, permutation) if turns is None else in_chunks(turns(), CHUNK):
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
        passes=options.passes, votes=counts.total, seed=seed, beta=BETA, tie_margin=chosen.draw_margin,
        level=LEVEL, anchor=options.anchor,
    )  # fmt: skip
    return _ratings(votes, counts, settings, told, engine="online", mu=mu, sigma=sigma, covariance=None)


def _held(n: int, permutation: npt.NDArray[np.int64] | None) -> Iterator[Any]:
    """Rows of n votes that are in memory, some at a time."""
    for rows in slices(n, CHUNK):
        yield rows if permutation is None else permutation[rows]


def in_chunks(parts: Iterable[Rows], size: int) -> Iterator[Rows]:
    """The same numbers, `size` at a time but for the last."""
    held = np.zeros(0, dtype=np.int64)
    for part in parts:
        held = np.concatenate([held, part])
        for rows in slices(len(held) // size * size, size):
            yield held[rows]
        held = held[len(held) // size * size :]
    if len(held):
        yield held


def _by_time(votes: Votes, games: bool) -> npt.NDArray[np.int64]:
    """Votes (or games, each at the time of its first pair) from the oldest on; equal times in file order."""
    assert votes.time is not None
    if not games or votes.games is None or votes.game is None:
        return np.argsort(votes.time, kind="stable")
    latest = np.iinfo(np.int64).max
    when = np.full(len(votes.games), latest)  # a game of one item has no pair
    np.minimum.at(when, votes.game, votes.time)
    return np.argsort(when, kind="stable")


def _ratings(
    votes: Votes, counts: PairCounts, settings: RatingSettings, told: tuple[str, ...], **found: Any
) -> Ratings:  # fmt: skip
    wins, losses, ties = counts.record().T
    own = sum(votes.take(rows).take(votes.left[rows] == votes.right[rows]).total for rows in slices(len(votes)))
    voters = None if votes.voter is None else clusters.named(votes.voter)
    return Ratings(
        models=votes.models, settings=settings, wins=wins, losses=losses, ties=ties, component=counts.components(),
        warnings=doubts.of_models(counts, votes.models) + told, voters=voters, both_bad=both_bad(votes),
        counted=VoteCount(read=votes.total, used=votes.total - own, self=own), **found,
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
