"""Votes collapsed to counts per pair of models: all that a batch rating needs, however many the votes were."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from finepref.arena.blocks import slices
from finepref.arena.normal import Floats
from finepref.formats.votes import Votes

DENSE_UP_TO = 1500  # models; above it pairs are found by sorting instead of an M x M table
CHUNK = 4_000_000


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Counts of P pairs of different models, i < j: i won, j won, tie. Votes of a model against itself are not in it.

    i, j: [P] int64 codes. i_wins, j_wins, ties: [P] float64 (weights of a bootstrap are fractions of votes too).
    """

    n_models: int
    i: npt.NDArray[np.int64]
    j: npt.NDArray[np.int64]
    i_wins: Floats
    j_wins: Floats
    ties: Floats

    @property
    def total(self) -> float:
        """Number of votes between different models."""
        return float(self.i_wins.sum() + self.j_wins.sum() + self.ties.sum())

    def matrix(self, what: str) -> Floats:
        """[M, M] table: "wins" (row beat column), "ties" (symmetric) or "games" (symmetric)."""
        table = np.zeros((self.n_models, self.n_models))
        first, second = {
            "wins": (self.i_wins, self.j_wins),
            "ties": (self.ties, self.ties),
            "games": (self.i_wins + self.j_wins + self.ties,) * 2,
        }[what]
        table[self.i, self.j] = first
        table[self.j, self.i] = second
        return table

    def among(self, codes: npt.NDArray[np.int64]) -> PairCounts:
        """The pairs of these K models only; they are numbered as listed."""
        at = np.full(self.n_models, -1)
        at[codes] = np.arange(len(codes))
        kept = np.flatnonzero((at[self.i] >= 0) & (at[self.j] >= 0))
        i, j = at[self.i[kept]], at[self.j[kept]]
        turned, i_wins, j_wins = i > j, self.i_wins[kept], self.j_wins[kept]
        return replace(
            self, n_models=len(codes), i=np.minimum(i, j), j=np.maximum(i, j), ties=self.ties[kept],
            i_wins=np.where(turned, j_wins, i_wins), j_wins=np.where(turned, i_wins, j_wins),
        )  # fmt: skip

    def observed_wins(self) -> Floats:
        """[M, M] observed share of points of the row's model against the column's, a tie half one; nan: never met."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((self.matrix("wins") + 0.5 * self.matrix("ties")) / self.matrix("games"))

    def record(self) -> npt.NDArray[np.int64]:
        """[M, 3] wins, losses and ties of every model."""
        of_both = ((self.i_wins, self.j_wins), (self.j_wins, self.i_wins), (self.ties, self.ties))
        m = self.n_models
        sums = [np.bincount(self.i, of_i, m) + np.bincount(self.j, of_j, m) for of_i, of_j in of_both]
        return np.rint(np.stack(sums, axis=1)).astype(np.int64)

    def components(self) -> npt.NDArray[np.int64]:
        """[M] number of the connected part of the vote graph that each model is in (0 is the largest)."""
        played = self.i_wins + self.j_wins + self.ties > 0
        return _components(self.i[played], self.j[played], self.n_models, strong=False)

    def mutual_components(self) -> npt.NDArray[np.int64]:
        """[M] strongly connected part: within one, every split has wins both ways, so no rating runs off."""
        i_up, j_up = (self.i_wins + self.ties) > 0, (self.j_wins + self.ties) > 0
        a = np.concatenate([self.i[i_up], self.j[j_up]])
        b = np.concatenate([self.j[i_up], self.i[j_up]])
        return _components(a, b, self.n_models, strong=True)

    def with_ties(self, how: str) -> PairCounts:
        """Ties as they are ("fit"), as half a win each ("half"), or left out ("drop")."""
        if how == "fit":
            return self
        half = 0.5 * self.ties if how == "half" else np.zeros_like(self.ties)
        none = np.zeros_like(self.ties)
        return PairCounts(self.n_models, self.i, self.j, self.i_wins + half, self.j_wins + half, none)


def count(votes: Votes) -> PairCounts:
    """Pair counts of votes, in chunks so that memory-mapped votes stay on disk."""
    m = len(votes.models)
    if m <= DENSE_UP_TO:
        return _dense(votes, m)
    keys, sums = zip(*(_sorted(votes, m, rows) for rows in slices(len(votes), CHUNK)), strict=True)
    unique, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    cells: Floats = np.concatenate(sums, axis=1)
    return PairCounts(m, unique // m, unique % m, *(_sum(inverse, row, len(unique)) for row in cells))


def _sum(cell: npt.NDArray[np.int64], values: Floats, cells: int) -> Floats:
    return np.bincount(cell, values, cells).astype(np.float64)


def _dense(votes: Votes, m: int) -> PairCounts:
    cells = np.zeros(3 * m * m, dtype=np.int64)
    for rows in slices(len(votes), CHUNK):
        key = votes.left[rows].astype(np.int64)
        key *= m
        key += votes.right[rows]
        key += (votes.outcome[rows].astype(np.int64) + 1) * (m * m)
        cells += np.bincount(key, minlength=3 * m * m)
    right_won, tied, left_won = cells.reshape(3, m, m).astype(np.float64)
    beat, tie = left_won + right_won.T, tied + tied.T
    i, j = np.nonzero(np.triu(beat + beat.T + tie, 1))
    return PairCounts(m, i, j, beat[i, j], beat[j, i], tie[i, j])


def _sorted(votes: Votes, m: int, rows: slice) -> tuple[npt.NDArray[np.int64], Floats]:
    left, right = votes.left[rows].astype(np.int64), votes.right[rows].astype(np.int64)
    sign = np.where(left > right, -1, 1) * votes.outcome[rows]
    differ = left != right
    unique, inverse = np.unique((np.minimum(left, right) * m + np.maximum(left, right))[differ], return_inverse=True)
    return unique, np.stack([np.bincount(inverse, sign[differ] == s, len(unique)) for s in (1, -1, 0)])


def _components(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], m: int, *, strong: bool) -> npt.NDArray[np.int64]:
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(m, m))
    _, label = connected_components(graph, directed=strong, connection="strong" if strong else "weak")
    sizes = np.bincount(label)
    order = np.lexsort((np.arange(len(sizes)), -sizes))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return np.asarray(rank[label], dtype=np.int64)
