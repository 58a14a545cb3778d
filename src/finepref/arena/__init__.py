"""The arena: votes -> ratings -> gaps -> leaderboard. numpy, scipy and pyarrow; no torch. Loaded when it is used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finepref.arena.engines import rate
    from finepref.arena.gap import gaps, gaps_both
    from finepref.arena.ratings import Ratings, load_ratings
    from finepref.formats.votefiles import VoteTable, read_votes
    from finepref.formats.votes import Votes

__all__ = ["Ratings", "VoteTable", "Votes", "gaps", "gaps_both", "load_ratings", "rate", "read_votes"]
_FROM = {
    "Ratings": "arena.ratings",
    "VoteTable": "formats.votefiles",
    "Votes": "formats.votes",
    "gaps": "arena.gap",
    "gaps_both": "arena.gap",
    "load_ratings": "arena.ratings",
    "rate": "arena.engines",
    "read_votes": "formats.votefiles",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"finepref.{_FROM[name]}"), name)
