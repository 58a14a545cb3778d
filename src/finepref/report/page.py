"""report.html and report.md from the folders that the other commands wrote. No torch, no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finepref.arena.gap import gap_table
from finepref.core.errors import InputError
from finepref.core.files import write_text
from finepref.core.progress import say
from finepref.core.provenance import provenance
from finepref.formats.comparison import Comparison
from finepref.report import curves, results, thumbnails
from finepref.report.best_votes import best_votes
from finepref.report.charts import heat_map
from finepref.report.costs import costs, placed
from finepref.report.inputs import EvaluationFolder, Inputs, RunFolder, find_inputs
from finepref.report.kit import Cell, TextTable, render, table
from finepref.report.own import own_report
from finepref.report.paper_tables import published
from finepref.report.rounds_card import rounds_cards
from finepref.report.standings import Standings, standings
from finepref.report.wording import NONE, duration, number, significant, whole
from finepref.train.diagnose import RunFinding

STRIP = 8


def report(
    folders: str | Path | Iterable[str | Path], out: str | Path, *, title: str | None = None, metric: str | None = None,
    budget: int = thumbnails.BUDGET,
) -> Path:  # fmt: skip
    """Write `out` (html) and its neighbour with the suffix .md, both from one record.

    Every folder is shown as far as its stage went; what is missing is counted on the page and on stderr.

    Args:
        folders: arena, run and evaluation folders, checkpoints of runs, or folders that hold them.
        out: the html file.
        title: heading of the page; the result itself by default.
        metric: metric of the summary; the first that no training used by default.
        budget: bytes of pictures in the page.

    Returns:
        Path of the html file.

    Raises:
        InputError: nothing to report, a file that cannot be read, or a metric where nothing is scored.
    """
    out = Path(out)
    with own_report(out) as text:
        inputs = find_inputs([folders] if isinstance(folders, str | Path) else folders)
        if metric is not None and not any(e.metrics for e in inputs.evaluations):
            remedy = "leave it out, or run `finepref score` first"
            raise InputError("nothing here is scored", where="metric", remedy=remedy)
        record = _record(inputs, title=title, metric=metric, budget=budget)
        for path, template in ((out, "report.html.j2"), (text, "report.md.j2")):
            write_text(path, render(template, **record))
    for evaluation in record["evaluations"]:
        for words in evaluation["gone"]:
            say(f"{evaluation['name']}: {words}")
    return out


def _record(inputs: Inputs, *, title: str | None, metric: str | None, budget: int) -> dict[str, Any]:
    """What the templates show."""
    share = budget // max(1, len(inputs.evaluations))
    evaluations = [_evaluation(e, results.primary_metric(e, metric), share) for e in inputs.evaluations]
    boards = [standings(arena.ratings) for arena in inputs.arenas]
    runs = _in_model_order(inputs)
    found, made = curves.findings(runs, inputs.evaluations), provenance()
    said = found if evaluations and all(each.comparison is None for each in inputs.evaluations) else []
    return {
        "title": title or _heading(inputs, evaluations, runs, boards, said), "evaluations": evaluations,
        "told": [f"{run}: {found}" for run, found in said],
        "tiles": _tiles(inputs, runs, boards), "runs": curves.run_table(runs) if runs else None,
        "findings": found,
        "costs": costs(runs), "placed": placed(inputs.ksorts), "curves": curves.curves(runs),
        "strips": _strips(runs), "made": made, "rounds": rounds_cards(inputs.rounds),
        "best": [(study.name, shares) for study in inputs.studies if (shares := best_votes(study.folder))],
        "arenas": [
            {"name": arena.name, "standings": board, "gap_map": _gap_map(board)}
            for arena, board in zip(inputs.arenas, boards, strict=True)
        ],
        "provenance": _provenance(inputs),
        "versions": table(("Library", "Version"), made["versions"].items(), left=(0, 1)),
    }  # fmt: skip


def _heading(
    inputs: Inputs, evaluations: Sequence[Mapping[str, Any]], runs: Sequence[RunFolder], boards: Sequence[Standings],
    said: Sequence[tuple[str, RunFinding]],
) -> str:  # fmt: skip
    """What is compared, in a line. said: what runs learned whose pictures nobody compared; the first stands for all."""
    if said:
        return str(said[0][1].text.partition(":")[0])
    if runs and all(run.record is not None and run.record.kept == 0 for run in runs):
        return "The model was left as it was" if len(runs) == 1 else "All runs left their model as it was"
    if evaluations:
        return str(evaluations[0]["headline"])
    if runs:
        return f"Training of {results.side_by_side([run.name for run in runs])}"
    if boards:
        return f"{whole(len(boards[0].ratings.models))} models by {whole(boards[0].votes)} votes"
    return "Places on the K-Sort leaderboard" if inputs.ksorts else "Nothing was voted on yet"


def _evaluation(evaluation: EvaluationFolder, metric: str | None, budget: int) -> dict[str, Any]:
    """What one evaluation says, by card."""
    models, comparison = evaluation.models, evaluation.comparison
    colours = {model: place and 1 + (place - 1) % 6 for place, model in enumerate(models)}
    items = thumbnails.find_items(evaluation)
    chosen = thumbnails.choose(evaluation, items, metric, budget=budget)
    whole_items = [item for item in chosen if all(map(item.pictures.get, colours))]
    return {
        "name": evaluation.name, "about": comparison, "metric": metric, "colours": colours,
        "strip": thumbnails.evenly([item for item in whole_items if item.seed == whole_items[0].seed], STRIP),
        "spreads": results.spreads(evaluation, colours), "papers": published(evaluation),
        "shown": len(chosen), "total": len(items), "gone": thumbnails.gone(evaluation, chosen),
        "stage": _stage(evaluation), "gallery": thumbnails.gallery_data(evaluation, chosen, metric),
        **(_compared(comparison, metric, colours) if comparison and metric else _alone(evaluation)),
    }  # fmt: skip


def _compared(comparison: Comparison, metric: str, colours: Mapping[str, int]) -> dict[str, Any]:
    return {
        "headline": results.headline(comparison, metric), "sentences": results.summary_sentences(comparison, metric),
        "wins": results.win_charts(comparison, colours), "pairs": results.pair_table(comparison),
        "groups": results.group_charts(comparison, metric), "scores": results.score_tables(comparison),
        "missing": sum(row.missing for row in comparison.models), "notes": results.notes(comparison),
    }  # fmt: skip


def _alone(evaluation: EvaluationFolder) -> dict[str, Any]:
    """What is said of images that nobody compared."""
    names, together = results.side_by_side(evaluation.models), ", side by side" * (len(evaluation.models) > 1)
    return {"headline": f"Images of {names}{together}", "sentences": []}


def _stage(evaluation: EvaluationFolder) -> list[str]:
    """What has not been done yet, and the command that does it."""
    if not evaluation.metrics:
        return ["No scores yet: look and vote here. finepref score adds scores, and finepref compare win rates."]
    if evaluation.comparison is None:
        return ["The images are scored, not compared yet: finepref compare adds win rates with intervals."]
    others = [model for model in evaluation.models if model not in evaluation.comparison.in_order]
    return [f"Not compared, because not scored then: {', '.join(others)}."] if others else []


def _in_model_order(inputs: Inputs) -> list[RunFolder]:
    """Runs in the order of the models of the same name, so that one colour means one model on the whole page."""
    order = [model for evaluation in inputs.evaluations[:1] for model in evaluation.models]
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
            (whole(models := len(evaluation.models)), "models" if models > 1 else "model"),
        ]  # fmt: skip
    figures += [(whole(board.votes), "votes") for board in boards[:1]]
    return figures + [
        (duration(run.record.device_seconds), f"to train {run.name}")
        for run in runs[:2]
        if run.record is not None and run.record.device_seconds is not None
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


def _provenance(inputs: Inputs) -> list[tuple[str, TextTable]]:
    """Where every number comes from: models, scorers, files."""
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
            for name, about in evaluation.metrics.items()
        ]
        if models:
            found.append(("Models", table(("Model", "From", "Weights", "Sampling"), models, left=(0, 1, 2, 3))))
        if scorers:
            found.append(("Scorers", table(("Metric", "Fingerprint"), scorers, left=(0, 1))))
    compared = [e.comparison.provenance.get("inputs", {}) for e in inputs.evaluations if e.comparison]
    files = {path: digest for given in compared for path, digest in given.items()}
    if files:
        hashes = [(path, Cell(digest[:16], look="code")) for path, digest in files.items()]
        found.append(("Files", table(("File", "SHA-256"), hashes, left=(0, 1))))
    return found


def _sampling(settings: Mapping[str, Any] | None) -> str:
    if not settings:
        return NONE
    words = [f"{settings['steps']} steps", f"guidance {significant(settings['guidance'], 3)}"]
    words += [str(settings["scheduler"])] if settings.get("scheduler") else []
    words += [f"led away from a second network ({settings['negative'][:8]})"] if settings.get("negative") else []
    return ", ".join(words + (["x".join(map(str, settings["size"]))] if settings.get("size") else []))
