"""K-wise games: ranked lists of items, and all the pairs that follow from each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finepref.formats.votes import Games, Ints


def group_rows(group: Ints, n_groups: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row order that puts each group together (rows keep their order), and [G + 1] where each group starts in it."""
    order = np.argsort(group, kind="stable")
    start = np.zeros(n_groups + 1, dtype=np.int64)
    np.cumsum(np.bincount(group, minlength=n_groups), out=start[1:])
    return order, start


def all_pairs(games: Games) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every pair of items within every game: positions of the two items in the games' arrays, and the game.

    Only neighbours in the ranking would be biased (research: RMSE 1.1 and 1.7 against 0.4), so all pairs it is.
    """
    sizes = np.diff(games.start)
    found = [np.zeros((3, 0), dtype=np.int64)]
    for size in np.unique(sizes[sizes > 1]).tolist():
        which = np.flatnonzero(sizes == size)
        a, b = np.triu_indices(size, 1)
        base = games.start[which][:, None]
        found.append(np.stack([(base + a).ravel(), (base + b).ravel(), np.repeat(which, len(a))]))
    first, second, game = np.concatenate(found, axis=1)
    order = np.argsort(game, kind="stable")
    return first[order], second[order], game[order]


def outcomes(games: Games, first: Ints, second: Ints) -> npt.NDArray[np.int8]:
    """+1 where the first item is ranked better (lower), -1 where the second is, 0 for equal ranks."""
    return np.sign(games.rank[second] - games.rank[first]).astype(np.int8)
