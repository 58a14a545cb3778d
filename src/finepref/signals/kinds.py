"""The table of signal kinds: what each needs, its options, and the function that says it of every vote.

The arena's kinds of gap (`finepref.arena.gap.GAPS`) are kinds of signal too, a user's own ones included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from finepref.arena.gap import GAPS, GapRow
from finepref.core.errors import InputError
from finepref.core.options import Options, check_function
from finepref.core.rows import RowTable
from finepref.signals import parts
from finepref.signals.arena_parts import gap_part, posterior_part
from finepref.signals.parts import Part
from finepref.signals.smooth import GAMMA

Need = Literal["ratings", "rewards"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRow:
    """One kind of signal.

    function: (votes, *, ratings, rewards, **options) -> Part, with of ratings and rewards what it needs or takes.
    takes: what may be missing. several: it has the rewards of any number of scorers, as a tuple.
    options: pydantic model of its options. images: options -> whether images must have names.
    decides: whether it names the winner, instead of the votes. source, deviations: where it comes from, where we
    deviate.
    """

    name: str
    function: Callable[..., Part]
    needs: tuple[Need, ...] = ()
    takes: tuple[Need, ...] = ()
    several: bool = False
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


class PosteriorOptions(Options):
    """Ours."""

    form: Annotated[
        Literal["gap", "share", "margin"],
        Field(description="gap: weight by the posterior gap; share: by 2p - 1; margin: the gap as margin."),
    ] = "gap"
    mean_weight: Annotated[float, Field(gt=0, description="Mean of the weights.")] = 1.0
    rho: Annotated[float | None, Field(description="Share of the noise that is the images'; none = estimated.")] = None


class LabelOptions(Options):
    """any_win: published."""

    desirable: Annotated[
        Literal["any_win", "only_wins", "per_pair"], Field(description="any_win | only_wins | per_pair.")
    ] = "any_win"


def _arena_row(gap: GapRow) -> SignalRow:
    return SignalRow(
        name=gap.name,
        function=partial(gap_part, kind=gap.name),
        needs=("ratings", "rewards") if gap.rewards else ("ratings",),
        several=gap.rewards,
        options=RhoOptions if gap.rho else ArenaOptions,
        images=lambda options: gap.images is not None or (gap.rho and options.rho is None),
        source=gap.source,
    )


def check_signal(row: SignalRow) -> None:
    """Refuse a kind whose function cannot be called with what it needs and its options.

    Raises:
        InputError: arguments or options that differ, or an unknown need.
    """
    if not {*row.needs, *row.takes} <= {"ratings", "rewards"}:
        raise InputError(f"it needs {', '.join(row.needs)}", remedy="a kind may need ratings and rewards")
    check_function(row.function, row.options, *row.needs, *row.takes, positional=1)


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
        name="posterior", function=posterior_part, takes=("ratings", "rewards"), several=True,
        options=PosteriorOptions, images=lambda options: True, decides=True,
        source="ours: one posterior of votes, ratings and rewards (docs/arena.md)",
    ),
    SignalRow(
        name="kto", function=parts.desirable, options=LabelOptions,
        images=lambda options: options.desirable != "per_pair",
        source="Diffusion-KTO (arXiv 2404.04465), code only: image labels",
    ),
), what="kind of signal", where="kind", check=check_signal, also=lambda: map(_arena_row, GAPS.values()))  # fmt: skip
