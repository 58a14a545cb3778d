"""From votes, ratings and rewards to the sidecar: which kind needs what, and who computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finepref.arena import Ratings, Votes, gaps_both
from finepref.arena.gap import WITH_RHO
from finepref.arena.rho import estimate_rho
from finepref.core.errors import InputError, nearest
from finepref.formats.rewards import Rewards
from finepref.formats.signals import Signals
from finepref.signals import parts
from finepref.signals.combine import combine
from finepref.signals.parts import Part
from finepref.signals.smooth import GAMMA, PICKSCORE_EXTREMES

ARENA_KINDS = ("paper", "truncated", "selection", "image")
REWARD_KINDS = ("smoothed", "reward-margin", "relabel")
KINDS = ("binary", "uniform", *ARENA_KINDS, *REWARD_KINDS, "kto")
EXTREMES = ("data", "pickscore")
# option -> the kinds that it acts on
ACTS_ON: dict[str, tuple[str, ...]] = {
    "margin": ("uniform",),
    "rho": WITH_RHO,
    "clip": ARENA_KINDS,
    "gamma": ("smoothed",),
    "quantile": ("smoothed",),
    "extremes": ("smoothed",),
    "desirable": ("kto",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteTable:
    """n votes in file order. label: P(image 0 preferred), nan for no vote. Model and image names may be None."""

    pair_id: Sequence[str]
    label: npt.NDArray[np.float64]
    model_0: Sequence[str | None]
    model_1: Sequence[str | None]
    image_0: Sequence[str | None]
    image_1: Sequence[str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalOptions:
    """None leaves an option at its default (given in parentheses).

    margin: of `uniform` (1). rho: of `selection` and `image`, share of the performance noise that belongs to the images
    (estimated). clip: negative
    gaps become 0 (no). gamma: of `smoothed` (10). quantile: clip extremes at q and 1-q (0). extremes: data | pickscore
    (data). desirable: any_win | only_wins | per_pair (any_win).
    """

    margin: float | None = None
    rho: float | None = None
    clip: bool | None = None
    gamma: float | None = None
    quantile: float | None = None
    extremes: str | None = None
    desirable: str | None = None


def check_request(kinds: Sequence[str], options: SignalOptions, *, arena: bool, rewards: bool) -> None:
    """Refuse a request before anything is read. arena, rewards: whether they were given.

    Raises:
        InputError: an unknown kind, one named twice, binary beside others, an option without effect, a missing input.
    """
    listed = ", ".join(kinds)
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"unknown kind of signal {kind!r}", where="--kind", remedy=nearest(kind, KINDS))
    if not kinds or len(set(kinds)) != len(kinds) or ("binary" in kinds and len(kinds) > 1):
        raise InputError(f"kinds {listed or '(none)'}", where="--kind", remedy="name each once, binary alone")
    for name, acts_on in ACTS_ON.items():
        if getattr(options, name) is not None and not set(acts_on) & set(kinds):
            raise InputError(
                f"it has no effect on {listed}", where=f"--{name}", remedy=f"it acts on {', '.join(acts_on)}"
            )
    for needed_by, given, option, stage in (
        (ARENA_KINDS, arena, "--arena", "finepref arena"),
        (REWARD_KINDS, rewards, "--rewards", "finepref score"),
    ):
        wanted = bool(set(needed_by) & set(kinds))
        if wanted and not given:
            raise InputError(f"kind {listed} needs it", where=option, remedy=f"name what `{stage}` wrote")
        if given and not wanted:
            raise InputError(f"it has no effect on {listed}", where=option, remedy="leave it out")


def make_signals(
    table: VoteTable,
    kinds: Sequence[str],
    *,
    options: SignalOptions | None = None,
    ratings: Ratings | None = None,
    rewards: Rewards | None = None,
) -> Signals:
    """The signal of every decided vote.

    binary: the votes as they are. uniform, paper, truncated, selection, image, reward-margin: a margin. smoothed:
    winner and weight by reward. relabel: winner by reward. kto: labels of images. Several kinds add up where they set
    different things (paper + smoothed: the arena's margin of the reward's winner, and its weight).

    Raises:
        InputError: unknown or clashing kinds, an option without effect; no ratings, rewards, models or image names.
    """
    options = SignalOptions() if options is None else options
    check_request(kinds, options, arena=ratings is not None, rewards=rewards is not None)
    found: dict[str, Part] = {}
    for kind in kinds:
        if kind == "uniform":
            found[kind] = parts.uniform(len(table.label), margin=1.0 if options.margin is None else options.margin)
        elif kind in ARENA_KINDS:
            assert ratings is not None
            found[kind] = _arena_part(table, ratings, kind, options)
        elif kind in REWARD_KINDS:
            assert rewards is not None
            found[kind] = _reward_part(kind, rewards, options)
        elif kind == "kto":
            found[kind] = _kto_part(table, options)
    return combine(table.pair_id, table.label, found)


def _arena_part(table: VoteTable, ratings: Ratings, kind: str, options: SignalOptions) -> Part:
    """Gaps for both winners; nan without model names and, for kind image, without a vote."""
    named = [
        first is not None and second is not None for first, second in zip(table.model_0, table.model_1, strict=True)
    ]
    unvoted = np.isnan(table.label)
    rows = np.flatnonzero(np.array(named, dtype=bool) & ~(unvoted if kind == "image" else np.zeros_like(unvoted)))
    if not len(rows):
        raise InputError("the votes name no models", where=f"--kind {kind}", remedy="use kind binary or uniform")

    def column(values: Sequence[str | None]) -> list[str]:
        return [str(values[row]) for row in rows.tolist()]

    images: dict[str, Any] = {}
    if kind == "image" or (kind == "selection" and options.rho is None):
        if any(values[row] is None for values in (table.image_0, table.image_1) for row in rows.tolist()):
            remedy = "use kind truncated" + (", or give --rho" if kind == "selection" else " or selection")
            raise InputError("the votes do not name their images", where=f"--kind {kind}", remedy=remedy)
        images = {"left_image": column(table.image_0), "right_image": column(table.image_1)}
    outcome = np.where(unvoted, parts.TIE, table.label)[rows]
    votes = Votes.from_columns(left=column(table.model_0), right=column(table.model_1), outcome=outcome, **images)
    clip, rho = bool(options.clip), options.rho
    if rho is None and kind in WITH_RHO:
        rho = estimate_rho(votes, ratings, seed=0).rho
    found = gaps_both(votes, ratings, kind=kind, rho=rho, clip=clip)
    sides = [np.full(len(table.label), np.nan) for _ in found]
    for side, values in zip(sides, found, strict=True):
        side[rows] = values
    return parts.arena(*sides, meta={"engine": ratings.engine, "rho": rho, "clip": clip})


def _reward_part(kind: str, rewards: Rewards, options: SignalOptions) -> Part:
    first, second = rewards.score_0, rewards.score_1
    if kind == "relabel":
        part = parts.relabel(first, second)
    elif kind == "reward-margin":
        part = parts.reward_margin(first, second)
    else:
        part = parts.smooth(
            first,
            second,
            gamma=GAMMA if options.gamma is None else options.gamma,
            quantile=0.0 if options.quantile is None else options.quantile,
            limits=_limits(rewards, "data" if options.extremes is None else options.extremes),
        )
    about = {name: getattr(rewards, name) for name in ("scorer", "fingerprint", "device_seconds")}
    meta = {**part.meta, **about}
    return Part(winner=part.winner, margin_0=part.margin_0, margin_1=part.margin_1, weight=part.weight, meta=meta)


def _limits(rewards: Rewards, extremes: str) -> tuple[float, float] | None:
    if extremes not in EXTREMES:
        raise InputError(f"unknown extremes {extremes!r}", where="--extremes", remedy=nearest(extremes, EXTREMES))
    if extremes == "data":
        return None
    scores = np.concatenate([rewards.score_0, rewards.score_1])
    scores = scores[np.isfinite(scores)]
    low, high = PICKSCORE_EXTREMES
    outside = float(((scores < low - 0.1 * (high - low)) | (scores > high + 0.1 * (high - low))).mean())
    if outside > 0.01:
        raise InputError(
            f"{outside:.0%} of the scores of {rewards.scorer} are far outside PickScore's raw cosines",
            where="--extremes pickscore",
            remedy="use --extremes data",
        )
    return PICKSCORE_EXTREMES


def _kto_part(table: VoteTable, options: SignalOptions) -> Part:
    rule = "any_win" if options.desirable is None else options.desirable
    names: list[list[str]] = []
    for values in (table.image_0, table.image_1):
        if rule != "per_pair" and any(value is None for value in values):
            raise InputError(
                "the votes do not name their images", where="--kind kto", remedy="use --desirable per_pair"
            )
        names.append([str(value) for value in values])
    return parts.desirable(table.label, names[0], names[1], rule=rule)


def provenance_inputs(votes: Sequence[Path], arena: Path | None, rewards: Path | None) -> list[Path]:
    """The files whose hashes go into the footer."""
    ratings = [] if arena is None else [arena / "ratings.json" if arena.is_dir() else arena]
    return [*votes, *ratings, *([] if rewards is None else [rewards])]
