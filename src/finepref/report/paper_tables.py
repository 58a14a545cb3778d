"""The papers' tables with the user's own rows among them."""

from __future__ import annotations

from dataclasses import dataclass

from finepref.evaluate import papers
from finepref.evaluate.papers import SET_ROWS, best_and_second, same_metric, tables_for
from finepref.evaluate.protocols import FAMILIES, load_protocol
from finepref.formats.comparison import Comparison
from finepref.report.inputs import EvaluationFolder
from finepref.report.kit import Cell, TextTable, table
from finepref.report.wording import number

Cells = list[float | None]


@dataclass(frozen=True, slots=True)
class Beside:
    """Tables (title, numbers, remarks) that this evaluation stands beside.

    main, ablations: of its own protocol and backbone. other: of another one, not comparable. notes: what the protocols
    leave open. short: which prompt sets are not whole.
    """

    main: tuple[tuple[str, TextTable, str], ...]
    ablations: tuple[tuple[str, TextTable, str], ...]
    other: tuple[tuple[str, TextTable, str], ...]
    notes: tuple[str, ...]
    short: tuple[str, ...]


def published(evaluation: EvaluationFolder) -> Beside | None:
    """The tables of the papers that share a prompt set and two metrics with this evaluation."""
    comparison, about = evaluation.comparison, evaluation.manifest.about
    tables = tables_for(list(comparison.metrics), comparison.prompt_sets) if comparison else []
    if comparison is None or not tables:
        return None
    families = {FAMILIES.get(model.pipeline, model.pipeline) for model in about.models.values()}
    known, protocols = len(families) == 1 and "" not in families, {*about.protocols.values()}
    own = [t for t in tables if t.protocol in protocols and (t.family in families or not known)]
    others = [t for t in tables if t not in own]
    main, ablations, other = (
        tuple((found.title, *_filled(comparison, found)) for found in part)
        for part in ([t for t in own if not t.ablation], [t for t in own if t.ablation], others)
    )
    notes = tuple(words for name in sorted(protocols) for words in load_protocol(name).deviations)
    return Beside(main, ablations, other, notes, _missing_prompts(evaluation))


def _missing_prompts(evaluation: EvaluationFolder) -> tuple[str, ...]:
    rows = {name: {r.prompt_index for r in evaluation.manifest.rows if r.prompt_set == name} for name in SET_ROWS}
    return tuple(
        f"This evaluation has {len(found):,} of the {SET_ROWS[name]:,} prompts of {name}; the printed rows have all."
        for name, found in rows.items()
        if 0 < len(found) < SET_ROWS[name]
    )


def user_rows(comparison: Comparison, paper: papers.PaperTable) -> dict[str, Cells]:
    """The rows of this evaluation in the layout of a table: its metrics, statistic and scale."""
    statistic = "median" if paper.statistic == "median" else "mean"
    own: dict[tuple[str, str | None], float | None] = {
        (r.model, r.metric): getattr(r, statistic) for r in comparison.models if r.prompt_set == paper.prompt_set
    }
    names = [same_metric(metric, list(comparison.metrics)) for metric in paper.metrics]
    return {
        model: [
            None if (value := own.get((model, name))) is None else value * scale
            for name, scale in zip(names, paper.scale, strict=True)
        ]
        for model in comparison.in_order
    }


def user_win_rates(comparison: Comparison, paper: papers.PaperTable) -> tuple[str, dict[str, Cells]]:
    """The model that wins most against the baseline, and its win rates in percent over every other model."""
    names = [same_metric(metric, list(comparison.metrics)) for metric in paper.metrics]
    pairs = comparison.pairs_of(prompt_set=paper.prompt_set)
    against = [row for row in pairs if (row.metric, row.against) == (names[0], comparison.baseline)]
    if not against:
        return "", {}
    best = max(against, key=lambda row: row.win_rate).model
    rates: dict[tuple[str | None, str], float] = {
        (row.metric, row.against): 100 * row.win_rate for row in pairs if row.model == best
    }
    return best, {model: [rates.get((name, model)) for name in names] for model in comparison.in_order}


def _filled(comparison: Comparison, paper: papers.PaperTable) -> tuple[TextTable, str]:
    """The printed rows with one's own below, the best and second of a column marked; and what to know about them."""
    own = {name: values for name, values in user_rows(comparison, paper).items() if any(v is not None for v in values)}
    best, rates = user_win_rates(comparison, paper) if paper.win_rates else ("", {})
    rows = [(name, list(values)) for name, values in (*paper.rows.items(), *own.items())]
    columns = [
        _column([values[at] for _, values in rows], _decimals(paper, at), lower=metric == "gpu-hours")
        for at, metric in enumerate(paper.metrics)
    ]
    lines = []
    for at, (name, _) in enumerate(rows):
        mine = at >= len(paper.rows)
        line, won = [Cell(name, badge="this evaluation" * mine)], (rates if mine else paper.win_rates or {}).get(name)
        for place, column in enumerate(columns):
            line.append(column[at])
            if paper.win_rates:
                line.append(Cell(number(won[place] if won else None, 1)))
        lines.append(line)
    head, remarks = ["Method"], [f"{paper.paper}, {paper.statistic}s."]
    for metric, label in zip(paper.metrics, paper.labels, strict=True):
        head += [label, "win rate"] if paper.win_rates else [label]
        yours = same_metric(metric, list(comparison.metrics))
        remarks += [f"{label} of yours is {yours}, of theirs {metric}."] if yours not in (None, metric) else []
    looks = ("",) * len(paper.rows) + ("own",) * len(own)
    if paper.win_rates:
        remarks.append(f"Win rates are of {paper.win_rate_of} over the row{f'; in your rows of {best}' * bool(best)}.")
    return table(head, lines, looks=looks), " ".join(remarks)


def _column(values: Cells, digits: int, *, lower: bool) -> list[Cell]:
    first, second = best_and_second(values, lower=lower)
    return [
        Cell(number(value, digits), look="best" if at in first else "second" if at in second else "")
        for at, value in enumerate(values)
    ]


def _decimals(paper: papers.PaperTable, place: int) -> int:
    printed = [row[place] for row in paper.rows.values() if row[place] is not None]
    return max((len(str(value).partition(".")[2]) for value in printed), default=2)
