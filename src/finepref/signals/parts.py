"""What each kind of signal says about every vote, before the kinds are put together.

Shapes: n votes of the file, ties and unscored ones included; nan (or -1 for labels) where a kind says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from finepref.core.errors import InputError
from finepref.core.provenance import sha256_bytes
from finepref.formats.paircolumns import PairColumns
from finepref.formats.pairrows import ImageRef, Preference
from finepref.formats.rewards import Rewards
from finepref.formats.textcolumn import are_there, codes_of
from finepref.signals.smooth import PICKSCORE_EXTREMES, smoothed
from finepref.signals.smooth import extremes as extremes_of

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int8]
TIE = 0.5


@dataclass(frozen=True, slots=True)
class SignalVotes:
    """n votes in file order. label: P(image 0 preferred), nan for no vote. Model and image names may be None.

    count: [n] how many votes each row stands for, >= 0; None: one each. prompt: [n] names, None: not known.
    """

    pair_id: Sequence[str]
    label: npt.NDArray[np.float64]
    model_0: Sequence[str | None]
    model_1: Sequence[str | None]
    image_0: Sequence[str | None]
    image_1: Sequence[str | None]
    count: npt.NDArray[np.float64] | None = None
    prompt: Sequence[str] | None = None


def vote_table(votes: Iterable[Preference]) -> SignalVotes:
    """Preferences as a table; an image is called by the data set's name, its file, or the hash of its bytes."""
    rows = [
        (
            *(vote.pair_id, vote.label, vote.weight, vote.prompt),
            *(vote.model_0, vote.model_1, _name(vote.image_0), _name(vote.image_1)),
        )
        for vote in votes
    ]
    pair_id, label, weight, prompt, model_0, model_1, image_0, image_1 = zip(*rows, strict=True)
    count = np.array(weight, dtype=np.float64)
    several = count if (count != 1.0).any() else None
    values = np.array(label, dtype=np.float64)
    return SignalVotes(pair_id, values, model_0, model_1, image_0, image_1, several, prompt)


def table_of(columns: PairColumns) -> SignalVotes:
    """Preferences that were read as columns; an image is called by the data set's name."""
    several = columns.weight if (columns.weight != 1.0).any() else None
    return SignalVotes(
        columns.pair_id, columns.label, columns.model_0, columns.model_1, columns.image_0, columns.image_1, several,
        columns.prompt,
    )  # fmt: skip


