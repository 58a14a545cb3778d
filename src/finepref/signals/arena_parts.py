"""What the arena says of every vote: a kind of gap as a margin, or the images' posterior as winner and weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from finepref.arena.fused import RATING, FusedPrior, fused_prior
from finepref.arena.gap import GAPS, gaps_both
from finepref.arena.posterior import posterior
from finepref.arena.ratings import BETA, LEVEL, Ratings
from finepref.arena.rho import estimate_rho
from finepref.core.errors import InputError
from finepref.core.memory import give_back
from finepref.formats.ratings import RatingSettings
from finepref.formats.rewards import Rewards
from finepref.formats.textcolumn import are_there, as_arrow, picked, plain_codes, words_of
from finepref.formats.votes import Votes
from finepref.signals.parts import TIE, Floats, Part, SignalVotes

POOL = "images"  # what images without models are listed under
Rows = npt.NDArray[np.int64]


def gap_part(
    votes: SignalVotes,
    *,
    ratings: Ratings,
    kind: str,
    clip: bool,
    rho: float | None = None,
    rewards: Sequence[Rewards] = (),
) -> Part:
    """Gaps for both winners; nan without model names and, where images count, without a vote."""
    row = GAPS[kind]
    found, rows = named_votes(votes, kind, images=row.images is not None, wanted=row.rho and rho is None)
    prior = fused_prior(found, ratings, sides_of(rewards, rows)) if row.rewards else None
    if rho is None and row.rho:
        rho = estimate_rho(found, ratings, prior_mean=None if prior is None else prior.mean, seed=0).rho
    left, right = gaps_both(found, ratings, kind=kind, rho=rho, clip=clip, rewards=prior)
    return Part(
        margin_0=_spread(left, rows, len(votes.label)),
        margin_1=_spread(right, rows, len(votes.label)),
        meta={"engine": ratings.engine, "rho": rho, "clip": clip, **_about(rewards), **_card(prior)},
    )


def posterior_part(
    votes: SignalVotes,
    *,
    ratings: Ratings | None,
    form: str,
    mean_weight: float,
    rho: float | None,
    rewards: Sequence[Rewards] = (),
) -> Part:
    """The posterior's winner, whatever the vote said, and how much better it is; nothing without a vote.

    ratings: None for images whose models are not known, or not rated: all are expected to be alike but for their
    rewards. With ratings, votes that name no models are left out. form: "gap": weight proportional to the posterior
    gap; "share": to 2p - 1, p the probability of the winner; "margin": the gap is the margin, the weight 1. Weights
    have the mean `mean_weight` over decided votes.

    References: ours (docs/arena.md). Weight 2p - 1: SmPO-Diffusion Eq. 8-12, with the posterior as p.
    """
    if ratings is None:
        pool = [POOL] * len(votes.label)
        ratings, votes = one_pool(), replace(votes, model_0=pool, model_1=pool)
    found, rows = named_votes(votes, "posterior", images=True, wanted=True)
    told = posterior(found, ratings, rewards=sides_of(rewards, rows), rho=rho)
    difference, sure = told.difference, np.abs(2.0 * told.probability - 1.0)
    winner = np.full(len(votes.label), -1, dtype=np.int8)
    winner[rows] = np.where(difference == 0, -1, np.where(difference > 0, 0, 1))
    meta = {"engine": ratings.engine, "rho": told.rho, "form": form, **_about(rewards)}
    meta |= _card(told.prior, without=RATING if ratings.models == (POOL,) else "")
    meta |= {"overruled": told.overruled, "explained": told.explained}
    if form == "margin":
        if mean_weight != 1.0:
            raise InputError("it has no effect on form margin", where="mean-weight", remedy="leave it out")
        margin = _spread(difference, rows, len(votes.label))
        return Part(winner=winner, margin_0=margin, margin_1=-margin, meta=meta)
    weight = np.abs(difference) if form == "gap" else sure
    decided = found.outcome != 0
    mean = float(weight[decided].mean()) if decided.any() else 0.0
    if mean <= 0:
        raise InputError("the posterior prefers no image", where="kind posterior", remedy="check ratings and votes")
    weight = _spread(weight * (mean_weight / mean), rows, len(votes.label))
    return Part(winner=winner, weight=weight, meta={**meta, "mean_weight": mean_weight})


def one_pool() -> Ratings:
    """Ratings of images whose models are not known: one model, of which nothing is expected."""
    none, settings = np.zeros(1), RatingSettings(tie_margin=0.0, level=LEVEL, ties="none", votes=0.0, beta=BETA)
    return Ratings(
        models=(POOL,), mu=none, sigma=none, covariance=None, engine="none", settings=settings,
        wins=none, losses=none, ties=none, component=np.zeros(1, dtype=np.int64),
    )  # fmt: skip


def named_votes(votes: SignalVotes, kind: str, *, images: bool, wanted: bool) -> tuple[Votes, Rows]:
    """The votes that name their models, and which they are. images: only pairs that were voted on, with their images.

    wanted: take the names of images where it can do without a vote.

    Raises:
        InputError: no vote names its models, or not all name their images.
    """
    named = are_there(votes.model_0) & are_there(votes.model_1)
    unvoted = np.isnan(votes.label) if votes.count is None else np.isnan(votes.label) | (votes.count == 0)
    rows = np.flatnonzero(named & ~unvoted if images else named)
    if not len(rows):
        raise InputError("the votes name no models", where=f"kind {kind}", remedy="use kind binary or uniform")

    sides, codes = None, None
    if images or wanted:
        if not all(are_there(values)[rows].all() for values in (votes.image_0, votes.image_1)):
            remedy = "use kind truncated" + (" or selection" if images else ", or give rho")
            raise InputError("the votes do not name their images", where=f"kind {kind}", remedy=remedy)
        whole = len(rows) == len(named)
        sides = [values if whole else picked(values, rows) for values in (votes.image_0, votes.image_1)]
        codes = plain_codes(*sides)
        give_back()  # the names
    left, right = (None, None) if sides is None or codes is not None else (as_arrow(side) for side in sides)
    found = Votes.from_columns(
        left=picked(votes.model_0, rows).arrow,
        right=picked(votes.model_1, rows).arrow,
        outcome=words_of(np.where(np.isnan(votes.label), TIE, votes.label)[rows]),
        left_image=left,
        right_image=right,
        prompt=None if votes.prompt is None else picked(votes.prompt, rows).arrow,
        weight=None if votes.count is None else np.where(unvoted, 1.0, votes.count)[rows],
    )
    give_back()  # what reading the columns took
    return found if codes is None else replace(found, left_image=codes[0], right_image=codes[1]), rows


def sides_of(rewards: Sequence[Rewards], rows: Rows) -> dict[str, tuple[Floats, Floats]]:
    """Scorer -> scores of both sides of these rows."""
    return {each.scorer: (each.score_0[rows], each.score_1[rows]) for each in rewards}


def _spread(values: Floats, rows: Rows, count: int) -> Floats:
    whole = np.full(count, np.nan)
    whole[rows] = values
    return whole


def _about(rewards: Sequence[Rewards]) -> dict[str, Any]:
    return {"scorers": [each.about() for each in rewards]} if rewards else {}


def _card(prior: FusedPrior | None, *, without: str = "") -> dict[str, Mapping[str, Any]]:
    """What the footer says of the coefficients, but for one: value, 95 % interval, images without a score."""
    if prior is None:
        return {}
    return {
        "coefficients": {
            name: {"value": value, "interval": list(prior.interval(name)), "unscored": prior.unscored.get(name, 0)}
            for name, value in prior.coefficient.items()
            if name != without
        }
    }
