"""report.html and report.md from the folders that the other commands wrote. No torch, no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from finepref.core.files import write_text
from finepref.core.provenance import provenance
from finepref.report import background, results
from finepref.report import thumbnails as images
from finepref.report.distributions import distributions
from finepref.report.html import STYLE, Raw, esc, paragraph, section, tiles
from finepref.report.inputs import Evaluation, Inputs, Run, find_inputs
from finepref.report.markdown import markdown
from finepref.report.paper_tables import published
from finepref.report.pieces import json_island, legend

STRIP = 8
LINKS = {"wins": "Win rates", "scores": "Scores", "papers": "Papers", "images": "Images"}


def report(
    folders: Iterable[str | Path],
    out: str | Path,
    *,
    title: str | None = None,
    metric: str | None = None,
    budget: int = images.BUDGET,
) -> Path:
    """Write `out` (html) and its neighbour with the suffix .md.

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
    inputs = find_inputs(folders)
    metrics = [results.primary_metric(evaluation, metric) for evaluation in inputs.evaluations]
    made = provenance()
    write_text(out, html_page(inputs, metrics, made, title=title, budget=budget))
    write_text(out.with_suffix(".md"), markdown(inputs, metrics, made, title=title))
    return out


def html_page(
    inputs: Inputs,
    metrics: Sequence[str],
    made: Mapping[str, object],
    *,
    title: str | None = None,
    budget: int = images.BUDGET,
) -> str:
    """The whole page as a string."""
    parts: list[Raw] = []
    links: list[tuple[str, str]] = []
    heads = []
    for number, (evaluation, metric) in enumerate(zip(inputs.evaluations, metrics, strict=True)):
        heads.append(results.headline(evaluation, metric))
        found = evaluation_parts(evaluation, metric, "" if number == 0 else f"-{number}", budget // len(metrics))
        parts += found.values()
        links += [(name, words) for name, words in LINKS.items() if found.get(name)] if number == 0 else []
    if inputs.runs:
        parts.append(background.training(in_model_order(inputs)))
        links.append(("training", "Training"))
    for number, arena in enumerate(inputs.arenas):
        parts.append(background.arena_section(arena, "arena" if number == 0 else f"arena-{number}"))
        links += [("arena", "Arena")] if number == 0 else []
    parts.append(background.provenance_section(inputs, made))
    links.append(("provenance", "Provenance"))
    heading = title or (heads[0] if heads else "Report")
    sentences = [s for e, m in zip(inputs.evaluations, metrics, strict=True) for s in results.summary_sentences(e, m)]
    return frame(heading, sentences, overview(inputs), links, parts, made)


def evaluation_parts(evaluation: Evaluation, metric: str, anchor: str, budget: int) -> dict[str, Raw]:
    """The sections of one evaluation by name; `anchor` is the end of their ids, `budget` the bytes of pictures."""
    colours = {model: place for place, model in enumerate(evaluation.models)}
    items = images.find_items(evaluation)
    chosen = images.choose(evaluation, items, metric, budget=budget)
    return {
        "strip": strip(evaluation, chosen),
        "wins": results.win_rates(evaluation, colours, metric, anchor=anchor),
        "scores": results.score_table(evaluation, distributions(evaluation, colours), anchor=anchor),
        "papers": published(evaluation, anchor=anchor),
        "images": gallery(evaluation, chosen, metric, len(items), anchor),
    }


def in_model_order(inputs: Inputs) -> list[Run]:
    """Runs in the order of the models of the same name, so that one colour means one model on the whole page."""
    order = [model for evaluation in inputs.evaluations[:1] for model in evaluation.models]
    return sorted(inputs.runs, key=lambda run: order.index(run.name) if run.name in order else len(order))


def overview(inputs: Inputs) -> Raw:
    """The size of everything in a few big figures."""
    figures: list[tuple[object, object]] = []
    for evaluation in inputs.evaluations[:1]:
        prompts = {(row.prompt_set, row.prompt_index) for row in evaluation.rows}
        seeds = {row.seed for row in evaluation.rows}
        figures += [(f"{len(prompts):,}", "prompts"), (len(seeds), "seeds" if len(seeds) > 1 else "seed")]
        figures += [(f"{len(evaluation.rows):,}", "images"), (len(evaluation.models), "models")]
    if inputs.arenas:
        ratings = inputs.arenas[0].ratings
        figures.append((f"{int(ratings.wins.sum() + ratings.ties.sum() // 2):,}", "votes"))
    for run in in_model_order(inputs)[:2]:
        seconds = background.duration(run.about.get("device_seconds"))
        if seconds != "–":
            figures.append((seconds, f"to train {run.name}"))
    return tiles(figures)


def strip(evaluation: Evaluation, items: Sequence[images.Item]) -> Raw:
    """A row of pictures per model at a few evenly spaced prompts, all from the same noise."""
    whole = [item for item in items if all(item.pictures.get(model) for model in evaluation.models)]
    first_seed = [item for item in whole if item.seed == whole[0].seed]
    count = min(STRIP, len(first_seed))
    if not count:
        return Raw("")
    shown = [first_seed[round(k * (len(first_seed) - 1) / max(1, count - 1))] for k in range(count)]
    tiny = all(max(row.size) <= images.TINY for item in shown for row in item.rows.values())
    rows = "".join(
        f'<div class="row c{place}"><span class=who><i class=swatch></i>{esc(model)}</span>'
        f"{''.join(_picture(item, model) for item in shown)}</div>"
        for place, model in enumerate(evaluation.models)
    )
    words = paragraph(
        "Every column is one prompt and one seed: the same noise, another model. Evenly spaced, not picked.", "soft"
    )
    return Raw(f'<div class="strip{" tiny" if tiny else ""}" style="--count:{count}">{rows}</div>{words}')


def _picture(item: images.Item, model: str) -> str:
    words = esc(item.prompt)
    return f'<img src="{esc(item.pictures[model])}" alt="{esc(model)}: {words}" title="{words}">'


def gallery(evaluation: Evaluation, items: Sequence[images.Item], metric: str, total: int, anchor: str) -> Raw:
    """The place where the page's script shows images side by side, and its data; `total` counts all sets of images."""
    name = f"images{anchor}"
    which = "Equal prompt, equal seed, equal noise."
    if len(items) < total:
        which += f" {len(items):,} of {total:,} sets of images: evenly spread ones, and large wins and losses."
    script_off = paragraph("Switch scripts on to see the images.")
    return section(
        "Side by side",
        paragraph(which, "soft"),
        legend([(model, place) for place, model in enumerate(evaluation.models)]),
        Raw(f'<div class=gallery data-source="{name}-data"><noscript>{script_off}</noscript></div>'),
        json_island(images.gallery_data(evaluation, items, metric), f"{name}-data"),
        name=name,
    )


def frame(
    title: str,
    sentences: Sequence[str],
    figures: Raw,
    links: Sequence[tuple[str, str]],
    parts: Sequence[Raw],
    made: Mapping[str, object],
) -> str:
    """The document around the parts: style, navigation, and a policy that runs this page's script and nothing else."""
    assets = resources.files("finepref.report") / "assets"
    style = STYLE + (assets / "report.css").read_text(encoding="utf-8")
    script = (assets / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{digest}'"
    )
    nav = "".join(f'<a href="#{esc(anchor)}">{esc(words)}</a>' for anchor, words in links)
    lead = "".join(paragraph(sentence, "lead") for sentence in sentences)
    versions = made.get("versions")
    footer = (
        f"finepref {versions.get('finepref', '') if isinstance(versions, dict) else ''} · {made.get('created', '')}"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{esc(title)}</title><style>{style}</style></head>\n"
        f'<body><a class=skip href="#main">Skip to the result</a><nav aria-label="Sections"><div>{nav}</div></nav>'
        f"<main id=main><header><h1>{esc(title)}</h1>{lead}{figures}</header>\n"
        + "\n".join(parts)
        + f"\n<footer>{esc(footer)}</footer></main><script>{script}</script></body></html>\n"
    )
