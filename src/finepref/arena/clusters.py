"""Votes that go together (those of a voter, a prompt, a game), how many such clusters count, and what that allows.

A vote whose voter or prompt is not named (code -1) is a cluster of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finepref.arena.blocks import slices
from finepref.arena.normal import Ints
from finepref.core.errors import InputError, check_word
from finepref.formats.votes import Votes

INTERVALS = ("auto", "laplace", "sandwich", "bootstrap")
NO_INTERVAL = "none"
CLUSTERS = ("game", "prompt", "voter")
FEWEST_CLUSTERS = 30
CLUSTERS_PER_MODEL = 4
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
        weight = counted.astype(np.float64) if votes.weight is None else counted * votes.weight[rows]
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

    Enough is 30, and 4 per model, by the effective number: a covariance from fewer clusters is too small. There is none
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
    enough = enough_clusters(votes)
    for name in CLUSTERS:
        codes = getattr(votes, name)
        if codes is not None:
            over = spread(votes, codes)
            if over.effective >= enough and over.recurs:
                method = "sandwich" if interval == "auto" else interval
                return _checked(votes, method, name, f"votes share their {name}")
    if interval == "auto":
        why = f"no game, prompt or voter column with {enough} groups of several votes"
        return _checked(votes, "laplace", None, why)
    return _checked(votes, interval, None, "every vote by itself")


def enough_clusters(votes: Votes) -> int:
    """How many clusters a covariance needs to be trusted."""
    return max(FEWEST_CLUSTERS, CLUSTERS_PER_MODEL * len(votes.models))


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
