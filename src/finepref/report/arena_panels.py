"""The cards of arena.html about the models: leaderboard, win matrix, neighbours, gaps, another board."""

from __future__ import annotations

import numpy as np

from finepref.arena.findings import Findings
from finepref.arena.folder import leaderboard_rows
from finepref.arena.gap import GAPS, expected_gap
from finepref.arena.link import get_link, p_left_decisive
from finepref.arena.normal import Floats
from finepref.arena.orders import votes_to_separate
from finepref.arena.ratings import Ratings
from finepref.arena.rho import RhoCurve
from finepref.report import charts, html
from finepref.report.html import Raw, number

IN_CHART = 60
IN_MATRIX = 18
SIDE_BY_SIDE = 8
IN_TABLE = 25


def interval_card(found: Findings) -> Raw:
    """Ratings with intervals, as a picture."""
    ratings = found.ratings
    rows = leaderboard_rows(ratings)
    shown = rows[:IN_CHART]
    chart = charts.interval_chart(
        [(r["model"], r["low"], r["mu"], r["high"]) for r in shown],
        title="Ratings with 95 % intervals", axis="rating μ", strong=[r["rank_low"] == 1 for r in shown],
    )  # fmt: skip
    link = get_link(ratings.settings.get("link") or "probit")
    lead = np.array([1.0, 3.0])
    share = p_left_decisive(link, lead / ratings.c, ratings.tie_margin / ratings.c)
    words = (
        "A dot is a model's rating, the bar its 95 % interval; the coloured ones may still be the best. With a lead of "
        f"{lead[0]:.0f} a model wins {share[0]:.0%} of its decided votes, with one of {lead[1]:.0f} {share[1]:.0%}."
    )
    if len(rows) > len(shown):
        words += f" The first {len(shown)} of {len(rows)} models are drawn."
    return html.section("Ratings", html.figure(chart, words), name="ratings")


def leaderboard_card(found: Findings) -> Raw:
    """The table of models."""
    ratings = found.ratings
    rows = leaderboard_rows(ratings)
    order = ratings.order()
    head = ("Rank", "Model", "μ", "95 % interval", "Possible ranks", "Votes to tell", "μ − 3σ", "Won / lost / tied")
    cells = []
    for at, r in enumerate(rows):
        further = "–"
        if at + 1 < len(rows) and not ratings.settings.get("tau"):  # under a random walk nothing ever settles
            further = _count(votes_to_separate(ratings, order[at], order[at + 1]))
        span = str(r["rank_low"]) if r["rank_low"] == r["rank_high"] else f"{r['rank_low']}–{r['rank_high']}"
        interval = f"{number(r['low'])} to {number(r['high'])}"
        games = f"{r['wins']:,} / {r['losses']:,} / {r['ties']:,}"
        name = charts.shorten(r["model"], 60)
        cells.append((r["rank"], name, number(r["mu"]), interval, span, further, number(r["score"]), games))
    tied = [r["rank_low"] == 1 for r in rows]
    words = (
        "Possible ranks: how high and how low the votes allow a model to stand. Votes to tell: further votes between a "
        "model and the one below it until their order is clear, if the ratings are right. μ − 3σ is the conservative "
        "score of older boards; it mixes how good a model is with how often it was seen, so it comes second."
    )
    parts: list[str] = [html.paragraph(words, "soft"), html.table(head, cells[:IN_TABLE], left=(1,), marked=tied)]
    if len(cells) > IN_TABLE:
        rest = html.table(head, cells[IN_TABLE:], left=(1,), marked=tied[IN_TABLE:])
        parts.append(html.details(f"The other {len(cells) - IN_TABLE} models", rest))
    return html.section("Leaderboard", *parts, name="leaderboard")


def _count(value: float) -> str:
    if value == 0:
        return "clear"
    return f"{value:,.0f}" if value < 1e6 else "over 1 million"


def predicted_wins(ratings: Ratings) -> Floats:
    """[M, M] predicted share of points of the row's model against the column's: P(win) + P(tie)/2."""
    link = get_link(ratings.settings.get("link") or "probit")
    d, m = np.subtract.outer(ratings.mu, ratings.mu) / ratings.c, ratings.tie_margin / ratings.c
    share = 0.5 * (1.0 + np.exp(link.win(d - m)[0]) - np.exp(link.win(-d - m)[0]))
    np.fill_diagonal(share, np.nan)
    return np.asarray(share)