def _name(image: ImageRef) -> str | None:
    """None where the row was read without it."""
    if image.uid is not None or image.path is not None:
        return image.uid if image.uid is not None else str(image.path)
    return None if image.data is None else sha256_bytes(image.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One kind's share of the signal; None where it leaves the default.

    winner: [n] int8. margin_0, margin_1: [n] margin if image 0 / image 1 is the winner. weight: [n].
    label_0, label_1: [n] int8, 1 desirable, 0 undesirable, -1 neither. meta: what to keep in the footer.
    """

    winner: Codes | None = None
    margin_0: Floats | None = None
    margin_1: Floats | None = None
    weight: Floats | None = None
    label_0: Codes | None = None
    label_1: Codes | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


def voted(label: npt.ArrayLike) -> Codes:
    """Winner by vote: 0 where P(image 0 preferred) is above 0.5, 1 where it is below, -1 for a tie or no vote.

    Raises:
        InputError: a label that is neither in [0, 1] nor nan.
    """
    values = np.asarray(label, dtype=np.float64)
    known = np.isnan(values) | ((values >= 0.0) & (values <= 1.0))
    if not known.all():
        row = int(np.flatnonzero(~known)[0])
        raise InputError(f"label {values[row]} is not in [0, 1]", where=f"row {row}", remedy="correct that row")
    return np.where(values > TIE, 0, np.where(values < TIE, 1, -1)).astype(np.int8)


def shares(votes: SignalVotes) -> Part:
    """Weight 2p - 1, p the share of the votes that the winner got: 1 where all agreed, 0 where half did.

    References: SmPO-Diffusion Eq. 8-12, with people's shares in the place of the smoothed reward's probability.
    """
    share = np.maximum(votes.label, 1.0 - votes.label)
    return Part(weight=2.0 * share - 1.0)


def uniform(votes: SignalVotes, *, margin: float) -> Part:
    """One margin for every pair (ArenaPO Appendix D: 0.5, 1, 2, 3, 4)."""
    sides = np.full(len(votes.label), margin)
    return Part(margin_0=sides, margin_1=sides.copy(), meta={"margin": margin})


def _scored(rewards: Rewards) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    first, second = rewards.score_0, rewards.score_1
    return first, second, np.isfinite(first) & np.isfinite(second)


def _by(rewards: Rewards, part: Part) -> Part:
    return replace(part, meta={**part.meta, **rewards.about()})


def reward_margin(votes: SignalVotes, *, rewards: Rewards) -> Part:
    """m = (r_w - r_l) / sd, z-scored rewards of the winner and the loser; negative where the reward disagrees.

    sd is taken over all scored images. Pairs with a missing score have nan.

    References: ArenaPO Appendix F ("ImageReward as reward model"; the text gives no mechanism, this is our default).
    """
    first, second, both = _scored(rewards)
    known = np.concatenate([first[both], second[both]])
    spread = float(known.std()) if len(known) else 0.0
    if spread <= 0:
        raise InputError("all scores are equal or missing, so they say nothing", where="rewards")
    difference = np.where(both, (first - second) / spread, np.nan)
    return _by(rewards, Part(margin_0=difference, margin_1=-difference, meta={"reward_sd": spread}))


def relabel(votes: SignalVotes, *, rewards: Rewards) -> Part:
    """Winner by reward (official `choice_model`); -1 where a score is missing or both are equal."""
    first, second, both = _scored(rewards)
    winner = np.where(both & (first != second), np.where(first > second, 0, 1), -1).astype(np.int8)
    return _by(rewards, Part(winner=winner))


def smooth(votes: SignalVotes, *, rewards: Rewards, gamma: float, quantile: float, extremes: str) -> Part:
    """SmPO: winner and weight by reward (`smoothed`).

    extremes: "data": of these scores; "pickscore": the published ones, of raw PickScore cosines (quantile then is 0).
    """
    first, second, both = _scored(rewards)
    scores = np.concatenate([first, second])
    if extremes == "data":
        low, high = extremes_of(scores, quantile=quantile)
    else:
        low, high = PICKSCORE_EXTREMES
        if quantile != 0.0:
            raise InputError("quantile has no effect beside given extremes", where="quantile", remedy="leave one out")
        scores, reach = scores[np.isfinite(scores)], 0.1 * (high - low)
        outside = float(((scores < low - reach) | (scores > high + reach)).mean())
        if outside > 0.01:
            what = f"{outside:.0%} of the scores of {rewards.scorer} are far outside PickScore's raw cosines"
            raise InputError(what, where="extremes pickscore", remedy="use extremes data")
    winner, weight = np.full(len(first), -1, dtype=np.int8), np.full(len(first), np.nan)
    found = smoothed(first[both], second[both], low=low, high=high, gamma=gamma)
    winner[both], weight[both] = found.winner, found.weight
    meta = {"reward_low": low, "reward_high": high, "gamma": gamma, "quantile": quantile}
    return _by(rewards, Part(winner=winner, weight=weight, meta=meta))


def desirable(votes: SignalVotes, *, desirable: str) -> Part:
    """KTO labels of both images of every vote.

    any_win: an image that won at least once is desirable, one that only lost is not (published). only_wins: desirable
    if it won and never lost, undesirable if it lost and never won, neither otherwise. per_pair: the winner of this very
    vote is desirable, its loser not. Images seen in ties alone are neither. Equal names are the same image.

    Raises:
        InputError: images without names, where they need them.

    References: Diffusion-KTO, image labels of Pick-a-Pic v2 (237,530 desirable, 690,538 undesirable).
    """
    winner = voted(votes.label)
    won_0, lost_0 = winner == 0, winner == 1
    if desirable == "per_pair":
        label_0 = np.where(won_0, 1, np.where(lost_0, 0, -1)).astype(np.int8)
        return Part(label_0=label_0, label_1=np.where(label_0 < 0, -1, 1 - label_0).astype(np.int8))
    if not (are_there(votes.image_0).all() and are_there(votes.image_1).all()):
        raise InputError("the votes do not name their images", where="kind kto", remedy="use desirable per_pair")
    (left, right), count = codes_of(votes.image_0, votes.image_1)
    wins = np.bincount(np.concatenate([left[won_0], right[lost_0]]), minlength=count) > 0
    losses = np.bincount(np.concatenate([left[lost_0], right[won_0]]), minlength=count) > 0
    good, bad = (wins, losses) if desirable == "any_win" else (wins & ~losses, losses & ~wins)
    of_image = np.where(good, 1, np.where(bad, 0, -1)).astype(np.int8)
    counts = {"desirable_images": int((of_image == 1).sum()), "undesirable_images": int((of_image == 0).sum())}
    return Part(label_0=of_image[left], label_1=of_image[right], meta={"desirable": desirable, **counts})
