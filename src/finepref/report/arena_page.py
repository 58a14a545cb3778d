"""arena.html: the page that people read, made from what was found about votes and ratings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from finepref.arena.clusters import named
from finepref.arena.findings import Findings
from finepref.arena.gap import GAPS, expected_gap
from finepref.arena.link import p_left_decisive
from finepref.arena.validate import in_sample_calibration
from finepref.core import files
from finepref.formats.validation import Validation
from finepref.report.charts import line_chart
from finepref.report.kit import Cell, TextTable, render, table
from finepref.report.standings import Standings, standings
from finepref.report.wording import NONE, number, percent, shorten, span, weight, whole

VOTERS_SHOWN, FEW_VOTERS, THIN, GROUPS = 30, 5, 12, 20
ENGINE_WORDS = {
    "batch": "batch, ties fitted",
    "batch_drop": "batch, ties dropped",
    "online": "online, ksort preset",
    "online_appendix_a": "online, Appendix A",
    "chosen": "the engine of this page",
}


def write_page(path: Path, found: Findings, made: Mapping[str, Any]) -> None:
    """Write the page of this arena."""
    shown = standings(found.ratings)
    record = {
        "found": found, "standings": shown, "tiles": _tiles(found, shown), "lead_wins": _lead_wins(found),
        "observed": _observed(found, shown), "calibration": _calibration(found), "engines": _engines(found.validation),
        "gaps": _gaps(found), "gap_chart": _gap_chart(found), "spread": _spread(found), "rho_chart": _rho_chart(found),
        "board": _board(found), "voters": _voters(found), "connections": _connections(found), "made": made,
        "groups": _groups(found), "counted": _counted(found), "sides": _sides(found),
        "thin": _thin(found), "method": _method(found, made),
    }  # fmt: skip
    files.write_text(path, render("arena.html.j2", **record))


def _tiles(found: Findings, shown: Standings) -> list[tuple[str, str]]:
    """The arena in figures."""
    votes = found.table.votes
    rows = [
        (weight(shown.votes or votes.total), "votes"), (whole(len(votes.models)), "models"),
        (percent(float(found.ratings.ties.sum() / max(found.ratings.games.sum(), 1e-9)), 0), "ties"),
    ]  # fmt: skip
    coded = {
        "voters": [votes.voter], "prompts": [votes.prompt], "K-wise games": [votes.game],
        "images": [votes.left_image, votes.right_image],
    }  # fmt: skip
    for word, columns in coded.items():
        held = [codes for codes in columns if codes is not None]
        most = max((1 + int(codes.max()) if word == "images" else named(codes) for codes in held), default=0)
        rows += [(whole(most), word)] if most else []
    agreed, count = found.ratings.agreement, found.ratings.counted
    rows += [] if agreed is None else [(number(agreed.alpha), "agreement (Krippendorff's α)")]
    left_out = 0 if count is None else sum(count.left_out.values())
    return rows + ([(whole(left_out), "rows left out")] if left_out else [])


def _counted(found: Findings) -> TextTable | None:
    """What became of the rows that were read."""
    count = found.ratings.counted
    if count is None:
        return None
    rows = [
        ("read", whole(count.read)), ("used", whole(count.used)), ("of a model against itself", whole(count.self)),
        *((f"left out: {reason}", whole(number)) for reason, number in count.left_out.items()),
    ]  # fmt: skip
    return table(("Votes", "Rows"), rows, left=(0,), wrap=(0,))


def _sides(found: Findings) -> TextTable | None:
    """Ratings without and with the side term, where the side decides votes."""
    side, ratings = found.ratings.side, found.ratings
    if side is None or not (side.warned or side.fitted):
        return None
    moved = np.array([side.beside[name] for name in ratings.models]) - ratings.mu
    moved = moved - np.average(moved, weights=ratings.games)
    rows = [
        (shorten(ratings.models[k], 60), number(mu), number(mu + moved[k]), number(moved[k], sign=True))
        for k, mu in ((k, ratings.mu[k]) for k in ratings.order())
    ]
    words = ("with the side term", "without") if side.fitted else ("without a side term", "with")
    return table(("Model", f"μ {words[0]}", f"μ {words[1]}", "Difference"), rows)


def _lead_wins(found: Findings) -> list[tuple[int, str]]:
    """(lead in rating units, share of decided votes that the better model wins)."""
    ratings, leads = found.ratings, (1, 3)
    shares = p_left_decisive(ratings.link, np.array(leads) / ratings.c, ratings.tie_margin / ratings.c)
    return [(lead, percent(float(share), 0)) for lead, share in zip(leads, shares, strict=True)]


def _observed(found: Findings, shown: Standings) -> tuple[Markup, Markup]:
    """The win matrices, observed and predicted; a cell tells both."""
    counts, predicted = found.counts.among(shown.order), found.ratings.predicted_wins(shown.order)
    wins, ties = counts.matrix("wins"), counts.matrix("ties")

    def tip(row: int, column: int) -> str:
        return (
            f"{shown.names[row]} against {shown.names[column]}: {weight(wins[row, column])} wins, "
            f"{weight(wins[column, row])} losses, {weight(ties[row, column])} ties; predicted "
            f"{percent(predicted[row, column], 0)}"
        )

    observed = shown.wins(counts.observed_wins(), "Observed", tip)
    return observed, shown.wins(predicted, "Predicted from the ratings", tip)


def _calibration(found: Findings) -> Markup:
    if found.validation is not None:
        bins = found.validation.calibration
    else:
        ratings = found.ratings
        bins = in_sample_calibration(found.table.votes, ratings.mu, ratings.tie_margin, ratings.link)
    return line_chart(
        [("votes", [b.predicted for b in bins], [b.observed for b in bins])], title="Calibration",
        x_axis="predicted chance to win", y_axis="observed", x_range=(0.0, 1.0), y_range=(0.0, 1.0), diagonal=True,
        dots=True, sizes=[b.votes for b in bins], width=420.0, height=340.0,
    )  # fmt: skip


def _engines(valid: Validation | None) -> TextTable | None:
    """Held-out scores of every engine, where they were asked for."""
    if valid is None:
        return None
    three = valid.log_loss_3way or {}
    rows = [
        (
            ENGINE_WORDS[name] + (" (this page)" if name == valid.chosen and name != "chosen" else ""),
            number(valid.log_loss[name], 4), number(valid.brier[name], 4), number(three.get(name), 4),
        )
        for name in sorted(valid.log_loss, key=lambda engine: valid.log_loss[engine])
    ]  # fmt: skip
    return table(("Engine", "Log-loss", "Brier", "3-way"), rows)


def _gaps(found: Findings) -> TextTable:
    rows = [
        (
            g.kind, GAPS[g.kind].about or "–", number(g.mean), span(g.quantiles[1], g.quantiles[3]),
            span(g.quantiles[0], g.quantiles[4]), number(g.rho),
        )
        for g in found.gaps
    ]  # fmt: skip
    return table(("Kind", "What it is", "Mean", "Middle half", "5 – 95 %", "ρ"), rows, left=(0, 1), wrap=(1,))


def _spread(found: Findings) -> float:
    """The ratings' uncertainty for a pair."""
    return float(np.sqrt(2.0 * np.mean(found.ratings.sigma**2)))


