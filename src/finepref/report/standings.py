"""What the arena page, the report and its text all say of ratings: one record, so that they print the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from finepref.arena.orders import votes_to_separate
from finepref.arena.ratings import Ratings
from finepref.formats.ratings import RatedModel
from finepref.report.charts import heat_map
from finepref.report.kit import Bars, Estimate, TextTable, bars, table
from finepref.report.wording import number, percent, shorten, span, weight, whole

IN_CHART, IN_TABLE, IN_MATRIX, SIDE_BY_SIDE = 60, 25, 18, 8
NAMED = 3  # models that the first sentence names
MANY = 1e6  # votes beyond which their number says nothing

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Standings:
    """Ratings as a page shows them.

    lead: the result in a sentence. votes: those that moved a rating. drawn: how many models `chart` has. board: the
    first 25 rows, rest: the others. order: codes of the models in the matrices. wide: whether those fill the page.
    """

    ratings: Ratings
    lead: str
    votes: float
    chart: Bars
    drawn: int
    board: TextTable
    rest: TextTable | None
    order: NDArray[np.int64]
    wide: bool

    @property
    def names(self) -> list[str]:
        """Names of the models in the matrices."""
        return [self.ratings.models[k] for k in self.order]

    def pick(self, values: Floats) -> Floats:
        """The part [K, K] of a table of all models that a matrix shows."""
        return np.asarray(values[np.ix_(self.order, self.order)])

    def wins(self, values: Floats, title: str, tip: Callable[[int, int], str] | None = None) -> Markup:
        """A win matrix [K, K] of shares; a cell tells `tip`."""
        return heat_map(self.names, 100 * values, title=title, middle=50.0, reach=50.0, show="{:.0f}".format, tip=tip)

    @property
    def predicted(self) -> Markup:
        """The win matrix that the ratings predict."""
        return self.wins(self.ratings.predicted_wins(self.order), "Predicted from the ratings")


def standings(ratings: Ratings) -> Standings:
    """What pages show of these ratings."""
    models = ratings.table()
    drawn = [Estimate(m.name, m.mu, m.low, m.high, colour=int(m.rank_low == 1)) for m in models[:IN_CHART]]
    chart = bars(drawn, title="Ratings with 95 % intervals", axis="rating μ, higher is better")
    board, rest = _leaderboard(ratings, models).cut(IN_TABLE)
    order, votes = ratings.order()[:IN_MATRIX], ratings.votes
    return Standings(
        ratings, _lead(ratings, votes), votes, chart, len(drawn), board, rest, order,
        len(order) > SIDE_BY_SIDE,
    )  # fmt: skip


def _leaderboard(ratings: Ratings, models: Sequence[RatedModel]) -> TextTable:
    order, lines, bad = ratings.order(), [], ratings.both_bad is not None
    further = ["–"] * len(models)
    if ratings.has_intervals and not ratings.settings.tau:  # under a random walk nothing ever settles
        further[:-1] = [_further(votes) for votes in votes_to_separate(ratings, order[:-1], order[1:]).tolist()]
    for at, model in enumerate(models):
        ranks = "–".join(dict.fromkeys((str(model.rank_low), str(model.rank_high))))
        lines.append((
            at + 1, shorten(model.name, 60), number(model.mu), span(model.low, model.high), ranks, model.tier,
            further[at], number(model.score),
            " / ".join(weight(sum_) for sum_ in (model.wins, model.losses, model.ties)),
            *((percent(model.both_bad, 0),) if bad else ()),
        ))  # fmt: skip
    head = (
        "Rank", "Model", "μ", "95 % interval", "Possible ranks", "Tier", "Votes to tell", "μ − 3σ", "Won / lost / tied",
        *(("Neither is good",) if bad else ()),
    )  # fmt: skip
    return table(head, lines, left=(1,), wrap=(1,), looks=tuple("tied" if m.rank_low == 1 else "" for m in models))


def _further(votes: float) -> str:
    if votes == 0:
        return "clear"
    return whole(votes) if votes < MANY else "over 1 million"


def _lead(ratings: Ratings, votes: float) -> str:
    """The result in a sentence or two."""
    order, surely = ratings.order(), ratings.surely_better()
    start = f"{len(order)} models, {weight(votes)} votes. "
    if not ratings.has_intervals:
        return f"{start}{ratings.models[order[0]]} comes first, but nothing can be said of how sure that is."
    first = [k for k in order if not surely[:, k].any()]
    others = [k for k in order if surely[:, k].any()]
    names = [ratings.models[k] for k in first]
    if len(first) == 1:
        return f"{start}{names[0]} is ahead of all others (95 %, all pairs tested together)."
    if others and len(first) <= NAMED and surely[np.ix_(first, others)].all():
        together = f"{', '.join(names[:-1])} and {names[-1]}"
        return f"{start}{together} are ahead of all others; between them the votes cannot tell{_more(ratings, first)}."
    listed = ", ".join(names[:NAMED]) + (f" and {len(first) - NAMED} more" if len(first) > NAMED else "")
    return f"{start}{names[0]} leads, but {len(first)} models may be the best: {listed}."


def _more(ratings: Ratings, first: Sequence[int]) -> str:
    """How many votes would tell two models apart, if that is known."""
    if len(first) != 2 or ratings.settings.tau:  # under a random walk nothing ever settles
        return ""
    votes = float(votes_to_separate(ratings, *first))
    return f"; {whole(votes)} more would" if votes < MANY else ""
