"""Published leaderboards, and how these ratings compare with one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, spearmanr

from finepref.arena.normal import Floats
from finepref.arena.ratings import Ratings
from finepref.core.errors import InputError, nearest
from finepref.formats.ratings import BoardRecord, read_board

PUBLISHED = ("arenapo-pickapic", "arenapo-hpdv3")
FOLDER = Path(__file__).parent / "boards"


@dataclass(frozen=True, slots=True)
class BoardComparison:
    """These ratings beside a board, over the K models that both have; mu minus its mean over those.

    ours, theirs: [K]. kendall, spearman: rank correlation (nan for K < 2). only_ours, only_theirs: the other models.
    """

    board: BoardRecord
    models: tuple[str, ...]
    ours: Floats
    theirs: Floats
    kendall: float
    spearman: float
    only_ours: tuple[str, ...]
    only_theirs: tuple[str, ...]


def load_board(name: str) -> BoardRecord:
    """A published board by name, or a file: ratings.json, or a csv with columns model and mu.

    Raises:
        InputError: neither a known board nor a readable file.
    """
    path = FOLDER / f"{name}.json" if name in PUBLISHED else Path(name)
    if not path.exists():
        raise InputError(f"unknown board {name!r}", remedy=f"{nearest(name, PUBLISHED)}, or name a file")
    return replace(read_board(path), name=name if name in PUBLISHED else path.name)


def compare(ratings: Ratings, board: BoardRecord) -> BoardComparison:
    """Match models by name (letters and digits, without an owner's name before a slash) and compare.

    Raises:
        InputError: no model is on both.
    """
    names, mu = [model.name for model in board.models], board.mu
    there = {plain(name): k for k, name in enumerate(names)}
    pairs = [(k, there[plain(name)]) for k, name in enumerate(ratings.models) if plain(name) in there]
    if not pairs:
        raise InputError(
            f"no model is also on the board {board.name!r}",
            remedy="the board has " + ", ".join(names[:5]) + " ...",
        )
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    ours, theirs = ratings.mu[a] - ratings.mu[a].mean(), mu[b] - mu[b].mean()
    here, on_board = set(a.tolist()), set(b.tolist())
    varied = len(pairs) > 1 and np.ptp(ours) > 0 and np.ptp(theirs) > 0
    return BoardComparison(
        board=board, models=tuple(ratings.models[k] for k in a), ours=ours, theirs=theirs,
        kendall=float(kendalltau(ours, theirs).statistic) if varied else float("nan"),
        spearman=float(spearmanr(ours, theirs).statistic) if varied else float("nan"),
        only_ours=tuple(name for k, name in enumerate(ratings.models) if k not in here),
        only_theirs=tuple(name for k, name in enumerate(names) if k not in on_board),
    )  # fmt: skip


def plain(name: str) -> str:
    """A name reduced to what should be equal: no owner, no punctuation, lower case."""
    return "".join(letter for letter in name.rsplit("/", 1)[-1].casefold() if letter.isalnum())