def _gap_chart(found: Findings) -> Markup:
    ratings = found.ratings
    lead = np.linspace(-1.0, 1.0, 81) * max(3.0, float(np.ptp(ratings.mu)))
    spreads = {"truncated": ratings.c, "paper": _spread(found)}
    return line_chart(
        [(name, lead.tolist(), expected_gap(lead, spread).tolist()) for name, spread in spreads.items()],
        title="Gap over rating difference", x_axis="rating of the winner minus the loser's", y_axis="gap",
    )  # fmt: skip


def _rho_chart(found: Findings) -> Markup | None:
    curve = found.curve
    if curve is None:
        return None
    best = max(curve.log_likelihood)
    return line_chart(
        [("log-likelihood", curve.grid, [v - best for v in curve.log_likelihood])], title="Likelihood of rho",
        x_axis="ρ, share of the noise that is the images' own", y_axis="log-likelihood, best = 0", dots=True,
        x_range=(0.0, 1.0), marks=[(curve.rho, f"ρ = {curve.rho:.2f}")] if curve.identified else (),
    )  # fmt: skip


def _board(found: Findings) -> TextTable | None:
    both = found.comparison
    if both is None:
        return None
    rows = [
        (both.models[k], *(number(value, sign=True) for value in (theirs, ours, ours - theirs)))
        for k in np.argsort(-both.theirs, kind="stable")
        for theirs, ours in [(both.theirs[k], both.ours[k])]
    ]
    return table(("Model", "Board", "Here", "Difference"), rows)


