"""Votes collapsed to counts per pair of models: all that a batch rating needs, however many the votes were."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from finepref.arena.blocks import slices
from finepref.arena.normal import Floats
from finepref.formats.votes import Votes

DENSE_UP_TO = 1500  # models; above it pairs are found by sorting instead of an M x M table


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Counts of P pairs of different models: i won, j won, tie. Votes of a model against itself are not in it.

    i, j: [P] int64 codes, i < j; of `count_sides`: i stood on the left. i_wins, j_wins, ties: [P] float64, sums of the
    votes' weights.
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

    def record(self) -> Floats:
        """[M, 3] wins, losses and ties of every model, sums of weights."""
        of_both = ((self.i_wins, self.j_wins), (self.j_wins, self.i_wins), (self.ties, self.ties))
        m = self.n_models
        sums = [np.bincount(self.i, of_i, m) + np.bincount(self.j, of_j, m) for of_i, of_j in of_both]
        return np.stack(sums, axis=1)

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

    def folded(self) -> PairCounts:
        """The same counts whatever side the models stood on: i < j."""
        m, turned = self.n_models, self.i > self.j
        keys, at = np.unique(np.minimum(self.i, self.j) * m + np.maximum(self.i, self.j), return_inverse=True)
        first, second = np.where(turned, self.j_wins, self.i_wins), np.where(turned, self.i_wins, self.j_wins)
        sums = (np.bincount(at, values, len(keys)).astype(np.float64) for values in (first, second, self.ties))
        return PairCounts(m, keys // m, keys % m, *sums)

    def with_ties(self, how: str) -> PairCounts:
        """Ties as they are ("fit"), as half a win each ("half"), or left out ("drop")."""
        if how == "fit":
            return self
        half = 0.5 * self.ties if how == "half" else np.zeros_like(self.ties)
        none = np.zeros_like(self.ties)
        return PairCounts(self.n_models, self.i, self.j, self.i_wins + half, self.j_wins + half, none)


def is_weighted(votes: Votes) -> bool:
    """Whether a row stands for anything but one whole vote."""
    weighed = votes.weight is not None and bool((votes.weight != 1).any())
    return weighed or (votes.share is not None and not bool(np.isnan(votes.share).all()))


def parts(votes: Votes, rows: slice = slice(None)) -> tuple[Floats, Floats, Floats]:
    """[n] how much of each of these rows is a win of the left, a win of the right, and a tie; in all: its weight."""
    outcome = votes.outcome[rows]
    found = [(outcome == said).astype(np.float64) for said in (1, -1, 0)]
    if votes.share is not None:
        share = votes.share[rows]
        told = (share, 1.0 - share, np.zeros(len(share)))
        found = [np.where(np.isnan(share), plain, shared) for plain, shared in zip(found, told, strict=True)]
    weight = weights(votes, rows)
    left, right, tie = (weight * part for part in found)
    return left, right, tie


def weights(votes: Votes, rows: Any = slice(None)) -> Floats:
    """[n] how many votes each of these rows counts as."""
    weight = np.ones(len(votes.left[rows])) if votes.weight is None else votes.weight[rows]
    return weight if votes.repeats is None else weight * votes.repeats[rows]


def both_bad(votes: Votes) -> Floats | None:
    """[M] weight of the votes against others that said that neither is good; None where the votes do not say."""
    if votes.both_bad is None:
        return None
    rows = np.flatnonzero(votes.both_bad & (votes.left != votes.right))
    weight, m = weights(votes, rows), len(votes.models)
    return np.asarray(np.bincount(votes.left[rows], weight, m) + np.bincount(votes.right[rows], weight, m))


def count(votes: Votes) -> PairCounts:
    """Pair counts of votes, i < j."""
    return count_sides(votes).folded()


def count_sides(votes: Votes) -> PairCounts:
    """Pair counts of votes by side: i stood on the left. In chunks, so that memory-mapped votes stay on disk."""
    m = len(votes.models)
    if m <= DENSE_UP_TO:
        cells = _dense(votes, m)
        keys = np.arange(m * m)
    else:
        found, sums = zip(*(_sorted(votes, m, rows) for rows in slices(len(votes))), strict=True)
        keys, at = np.unique(np.concatenate(found), return_inverse=True)
        cells = np.stack([np.bincount(at, row, len(keys)) for row in np.concatenate(sums, axis=1)])
    met = (keys // m != keys % m) & (cells.sum(axis=0) > 0)
    right_won, tied, left_won = cells[:, met]
    return PairCounts(m, keys[met] // m, keys[met] % m, left_won, right_won, tied)


def _dense(votes: Votes, m: int) -> Floats:
    """[3, M * M] right won, tie, left won; the left model times M plus the right one."""
    plain, cells = votes.repeats is None and not is_weighted(votes), np.zeros(3 * m * m)
    for rows in slices(len(votes)):
        key = votes.left[rows].astype(np.int64)
        key *= m
        key += votes.right[rows]
        if plain:
            key += (votes.outcome[rows].astype(np.int64) + 1) * (m * m)
            cells += np.bincount(key, minlength=3 * m * m)
        else:
            won, lost, tied = parts(votes, rows)
            cells += np.concatenate([np.bincount(key, part, m * m) for part in (lost, tied, won)])
    return cells.reshape(3, m * m)


def _sorted(votes: Votes, m: int, rows: slice) -> tuple[npt.NDArray[np.int64], Floats]:
    keys, at = np.unique(votes.left[rows].astype(np.int64) * m + votes.right[rows], return_inverse=True)
    won, lost, tied = parts(votes, rows)
    return keys, np.stack([np.bincount(at, part, len(keys)) for part in (lost, tied, won)])


def _components(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], m: int, *, strong: bool) -> npt.NDArray[np.int64]:
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(m, m))
    _, label = connected_components(graph, directed=strong, connection="strong" if strong else "weak")
    sizes = np.bincount(label)
    order = np.lexsort((np.arange(len(sizes)), -sizes))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return np.asarray(rank[label], dtype=np.int64)
