"""The table of signal kinds: what each needs, its options, and the function that says it of every vote.

The arena's kinds of gap (`finepref.arena.gap.GAPS`) are kinds of signal too, a user's own ones included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from finepref.arena.gap import GAPS, GapRow, gaps_both
from finepref.arena.ratings import Ratings
from finepref.arena.rho import estimate_rho
from finepref.core.errors import InputError
from finepref.core.options import Options, check_function
from finepref.core.rows import RowTable
from finepref.formats.votes import Votes
from finepref.signals import parts
from finepref.signals.parts import Part, SignalVotes
from finepref.signals.smooth import GAMMA

Need = Literal["ratings", "rewards"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRow:
    """One kind of signal.

    function: (votes, *, ratings, rewards, **options) -> Part, with of ratings and rewards what it needs.
    options: pydantic model of its options. images: options -> whether images must have names.
    decides: whether it names the winner, instead of the votes. source, deviations: where it comes from, where we
    deviate.
    """

    name: str
    function: Callable[..., Part]
    needs: tuple[Need, ...] = ()
    options: type[Options] = Options
    images: Callable[[Any], bool] = lambda options: False
    decides: bool = False
    source: str = ""
    deviations: str = "none"


class UniformOptions(Options):
    """ArenaPO Appendix D tries 0.5, 1, 2, 3, 4."""

    margin: Annotated[float, Field(description="The margin of every pair.")] = 1.0


class ArenaOptions(Options):
    """Of every gap."""

    clip: Annotated[bool, Field(description="Negative gaps become 0.")] = False


class RhoOptions(ArenaOptions):
    """Of gaps that know of images."""

    rho: Annotated[float | None, Field(description="Share of the noise that is the images'; none = estimated.")] = None


class SmoothedOptions(Options):
    """gamma 10: SmPO-Diffusion, code and best of the paper."""

    gamma: Annotated[float, Field(ge=0, description="weight = gamma (2p - 1).")] = GAMMA
    quantile: Annotated[float, Field(ge=0, lt=0.5, description="Clip the extremes at q and 1-q.")] = 0.0
    extremes: Annotated[Literal["data", "pickscore"], Field(description="data, or pickscore: published constants.")] = (
        "data"
    )


class LabelOptions(Options):
    """any_win: published."""

    desirable: Annotated[
        Literal["any_win", "only_wins", "per_pair"], Field(description="any_win | only_wins | per_pair.")
    ] = "any_win"


def _arena(votes: SignalVotes, *, ratings: Ratings, kind: str, clip: bool, rho: float | None = None) -> Part:
    """Gaps for both winners; nan without model names and, where images count, without a vote."""
    row = GAPS[kind]
    named = np.array([None not in pair for pair in zip(votes.model_0, votes.model_1, strict=True)])
    unvoted = np.isnan(votes.label)
    rows = np.flatnonzero(named & ~unvoted if row.images else named)
    if not len(rows):
        raise InputError("the votes name no models", where=f"--kind {kind}", remedy="use kind binary or uniform")

    def column(values: Sequence[str | None]) -> list[str]:
        return [str(values[row]) for row in rows.tolist()]

    images: list[list[str] | None] = [None, None]
    if row.images or (row.rho and rho is None):
        if any(values[row] is None for values in (votes.image_0, votes.image_1) for row in rows.tolist()):
            remedy = "use kind truncated" + (" or selection" if row.images else ", or give --rho")
            raise InputError("the votes do not name their images", where=f"--kind {kind}", remedy=remedy)
        images = [column(votes.image_0), column(votes.image_1)]
    outcome = np.where(unvoted, parts.TIE, votes.label)[rows]
    named_votes = Votes.from_columns(
        left=column(votes.model_0), right=column(votes.model_1), outcome=outcome, left_image=images[0],
        right_image=images[1],
    )  # fmt: skip
    if rho is None and row.rho:
        rho = estimate_rho(named_votes, ratings, seed=0).rho
    sides = [np.full(len(votes.label), np.nan) for _ in range(2)]
    for side, values in zip(sides, gaps_both(named_votes, ratings, kind=kind, rho=rho, clip=clip), strict=True):
        side[rows] = values
    return Part(margin_0=sides[0], margin_1=sides[1], meta={"engine": ratings.engine, "rho": rho, "clip": clip})


def _arena_row(gap: GapRow) -> SignalRow:
    return SignalRow(
        name=gap.name,
        function=partial(_arena, kind=gap.name),
        needs=("ratings",),
        options=RhoOptions if gap.rho else ArenaOptions,
        images=lambda options: gap.images is not None or (gap.rho and options.rho is None),
        source=gap.source,
    )


def check_signal(row: SignalRow) -> None:
    """Refuse a kind whose function cannot be called with what it needs and its options.

    Raises:
        InputError: arguments or options that differ, or an unknown need.
    """
    if not set(row.needs) <= {"ratings", "rewards"}:
        raise InputError(f"it needs {', '.join(row.needs)}", remedy="a kind may need ratings and rewards")
    check_function(row.function, row.options, *row.needs, positional=1)


SIGNALS = RowTable("signal", SignalRow, (
    SignalRow(name="binary", function=lambda votes: Part(), source="the votes alone, as in Diffusion-DPO"),
    SignalRow(
        name="uniform", function=parts.uniform, options=UniformOptions, source=GAPS["uniform"].source,
    ),
    SignalRow(
        name="shares", function=parts.shares, source="SmPO-Diffusion Eq. 8-12 with people's shares as p",
        deviations="the votes' share for the reward's probability, and no gamma",
    ),
    SignalRow(
        name="smoothed", function=parts.smooth, needs=("rewards",), options=SmoothedOptions, decides=True,
        source="SmPO-Diffusion Eq. 8-12", deviations="extremes of the data set unless --extremes pickscore",
    ),
    SignalRow(
        name="reward-margin", function=parts.reward_margin, needs=("rewards",),
        source="ArenaPO Appendix F, reading 1", deviations="the paper states no mechanism",
    ),
    SignalRow(
        name="relabel", function=parts.relabel, needs=("rewards",), decides=True,
        source="Diffusion-DPO, code only: choice_model",
    ),
    SignalRow(
        name="kto", function=parts.desirable, options=LabelOptions,
        images=lambda options: options.desirable != "per_pair",
        source="Diffusion-KTO (arXiv 2404.04465), code only: image labels",
    ),
), what="kind of signal", where="--kind", check=check_signal, also=lambda: map(_arena_row, GAPS.values()))  # fmt: skip
