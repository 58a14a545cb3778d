"""Votes without some voters, and with models renamed: what a person asks for before the votes are rated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finepref.core.errors import InputError, nearest
from finepref.core.text import clean_name, fault_of_name, visible
from finepref.formats.votefiles import VoteTable
from finepref.formats.votes import Games, Votes


def read_merges(given: Sequence[str], models: Sequence[str]) -> dict[str, str]:
    """OLD=NEW as typed to old -> new; a name may hold an equals sign itself.

    Args:
        given: in the order in which models are renamed. models: the names before.

    Raises:
        InputError: without an equals sign or a usable new name, or OLD is no model.
    """
    known, found = [*models], {}
    for text in given:
        cuts = [at for at, letter in enumerate(text) if letter == "="]
        if not cuts or not text[cuts[0] + 1 :].strip():
            raise InputError(f"{text!r} is not OLD=NEW", where="--merge", remedy="write --merge 'OLD NAME=NEW NAME'")
        at = next((at for at in cuts if clean_name(text[:at]) in known), cuts[0])
        old, new = clean_name(text[:at]), clean_name(text[at + 1 :])
        if old not in known:
            raise InputError(f"there is no model {visible(old)!r}", where="--merge", remedy=nearest(old, known))
        if fault := fault_of_name(new):
            raise InputError(
                f"{visible(new)!r} cannot name a model: {fault}", where="--merge", remedy="write it without"
            )
        found[old] = new
        known = [new if name == old else name for name in known]
    return found


def merged(votes: Votes, renames: Mapping[str, str]) -> Votes:
    """The votes with models renamed, one after the other; models that then share a name are one."""
    names = [*votes.models]
    for old, new in renames.items():
        names = [new if name == old else name for name in names]
    models = tuple(dict.fromkeys(names))
    code = np.array([models.index(name) for name in names], dtype=np.int32)
    games = votes.games
    if games is not None:
        games = Games(games.start, code[games.model], games.rank)
    return replace(votes, models=models, left=code[votes.left], right=code[votes.right], games=games)


def without_voters(table: VoteTable, voters: Sequence[str]) -> tuple[VoteTable, dict[str, int]]:
    """The table without the votes of these voters, and how many rows each of them had.

    Raises:
        InputError: a voter who did not vote, or nobody is left.
    """
    votes = table.votes
    names = votes.voters or ()
    codes = [names.index(voter) if voter in names else -1 for voter in voters]
    rows = {voter: 0 if code < 0 else _count(votes, code) for voter, code in zip(voters, codes, strict=True)}
    for voter, number in rows.items():
        if not number:
            remedy = nearest(voter, names) if names else "name the voter column with --voter"
            raise InputError(f"voter {voter!r} did not vote", where="--drop-voter", remedy=remedy)
    keep = np.flatnonzero(~np.isin(votes.voter, codes))  # type: ignore[arg-type]
    if not len(keep):
        raise InputError("no vote is left", where="--drop-voter", remedy="leave fewer voters out")
    picked = replace(votes.take(keep), **_games_of(votes, keep))
    other, ids = table.other, table.ids
    return replace(
        table, votes=picked, row=table.row[keep], other=None if other is None else other[keep],
        ids=None if ids is None else ids.take(pa.array(keep)),
    ), rows  # fmt: skip


def _count(votes: Votes, code: int) -> int:
    return int(np.count_nonzero(votes.voter == code))


def _games_of(votes: Votes, keep: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The games that these votes are from, numbered anew."""
    games = votes.games
    if games is None or votes.game is None:
        return {}
    kept, game = np.unique(votes.game[keep], return_inverse=True)
    sizes = np.diff(games.start)[kept]
    items = np.concatenate([np.arange(games.start[g], games.start[g + 1]) for g in kept])
    return {"game": game, "games": Games(np.append(0, np.cumsum(sizes)), games.model[items], games.rank[items])}
