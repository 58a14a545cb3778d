"""The papers' tables with the user's own rows among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finepref.evaluate.papers import SET_ROWS, Table, best_and_second, same_metric, tables_for
from finepref.evaluate.protocols import FAMILIES, load_protocol
from finepref.report.html import Raw, details, esc, heading, note, paragraph, section
from finepref.report.inputs import Evaluation
from finepref.report.results import pairs_of

Cells = list[float | None]


def protocols_of(evaluation: Evaluation) -> set[str]:
    """Names of the protocols that the images were made by; empty for settings of one's own."""
    return set(evaluation.record.get("protocols", {}).values())


def family_of(evaluation: Evaluation) -> str | None:
    """The backbone of all models of an evaluation, where it is known and one."""
    kinds = {about.get("pipeline") for about in evaluation.record.get("models", {}).values()}
    families = {FAMILIES.get(str(kind), str(kind)) for kind in kinds if kind}
    return next(iter(families)) if len(families) == 1 and len(kinds) == 1 else None


def published(evaluation: Evaluation, *, anchor: str = "") -> Raw:
    """The tables of the papers that this evaluation can stand beside: its own protocol and backbone first."""
    comparison = evaluation.comparison
    tables = tables_for(list(comparison["metrics"]), comparison["prompt_sets"])
    if not tables:
        return Raw("")
    used, family = protocols_of(evaluation), family_of(evaluation)
    own = [table for table in tables if table.protocol in used and family in (None, table.family)]
    main = [table for table in own if not table.ablation]
    ablations = [table for table in own if table.ablation]
    other = [table for table in tables if table not in own]
    parts: list[str] = [
        paragraph("Printed rows and, marked, the rows of this evaluation. Bold best, underlined second.")
    ]
    parts += [note(words) for name in sorted(used) for words in load_protocol(name).deviations]
    parts += [note(words, warn=True) for words in _missing_prompts(evaluation)]
    parts += [_table(evaluation, table) for table in main]
    if ablations:
        parts.append(details(f"{len(ablations)} ablation tables", *(_table(evaluation, t) for t in ablations)))
    if other:
        words = (
            "These tables are of another protocol or backbone (guidance, noise, preprocessing or statistic differ): "
            "their rows and yours are not comparable number by number."
        )
        block = [note(words, warn=True), *(_table(evaluation, table) for table in other)]
        parts.append(details(f"{len(other)} tables of other protocols or backbones", *block))
    return section("Beside the papers", *parts, name=f"papers{anchor}")


def _missing_prompts(evaluation: Evaluation) -> list[str]:
    rows = {name: {r.prompt_index for r in evaluation.rows if r.prompt_set == name} for name in SET_ROWS}
    return [
        f"This evaluation has {len(found):,} of the {SET_ROWS[name]:,} prompts of {name}; the printed rows have all."
        for name, found in rows.items()
        if 0 < len(found) < SET_ROWS[name]
    ]


def user_rows(evaluation: Evaluation, table: Table) -> dict[str, Cells]:
    """The rows of this evaluation in the layout of a table: its metrics, statistic and scale."""
    known = list(evaluation.comparison["metrics"])
    statistic = "median" if table.statistic == "median" else "mean"
    rows: dict[str, Cells] = {}
    for model in evaluation.models:
        cells: Cells = []
        for metric, scale in zip(table.metrics, table.scale, strict=True):
            name = same_metric(metric, known)
            found = _model_row(evaluation, table.prompt_set, model, name) if name else None
            cells.append(found[statistic] * scale if found and found[statistic] is not None else None)
        rows[model] = cells
    return rows


def _model_row(evaluation: Evaluation, prompt_set: str | None, model: str, metric: str) -> Mapping[str, Any] | None:
    wanted = (prompt_set, model, metric)
    rows = evaluation.comparison["models"]
    return next((row for row in rows if (row["prompt_set"], row["model"], row["metric"]) == wanted), None)


