"""Published leaderboards, and how these ratings compare with one."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr

from finepref.arena.normal import Floats
from finepref.arena.ratings import Ratings
from finepref.core.errors import InputError, nearest
from finepref.core.files import read_json

PUBLISHED = ("arenapo-pickapic", "arenapo-hpdv3")


@dataclass(frozen=True, slots=True)
class Board:
    """A leaderboard: name, where it was published, [M] names and [M] mu."""

    name: str
    source: str
    models: tuple[str, ...]
    mu: Floats


@dataclass(frozen=True, slots=True)
class Comparison:
    """These ratings beside a board, over the K models that both have; mu minus its mean over those.

    ours, theirs: [K]. kendall, spearman: rank correlation (nan for K < 2). only_ours, only_theirs: the other models.
    """

    board: Board
    models: tuple[str, ...]
    ours: Floats
    theirs: Floats
    kendall: float
    spearman: float
    only_ours: tuple[str, ...]
    only_theirs: tuple[str, ...]


def load_board(name: str) -> Board:
    """A published board by name, or a file: ratings.json, or a csv with columns model and mu.

    Raises:
        InputError: neither a known board nor a readable file.
    """
    if name in PUBLISHED:
        text = resources.files("finepref.arena").joinpath("boards", f"{name}.json").read_text(encoding="utf-8")
        found = json.loads(text)
        return _board(name, found["source"], [(row["name"], row["mu"]) for row in found["models"]], name)
    path = Path(name)
    if not path.exists():
        raise InputError(f"unknown board {name!r}", remedy=f"{nearest(name, PUBLISHED)}, or name a file")
    if path.is_dir() or path.suffix == ".json":
        found = read_json(path / "ratings.json" if path.is_dir() else path)
        rows = found.get("models") if isinstance(found, dict) else None
        if not isinstance(rows, list) or not all(isinstance(r, dict) and {"name", "mu"} <= set(r) for r in rows):
            raise InputError("is no board", where=path, remedy="give a ratings.json with models: [{name, mu}]")
        return _board(path.name, str(path), [(row["name"], row["mu"]) for row in rows], path)
    with open(path, encoding="utf-8", newline="") as handle:
        records = list(csv.DictReader(handle))
    if not records or not {"model", "mu"} <= set(records[0]):
        raise InputError("is no board", where=path, remedy="give a csv with columns model and mu")
    return _board(path.name, str(path), [(row["model"], row["mu"]) for row in records], path)


def compare(ratings: Ratings, board: Board) -> Comparison:
    """Match models by name (letters and digits, without an owner's name before a slash) and compare.

    Raises:
        InputError: no model is on both.
    """
    there = {plain(name): k for k, name in enumerate(board.models)}
    pairs = [(k, there[plain(name)]) for k, name in enumerate(ratings.models) if plain(name) in there]
    if not pairs:
        raise InputError(
            f"no model is also on the board {board.name!r}",
            remedy="the board has " + ", ".join(board.models[:5]) + " ...",
        )
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    ours, theirs = ratings.mu[a] - ratings.mu[a].mean(), board.mu[b] - board.mu[b].mean()
    varied = len(pairs) > 1 and np.ptp(ours) > 0 and np.ptp(theirs) > 0
    return Comparison(
        board=board, models=tuple(ratings.models[k] for k in a), ours=ours, theirs=theirs,
        kendall=float(kendalltau(ours, theirs).statistic) if varied else float("nan"),
        spearman=float(spearmanr(ours, theirs).statistic) if varied else float("nan"),
        only_ours=tuple(name for k, name in enumerate(ratings.models) if k not in set(a.tolist())),
        only_theirs=tuple(name for k, name in enumerate(board.models) if k not in set(b.tolist())),
    )  # fmt: skip


def plain(name: str) -> str:
    """A name reduced to what should be equal: no owner, no punctuation, lower case."""
    return "".join(letter for letter in name.rsplit("/", 1)[-1].casefold() if letter.isalnum())


def _board(name: str, source: str, rows: list[tuple[Any, Any]], where: object) -> Board:
    try:
        mu = np.array([float(value) for _, value in rows])
    except (TypeError, ValueError):
        raise InputError("mu is not a number", where=where, remedy="correct the board") from None
    if not np.all(np.isfinite(mu)):
        raise InputError("mu is not a number", where=where, remedy="correct the board")
    return Board(name, source, tuple(str(model) for model, _ in rows), mu)
