"""Votes that go together (those of a voter, a prompt, a game), how many such clusters count, and what that allows.

A vote whose voter or prompt is not named (code -1) is a cluster of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from finepref.arena.blocks import slices
from finepref.arena.counts import weights
from finepref.arena.normal import Ints
from finepref.core.errors import InputError, check_word
from finepref.formats.votes import Votes

INTERVALS = ("auto", "laplace", "sandwich", "bootstrap")
NO_INTERVAL = "none"
CLUSTERS = ("game", "prompt", "voter")
FEWEST_CLUSTERS = 4  # effective; Student's distribution makes up for how few they are
FEW_OF_MODEL = 10
DOMINATES = 0.5  # share of the votes above which one cluster is said to dominate


@dataclass(frozen=True, slots=True)
class Spread:
    """How votes between different models spread over clusters.

    named: how many clusters have a name. alone: weight of the votes without one. effective: (sum n)^2 / sum n^2, the
    number of equal clusters that would be worth as much. largest: code and share of the votes of the largest named one.
    recurs: whether any named cluster has two votes.
    """

    named: int
    alone: float
    effective: float
    largest: tuple[int, float]
    recurs: bool

    @property
    def clusters(self) -> float:
        """Clusters with and without a name."""
        return self.named + self.alone

    def enough_for(self, models: int) -> bool:
        """Whether the spread of the clusters tells how sure that many ratings are."""
        return self.recurs and self.effective >= FEWEST_CLUSTERS and self.clusters > models

    @property
    def dominated(self) -> bool:
        """Whether one cluster has more than half of the votes, and others have some."""
        return DOMINATES < self.largest[1] < 1.0


def named(codes: Ints) -> int:
    """How many clusters have a name, of votes between any models."""
    used = np.zeros(int(codes.max(initial=-1)) + 2, dtype=bool)
    for rows in slices(len(codes)):
        used[np.asarray(codes[rows], dtype=np.int64) + 1] = True
    return int(used[1:].sum())


def spread(votes: Votes, codes: Ints | None) -> Spread:
    """How the votes spread over the clusters of these codes [n]; None: every vote by itself."""
    sizes, rows_in, alone = np.zeros(1), np.zeros(1), 0.0
    for rows in slices(len(votes)):
        counted = np.asarray(votes.left[rows] != votes.right[rows])
        weight = counted * weights(votes, rows)
        if codes is None:
            alone += float(weight.sum())
            continue
        code = np.asarray(codes[rows], dtype=np.int64) + 1  # 0: without a name
        length = max(len(sizes), int(code.max(initial=0)) + 1)
        sizes = np.pad(sizes, (0, length - len(sizes))) + np.bincount(code, weight, length)
        rows_in = np.pad(rows_in, (0, length - len(rows_in))) + np.bincount(code, weight > 0, length)
    alone += float(sizes[0])
    named = sizes[1:]
    total, squares = float(named.sum()) + alone, float(named @ named) + alone
    largest = int(np.argmax(named)) if len(named) else -1
    return Spread(
        int(np.count_nonzero(named)), alone, total**2 / squares if squares > 0 else 0.0,
        (largest, float(named[largest]) / total if total > 0 and largest >= 0 else 0.0), bool((rows_in[1:] > 1).any()),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class IntervalPlan:
    """Which interval to compute: "laplace", another one over these clusters (None: every vote by itself), or "none".

    effective: number of clusters that counts (infinite for Laplace). why: why this one, or why there is none.
    """

    method: str
    cluster: str | None
    why: str
    effective: float = float("inf")


def plan(votes: Votes, interval: str, cluster: str | None) -> IntervalPlan:
    """Settle the interval. "auto": sandwich over games, else prompts, else voters, if there are enough; else Laplace.

    Enough is effectively 4, and more clusters than models. There is none
    if one of several voters cast more than half of the votes and nothing else was asked for, or if the clusters that
    were asked for are fewer than the models, or one of them holds more than half of the votes.
    """
    check_word(interval, INTERVALS, "interval")
    if cluster is not None:
        check_word(cluster, CLUSTERS, "cluster")
        if interval == "laplace":
            raise InputError("cluster has no effect with interval 'laplace'", remedy="leave cluster out")
        if getattr(votes, cluster) is None:
            raise InputError(f"the votes name no {cluster}", remedy=f"give the {cluster} column, or another cluster")
        return _checked(votes, "sandwich" if interval == "auto" else interval, cluster, "asked for")
    if interval == "laplace":
        return _checked(votes, "laplace", None, "asked for")
    if votes.voter is not None and spread(votes, votes.voter).dominated:
        return IntervalPlan(NO_INTERVAL, None, "one voter cast more than half of the votes")
    for name in CLUSTERS:
        codes = getattr(votes, name)
        if codes is not None and spread(votes, codes).enough_for(len(votes.models)):
            method = "sandwich" if interval == "auto" else interval
            return _checked(votes, method, name, f"votes share their {name}")
    if interval == "auto":
        why = f"no game, prompt or voter column with {FEWEST_CLUSTERS} groups of several votes and more than models"
        return _checked(votes, "laplace", None, why)
    return _checked(votes, interval, None, "every vote by itself")


def few_clusters(votes: Votes, codes: Ints) -> npt.NDArray[np.bool_]:
    """[M] whether the votes on a model are from effectively fewer than 10 clusters."""
    m, alone = len(votes.models), np.zeros(len(votes.models))
    sizes: Any = csr_matrix((int(codes.max(initial=-1)) + 1, m))
    for rows in slices(len(votes)):
        counted = votes.left[rows] != votes.right[rows]
        code = np.tile(np.asarray(codes[rows], dtype=np.int64)[counted], 2)
        model = np.concatenate([votes.left[rows][counted], votes.right[rows][counted]])
        weight = np.tile(weights(votes, rows)[counted], 2)
        named_ = code >= 0
        alone += np.bincount(model[~named_], weight[~named_], m)
        sizes = sizes + csr_matrix((weight[named_], (code[named_], model[named_])), shape=sizes.shape)
    total = np.asarray(sizes.sum(axis=0)).ravel() + alone
    squares = np.asarray(sizes.multiply(sizes).sum(axis=0)).ravel() + alone
    return np.asarray(total**2 < FEW_OF_MODEL * squares)


def _checked(votes: Votes, method: str, cluster: str | None, why: str) -> IntervalPlan:
    """The plan, or that there can be no interval."""
    over, models = spread(votes, None if cluster is None else getattr(votes, cluster)), len(votes.models)
    if over.clusters == 0:
        return IntervalPlan(NO_INTERVAL, None, "no vote is between two different models")
    if method == "laplace":
        return IntervalPlan(method, None, why)
    what = f"{cluster or 'vote'}{'' if over.clusters == 1 else 's'}"
    if over.clusters < models:
        return IntervalPlan(NO_INTERVAL, cluster, f"{over.clusters:g} {what} cannot tell how sure {models} ratings are")
    if over.dominated:
        return IntervalPlan(NO_INTERVAL, cluster, f"one {cluster} holds more than half of the votes")
    return IntervalPlan(method, cluster, why, over.effective)
