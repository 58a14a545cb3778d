"""The cards of arena.html about trust: prediction, order, connections, voters, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from finepref.arena.findings import Findings
from finepref.arena.validate import in_sample_calibration
from finepref.formats.validation import Bin
from finepref.report import charts, html
from finepref.report.html import Raw, number

VOTERS_SHOWN = 30
ENGINE_WORDS = {
    "batch": "batch, ties fitted",
    "batch_drop": "batch, ties dropped",
    "online": "online, ksort preset",
    "online_appendix_a": "online, Appendix A",
    "chosen": "the engine of this page",
}


def prediction_card(found: Findings) -> Raw:
    """Calibration, and the held-out scores where they were asked for."""
    valid = found.validation
    if valid is not None:
        bins, words = valid.calibration, "Held-out votes of the engine of this page"
    else:
        link = found.ratings.link
        bins = in_sample_calibration(found.table.votes, found.ratings.mu, found.ratings.tie_margin, link)
        words = "The very votes that the ratings were made from (held-out votes: --validate 5)"
    chart = _calibration(bins)
    caption = (
        f"{words}: a dot on the dashed line means that what was predicted happens as often. Bigger dots, more votes."
    )
    if valid is None:
        return html.section("Do the ratings predict votes?", html.figure(chart, caption), name="prediction")
    three = valid.log_loss_3way or {}
    rows = [
        (
            ENGINE_WORDS[name] + (" (this page)" if name == valid.chosen and name != "chosen" else ""),
            number(valid.log_loss[name], 4), number(valid.brier[name], 4), number(three.get(name), 4),
        )
        for name in sorted(valid.log_loss, key=lambda engine: valid.log_loss[engine])
    ]  # fmt: skip
    table = html.table(("Engine", "Log-loss", "Brier", "3-way"), rows)
    note = (
        f"{valid.folds} folds, mean over 5 ways to fold; {valid.n:,} decided votes, each predicted by ratings that "
        "never saw it. Lower is better; log-loss 0.6931 and Brier 0.25 are a coin. The 3-way score counts ties as an "
        "outcome and needs a tie margin."
    )
    return html.section(
        "Do the ratings predict votes?",
        html.pair(html.figure(chart, caption), table + html.paragraph(note, "soft")), name="prediction",
    )  # fmt: skip


def _calibration(bins: tuple[Bin, ...]) -> Raw:
    return charts.line_chart(
        [("votes", [b.predicted for b in bins], [b.observed for b in bins])], title="Calibration",
        x_axis="predicted chance to win", y_axis="observed", x_range=(0.0, 1.0), y_range=(0.0, 1.0), diagonal=True,
        dots=True, sizes=[b.votes for b in bins], width=420.0, height=340.0,
    )  # fmt: skip


def order_card(found: Findings) -> Raw | None:
    """What shuffling the votes does to the online engine."""
    order = found.order
    if order is None:
        return None
    batch = found.ratings.engine == "batch"
    first = "This page's ratings do not depend on the order of the votes." if batch else "These ratings do."
    sample = "the" if order.votes == len(found.table.votes) else "a sample of"
    winners = "the same model always came first" if order.winners == 1 else f"{order.winners} models came first"
    words = (
        f"{first} The online engine's ({order.preset}) do: over {order.shuffles} shuffles of {sample} {order.votes:,} "
        f"votes a model's rating moves by ±{number(float(np.mean(order.sd)))} (standard deviation), "
        f"{100 * order.swaps:.0f} % of neighbours change places, {winners}, and two shuffles agree to Kendall "
        f"{number(order.kendall)}."
    )
    return html.section("Does the order of the votes matter?", html.paragraph(words), name="order")


def connection_card(found: Findings) -> Raw:
    """Who met whom how often."""
    counts, ratings = found.counts, found.ratings
    m = counts.n_models
    games = ratings.wins + ratings.losses + ratings.ties
    pairs = m * (m - 1) // 2
    met = int(np.count_nonzero(counts.i_wins + counts.j_wins + counts.ties))
    groups = int(ratings.component.max()) + 1
    tiles = html.tiles(
        (
            (groups, "connected group" if groups == 1 else "groups that never met"),
            (f"{100 * met / pairs:.0f} %" if pairs else "–", f"of {pairs:,} pairs have met"),
            (f"{int(games.min()):,}", "votes on the least seen model"),
            (f"{int(games.max()):,}", "votes on the most seen model"),
        )
    )
    parts: list[str] = [tiles]
    own = len(found.table.votes) - int(counts.total)
    if own:
        parts.append(html.paragraph(f"{own:,} votes pit a model against itself; they move no rating."))
    if groups > 1:
        rows = [
            (g + 1, int(np.sum(ratings.component == g)), ", ".join(
                charts.shorten(ratings.models[k], 30) for k in np.flatnonzero(ratings.component == g)[:8]))
            for g in range(min(groups, 20))
        ]  # fmt: skip
        parts.append(html.table(("Group", "Models", "Names"), rows, left=(2,)))
    thin = sorted(range(m), key=lambda k: (games[k], ratings.models[k]))[: min(m, 12)]
    bars = charts.bar_chart(
        [(ratings.models[k], float(games[k])) for k in thin], title="Votes of the least seen models", axis="votes",
        digits=0, width=620.0,
    )  # fmt: skip
    parts.append(html.details("The least seen models", html.figure(bars)))
    return html.section("Enough votes, all connected?", *parts, name="connections")


def voter_card(found: Findings) -> Raw | None:
    """Voters who stand out."""
    check = found.voters
    if check is None:
        return None
    flagged = check.flagged
    words = (
        f"{check.checked:,} of {check.total:,} voters cast at least 10 decided votes. Three questions to each: do they "
        "agree with the others, do they click one side, do they always prefer one model? Every figure is a z value, "
        "about −2 to 2 for an honest voter. The limits are set so that a check flags anybody in 1 of 100 arenas of "
        "honest voters."
    )
    names = found.table.votes.models
    rows = [
        (
            charts.shorten(v.name, 24), f"{v.votes:,}", number(v.agreement, 1, sign=True), number(v.side, 1, sign=True),
            number(v.fan, 1, sign=True), charts.shorten(names[v.fan_model], 26) if v.fan > 2 else "–",
            "; ".join(v.reasons) or "–",
        )
        for v in check.voters[: max(VOTERS_SHOWN, len(flagged))]
    ]  # fmt: skip
    stand = "1 voter stands out" if len(flagged) == 1 else f"{len(flagged)} voters stand out"
    verdict = html.note("No voter stands out.")
    if flagged:
        cast = sum(v.votes for v in flagged)
        warning = f"{stand}, with {cast:,} decided votes. A flag is a question, not a proof; their votes are counted."
        verdict = html.note(warning, warn=True)
    head = ("Voter", "Votes", "Agreement", "Left side", "One model", "Which", "Flag")
    cut = max(len(flagged), 5)
    shown, rest = (html.table(head, part, left=(0, 5, 6), wrap=(6,)) for part in (rows[:cut], rows[cut:]))
    parts: list[str] = [html.paragraph(words, "soft"), verdict, shown]
    if rows[cut:]:
        parts.append(html.details("More voters, the busiest first", rest))
    return html.section("Voters", *parts, name="voters")


def method_card(found: Findings, made: Mapping[str, Any]) -> Raw:
    """How the page was made."""
    ratings, table = found.ratings, found.table
    settings = {"engine": ratings.engine, **ratings.settings.given()}
    rows = [(key.replace("_", " "), round(v, 4) if isinstance(v, float) else v) for key, v in settings.items()]
    batch = (
        "All votes at once: the ratings are the most probable ones when a vote goes to the left model with probability "
        "F((μ_left − μ_right − m)/c), c = √2·25/6, F the link, m the dead zone of ties, under the prior named below."
    )
    online = (
        "One vote after the other: each vote replaces the two ratings by normal ones with the exact mean and variance. "
        "The published recipe; its σ is mostly the random walk τ that the preset adds at every vote."
    )
    inputs = [(name, digest) for name, digest in made["inputs"].items()]
    return html.section(
        "How this was made",
        html.paragraph(batch if ratings.engine == "batch" else online),
        html.details("Settings", html.table(("Setting", "Value"), rows, left=(0, 1))),
        html.details(
            f"Votes: {len(inputs)} file{'s' if len(inputs) != 1 else ''}, schema {table.layout.schema}",
            html.table(("File", "SHA-256"), inputs, left=(0, 1)),
            html.table(("Role", "Column"), list(table.layout.columns.items()), left=(0, 1)),
        ),
        name="method",
    )