def _connections(found: Findings) -> list[tuple[str, str]]:
    """Who met whom how often, in figures."""
    counts = found.counts
    pairs = counts.n_models * (counts.n_models - 1) // 2
    met = int(np.count_nonzero(counts.i_wins + counts.j_wins + counts.ties))
    games, groups = counts.record().sum(axis=1), int(found.ratings.component.max()) + 1
    return [
        (whole(groups), "connected group" if groups == 1 else "groups that never met"),
        (percent(met / pairs if pairs else None, 0), f"of {whole(pairs)} pairs have met"),
        (weight(games.min()), "votes on the least seen model"),
        (weight(games.max()), "votes on the most seen model"),
    ]


def _groups(found: Findings) -> TextTable | None:
    ratings = found.ratings
    members = [np.flatnonzero(ratings.component == g) for g in range(int(ratings.component.max()) + 1)]
    rows = [
        (at, len(codes), ", ".join(shorten(ratings.models[k], 30) for k in codes[:8]))
        for at, codes in enumerate(members[:GROUPS], start=1)
    ]
    return table(("Group", "Models", "Names"), rows, left=(2,), wrap=(2,)) if len(members) > 1 else None


def _thin(found: Findings) -> TextTable:
    """The least seen models."""
    games, names = found.counts.record().sum(axis=1), found.ratings.models
    codes = sorted(range(len(names)), key=lambda k: (games[k], names[k]))[:THIN]
    return table(("Model", "Votes"), [(names[k], weight(games[k])) for k in codes])


def _voters(found: Findings) -> tuple[TextTable, TextTable | None] | None:
    """Those who stand out, or the busiest five; and more of the busiest."""
    check, names = found.voters, found.table.votes.models
    if check is None:
        return None
    flagged = len(check.flagged)
    rows = [
        (
            shorten(v.name, 24), weight(v.votes), *(number(z, 1, sign=True) for z in (v.agreement, v.side, v.fan)),
            shorten(names[v.fan_model], 26) if v.fan > 2 else NONE, "; ".join(v.reasons) or NONE,
        )
        for v in check.voters[: max(VOTERS_SHOWN, flagged)]
    ]  # fmt: skip
    head = ("Voter", "Votes", "Agreement", "Left side", "One model", "Which", "Flag")
    return table(head, rows, left=(0, 5, 6), wrap=(6,)).cut(max(flagged, FEW_VOTERS))


def _method(found: Findings, made: Mapping[str, Any]) -> dict[str, TextTable]:
    """Settings, files and columns behind the page."""
    ratings = found.ratings
    settings = {"engine": ratings.engine, **ratings.settings.given()}
    told = [(key.replace("_", " "), round(v, 4) if isinstance(v, float) else v) for key, v in settings.items()]
    hashes = [(name, Cell(digest, look="code")) for name, digest in made["inputs"].items()]
    return {
        "settings": table(("Setting", "Value"), told, left=(0, 1)),
        "files": table(("File", "SHA-256"), hashes, left=(0, 1)),
        "columns": table(("Role", "Column"), found.table.layout.columns.items(), left=(0, 1)),
    }
