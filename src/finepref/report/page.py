"""report.html and report.md from the folders that the other commands wrote. No torch, no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finepref.arena.gap import gap_table
from finepref.core.files import write_text
from finepref.core.provenance import provenance
from finepref.report import curves, results, thumbnails
from finepref.report.charts import heat_map
from finepref.report.inputs import EvaluationFolder, Inputs, RunFolder, find_inputs
from finepref.report.kit import Cell, TextTable, render, table
from finepref.report.own import own_report
from finepref.report.paper_tables import published
from finepref.report.standings import Standings, standings
from finepref.report.wording import NONE, duration, number, significant, whole

STRIP = 8


def report(
    folders: str | Path | Iterable[str | Path], out: str | Path, *, title: str | None = None, metric: str | None = None,
    budget: int = thumbnails.BUDGET,
) -> Path:  # fmt: skip
    """Write `out` (html) and its neighbour with the suffix .md, both from one record.

    Args:
        folders: arena, run and evaluation folders, or folders that hold them.
        out: the html file.
        title: heading of the page; the result itself by default.
        metric: metric of the summary; the first that no training used by default.
        budget: bytes of pictures in the page.

    Returns:
        Path of the html file.

    Raises:
        InputError: nothing to report, or a folder is unfinished.
    """
    out = Path(out)
    with own_report(out) as text:
        inputs = find_inputs([folders] if isinstance(folders, str | Path) else folders)
        share = budget // max(1, len(inputs.evaluations))
        evaluations = [_evaluation(e, results.primary_metric(e, metric), share) for e in inputs.evaluations]
        boards = [standings(ratings) for ratings in inputs.arenas]
        runs = _in_model_order(inputs)
        made = provenance()
        record = {
            "title": title or (evaluations[0]["headline"] if evaluations else "Report"), "evaluations": evaluations,
            "tiles": _tiles(inputs, runs, boards), "runs": curves.run_table(runs) if runs else None,
            "curves": curves.curves(runs), "strips": _strips(runs), "made": made,
            "arenas": [{"standings": board, "gap_map": _gap_map(board)} for board in boards],
            "provenance": _provenance(inputs, made),
        }  # fmt: skip
        for path, template in ((out, "report.html.j2"), (text, "report.md.j2")):
            write_text(path, render(template, **record))
        return out


def _evaluation(evaluation: EvaluationFolder, metric: str, budget: int) -> dict[str, Any]:
    """What one evaluation says, by card."""
    comparison = evaluation.comparison
    colours = {model: place and 1 + (place - 1) % 6 for place, model in enumerate(comparison.in_order)}
    items = thumbnails.find_items(evaluation)
    chosen = thumbnails.choose(evaluation, items, metric, budget=budget)
    whole_items = [item for item in chosen if all(map(item.pictures.get, colours))]
    return {
        "about": comparison, "metric": metric, "colours": colours,
        "headline": results.headline(comparison, metric), "sentences": results.summary_sentences(comparison, metric),
        "strip": thumbnails.evenly([item for item in whole_items if item.seed == whole_items[0].seed], STRIP),
        "wins": results.win_charts(comparison, colours), "pairs": results.pair_table(comparison),
        "groups": results.group_charts(comparison, metric), "scores": results.score_tables(comparison),
        "missing": sum(row.missing for row in comparison.models), "spreads": results.spreads(evaluation, colours),
        "papers": published(evaluation), "shown": len(chosen), "total": len(items),
        "gallery": thumbnails.gallery_data(comparison, chosen, metric),
    }  # fmt: skip


def _in_model_order(inputs: Inputs) -> list[RunFolder]:
    """Runs in the order of the models of the same name, so that one colour means one model on the whole page."""
    order = [model for evaluation in inputs.evaluations[:1] for model in evaluation.comparison.in_order]
    return sorted(inputs.runs, key=lambda run: order.index(run.name) if run.name in order else len(order))


def _tiles(inputs: Inputs, runs: Sequence[RunFolder], boards: Sequence[Standings]) -> list[tuple[str, str]]:
    """The size of everything in a few big figures."""
    figures = []
    for evaluation in inputs.evaluations[:1]:
        images = evaluation.manifest.rows
        seeds = len({row.seed for row in images})
        figures = [
            (whole(len({(row.prompt_set, row.prompt_index) for row in images})), "prompts"),
            (whole(seeds), "seeds" if seeds > 1 else "seed"), (whole(len(images)), "images"),
            (whole(len(evaluation.comparison.in_order)), "models"),
        ]  # fmt: skip
    figures += [(whole(board.votes), "votes") for board in boards[:1]]
    return figures + [
        (duration(run.record.device_seconds), f"to train {run.name}")
        for run in runs[:2]
        if run.record.device_seconds is not None
    ]


def _strips(runs: Sequence[RunFolder]) -> list[tuple[tuple[str, int], list[thumbnails.Strip]]]:
    """Prompt -> a strip of every run that kept samples of it."""
    found: dict[tuple[str, int], list[thumbnails.Strip]] = {}
    for strip in (strip for run in runs for strip in thumbnails.read_strips(run)):
        found.setdefault((strip.prompt, strip.seed), []).append(strip)
    return list(found.items())


def _gap_map(board: Standings) -> Any:
    """What a vote for the row over the column is worth, by the paper's gap."""
    gap = board.pick(gap_table(board.ratings, "paper"))
    np.fill_diagonal(gap, np.nan)
    return heat_map(
        board.names, gap, title="Expected gap when the row beats the column", middle=0.0,
        reach=float(np.nanmax(gap, initial=1e-9)), show=lambda v: number(v, 1),
    )  # fmt: skip


def _provenance(inputs: Inputs, made: Mapping[str, Any]) -> list[tuple[str, TextTable]]:
    """Where every number comes from: models, scorers, files, versions."""
    found = []
    for evaluation in inputs.evaluations:
        made_with = evaluation.manifest.about
        sampled = {slot.split("/")[0]: settings for slot, settings in reversed([*made_with.sampling.items()])}
        models = [
            (name, about.origin, Cell(about.fingerprint[:16], look="code"), _sampling(sampled.get(name)))
            for name, about in made_with.models.items()
        ]
        scorers = [
            (name, Cell(", ".join(p[:16] for p in about.fingerprints), look="code"))
            for name, about in evaluation.comparison.metrics.items()
        ]
        found.append(("Models", table(("Model", "From", "Weights", "Sampling"), models, left=(0, 1, 2, 3))))
        found.append(("Scorers", table(("Metric", "Fingerprint"), scorers, left=(0, 1))))
    compared = [evaluation.comparison.provenance.get("inputs", {}) for evaluation in inputs.evaluations]
    files = {path: digest for given in compared for path, digest in given.items()}
    if files:
        hashes = [(path, Cell(digest[:16], look="code")) for path, digest in files.items()]
        found.append(("Files", table(("File", "SHA-256"), hashes, left=(0, 1))))
    return [*found, ("Versions", table(("Library", "Version"), made["versions"].items(), left=(0, 1)))]


def _sampling(settings: Mapping[str, Any] | None) -> str:
    if not settings:
        return NONE
    words = [f"{settings['steps']} steps", f"guidance {significant(settings['guidance'], 3)}"]
    words += [str(settings["scheduler"])] if settings.get("scheduler") else []
    return ", ".join(words + (["x".join(map(str, settings["size"]))] if settings.get("size") else []))
