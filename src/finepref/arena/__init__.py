"""The arena: votes -> ratings -> gaps -> leaderboard. numpy, scipy and pyarrow; no torch."""

from finepref.arena.gap import gaps, gaps_both
from finepref.arena.rate import rate
from finepref.arena.ratings import Ratings, load_ratings
from finepref.formats.votefiles import VoteTable, read_votes
from finepref.formats.votes import Votes

__all__ = ["Ratings", "VoteTable", "Votes", "gaps", "gaps_both", "load_ratings", "rate", "read_votes"]