def user_win_rates(evaluation: Evaluation, table: Table) -> tuple[str, dict[str, Cells]]:
    """The model that wins most against the baseline, and its win rates in percent over every other model."""
    known = list(evaluation.comparison["metrics"])
    first = same_metric(table.metrics[0], known)
    baseline = evaluation.comparison["baseline"]
    against = pairs_of(evaluation, prompt_set=table.prompt_set, metric=first, against=baseline)
    if not against:
        return "", {}
    best = max(against, key=lambda row: row["win_rate"])["model"]
    rates: dict[str, Cells] = {}
    for model in evaluation.models:
        cells: Cells = []
        for metric in table.metrics:
            rows = pairs_of(
                evaluation, prompt_set=table.prompt_set, metric=same_metric(metric, known), model=best, against=model
            )
            cells.append(100 * rows[0]["win_rate"] if rows else None)
        rates[model] = cells
    return best, rates


def _table(evaluation: Evaluation, table: Table) -> Raw:
    yours = user_rows(evaluation, table)
    best, rates = user_win_rates(evaluation, table) if table.win_rates else ("", {})
    rows = [(name, list(values), False) for name, values in table.rows.items()]
    rows += [(name, values, True) for name, values in yours.items() if any(value is not None for value in values)]
    marks = [
        best_and_second([values[place] for _, values, _ in rows], lower=metric == "gpu-hours")
        for place, metric in enumerate(table.metrics)
    ]
    head = "<th class=l>Method</th>"
    for label in table.labels:
        head += f"<th>{esc(label)}</th>" + ("<th>win rate</th>" if table.win_rates else "")
    lines = []
    for line, (name, values, own) in enumerate(rows):
        printed = rates.get(name) if own else (table.win_rates or {}).get(name)
        cells = f"<td class=l>{esc(name)}{' <span class=yours>this evaluation</span>' if own else ''}</td>"
        for place, value in enumerate(values):
            kind = "best" if line in marks[place][0] else "second" if line in marks[place][1] else ""
            cells += f"<td class={kind or 'plain'}>{_number(value, _decimals(table, place))}</td>"
            if table.win_rates:
                rate = printed[place] if printed else None
                cells += f"<td>{_number(rate, 1)}</td>"
        lines.append(f"<tr{' class=own' if own else ''}>{cells}</tr>")
    notes = _notes(evaluation, table)
    if table.win_rates:
        notes.append(
            f"Win rates are of {table.win_rate_of} over the row" + (f"; in your rows of {best}." if best else ".")
        )
    body = f"<table class=paper><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    words = paragraph(" ".join([f"{table.paper}, {table.statistic}s.", *notes]), "soft")
    return Raw(f"{heading(table.title)}<div class=scroll tabindex=0>{body}</div>{words}")


def _notes(evaluation: Evaluation, table: Table) -> list[str]:
    known = list(evaluation.comparison["metrics"])
    different = [
        f"{label} of yours is {name}, of theirs {metric}."
        for metric, label in zip(table.metrics, table.labels, strict=True)
        if (name := same_metric(metric, known)) is not None and name != metric
    ]
    return different


def _decimals(table: Table, place: int) -> int:
    printed = [row[place] for row in table.rows.values() if row[place] is not None]
    return max((len(str(value).partition(".")[2]) for value in printed), default=2)


def _number(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:.{decimals}f}".replace("-", "−")


def markdown_tables(evaluation: Evaluation) -> Sequence[tuple[str, Sequence[str], list[list[str]]]]:
    """(title, header, rows) of the tables of this evaluation's own protocol, for the text report."""
    comparison = evaluation.comparison
    used = protocols_of(evaluation)
    found = []
    for table in tables_for(list(comparison["metrics"]), comparison["prompt_sets"]):
        if table.protocol in used:
            rows = [
                [name, *(_number(value, _decimals(table, place)) for place, value in enumerate(values))]
                for name, values in [*table.rows.items(), *user_rows(evaluation, table).items()]
            ]
            found.append((f"{table.paper}, {table.title}", ("Method", *table.labels), rows))
    return found