def matrix_card(found: Findings) -> Raw:
    """Observed and predicted shares of points."""
    order = found.ratings.order()[:IN_MATRIX]
    pick = np.ix_(order, order)
    wins, ties, games = (found.counts.matrix(what)[pick] for what in ("wins", "ties", "games"))
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = (wins + 0.5 * ties) / games
    predicted = predicted_wins(found.ratings)[pick]
    names = [found.ratings.models[k] for k in order]

    def tip(row: int, column: int) -> str:
        return (
            f"{names[row]} against {names[column]}: {wins[row, column]:.0f} wins, {wins[column, row]:.0f} losses, "
            f"{ties[row, column]:.0f} ties; predicted {predicted[row, column]:.0%}"
        )

    places = [str(place) for place in range(1, len(names) + 1)]
    labels = [f"{charts.shorten(name, 30)}  {place}" for name, place in zip(names, places, strict=True)]

    def draw(values: Floats, title: str) -> str:
        drawing = charts.heat_map(
            labels, values, title=title, middle=0.5, reach=0.5, show=lambda v: f"{100 * v:.0f}", tips=tip, across=places
        )
        return html.heading(title) + html.figure(drawing, wide=len(names) > SIDE_BY_SIDE)

    words = "Percent of points (a tie is half a point) of the row's model against the column's. Empty: they never met."
    if len(found.ratings.models) > IN_MATRIX:
        words += f" The best {IN_MATRIX} of {len(found.ratings.models)} models."
    both = draw(observed, "Observed"), draw(predicted, "Predicted from the ratings")
    body = html.pair(*both) if len(names) <= SIDE_BY_SIDE else html.Raw("".join(both))
    return html.section("Who beats whom", html.paragraph(words, "soft"), body, name="matrix")


def gap_card(found: Findings) -> Raw:
    """The kinds of gap, what they make of a rating difference, and the curve of rho."""
    rows = [
        (
            g.kind, GAPS[g.kind].about, number(g.mean), f"{number(g.quantiles[1])} to {number(g.quantiles[3])}",
            f"{number(g.quantiles[0])} to {number(g.quantiles[4])}", "–" if g.rho is None else number(g.rho),
        )
        for g in found.gaps
    ]  # fmt: skip
    head = ("Kind", "What it is", "Mean", "Middle half", "5 – 95 %", "ρ")
    words = (
        "The gap of a vote is how much better its winner is expected to be than its loser, in rating units. Training "
        "uses it as a margin; gaps.parquet has one row per vote."
    )
    return html.section(
        "Gaps", html.paragraph(words, "soft"), html.table(head, rows, left=(0, 1), wrap=(1,)),
        html.pair(_gap_chart(found.ratings), _rho_chart(found.curve)), name="gaps",
    )  # fmt: skip


def _gap_chart(ratings: Ratings) -> str:
    lead = np.linspace(-1.0, 1.0, 81) * max(3.0, float(np.ptp(ratings.mu)))
    spread = float(np.sqrt(2.0 * np.mean(ratings.sigma**2)))
    lines = [("truncated", lead, expected_gap(lead, ratings.c)), ("paper", lead, expected_gap(lead, spread))]
    chart = charts.line_chart(
        [(name, x.tolist(), y.tolist()) for name, x, y in lines], title="Gap over rating difference",
        x_axis="rating of the winner minus the loser's", y_axis="gap",
    )  # fmt: skip
    caption = (
        f"What a win is worth. The paper's gap takes the ratings' uncertainty (here {number(spread)} for a pair) for "
        f"the spread of performances (c = {number(ratings.c)})"
    )
    caption += (
        ", so upsets count for almost nothing and favourites for their lead." if spread < 0.5 * ratings.c else "."
    )
    return html.heading("Gap by rating difference") + html.figure(chart, caption)


def _rho_chart(curve: RhoCurve | None) -> str:
    title = html.heading("How much of the noise is in the images?")
    if curve is None:
        return title + html.paragraph("The votes name no images, so nothing can be said about single images; ρ is 1.")
    best = max(curve.log_likelihood)
    chart = charts.line_chart(
        [("log-likelihood", curve.grid, [v - best for v in curve.log_likelihood])], title="Likelihood of rho",
        x_axis="ρ, share of the noise that is the images' own", y_axis="log-likelihood, best = 0", dots=True,
        x_range=(0.0, 1.0), marks=[(curve.rho, f"ρ = {curve.rho:.2f}")] if curve.identified else (),
    )  # fmt: skip
    verdict = (
        f"Images recur in enough of the {curve.votes:,} votes looked at to tell: about {curve.rho:.0%} of the noise of "
        "a vote is the images' own, the rest the voter's."
        if curve.identified
        else "Not identified: images recur too rarely to tell the images' noise from the voters'. ρ is 1, and the "
        "kinds image and selection are exactly truncated."
    )
    return title + html.figure(chart, verdict)


def board_card(found: Findings) -> Raw | None:
    """Beside a published board."""
    both = found.comparison
    if both is None:
        return None
    order = np.argsort(-both.theirs, kind="stable")
    rows = [
        (both.models[k], number(both.theirs[k], sign=True), number(both.ours[k], sign=True),
         number(both.ours[k] - both.theirs[k], sign=True))
        for k in order
    ]  # fmt: skip
    head = ("Model", "Board", "Here", "Difference")
    words = (
        f"{both.board.source}. Over {len(both.models)} models that both have: Kendall {number(both.kendall)}, Spearman "
        f"{number(both.spearman)}. Ratings are minus their mean over these models."
    )
    parts: list[str] = [html.paragraph(words), html.table(head, rows)]
    for names, where in ((both.only_ours, "Only here"), (both.only_theirs, "Only on the board")):
        if names:
            parts.append(html.paragraph(f"{where}: {', '.join(names)}.", "soft"))
    return html.section(f"Compared with {both.board.name}", *parts, name="board")
