"""docs/study.md: what the rows of a study say, written from the rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError
from finepref.core.files import read_json, write_text
from finepref.core.interval import Interval
from finepref.report.kit import render
from finepref.report.own import check_study
from finepref.study.arms import read_row, tuning_file, tuning_identity
from finepref.study.claims import GOES_ON, MARGIN, WORDS, tuned_means, verdicts
from finepref.study.contrasts import Row, contrast, read_rows, seeds_of
from finepref.study.design import BASE, Group, Study, grid, strength_option

LIBRARIES = ("python", "torch", "diffusers")


def write_page(study: Study, *, rows: Path, page: Path, world: str, config: str = "") -> None:
    """Write the page. world: hash of the lab that the rows must come from.

    Raises:
        InputError: there is no row of the base model yet, or a row of other settings or another lab.
    """
    check_study(page)
    found = read_rows(rows, study, world=world)
    if not seeds_of(found.get(BASE, {})):
        raise InputError("no row of the base model", where=rows, remedy="run `finepref lab study` first")
    groups = [_group(group, study, found) for group in study.groups if any(arm.name in found for arm in group.arms)]
    record = {
        "study": study, "folder": rows.as_posix(), "page": page.as_posix(), "config": config,
        "rates": _listed(study.tuning.learning_rate), "strengths": _listed(study.tuning.strength),
        "noisy": any(arm.reward == "own" for arm in study.arms()),
        "claims": _claims(study, found, tuned_means(study, rows, world=world)), "margin": MARGIN,
        "groups": groups, "tuned": _tuned(study, rows, world), "cost": _cost(study, rows, found),
    }  # fmt: skip
    write_text(page, render("study.md.j2", **record))


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _gain(value: Interval) -> str:
    return f"{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"


def _wins(value: Interval) -> str:
    return f"{value.value:.1%} [{value.low:.1%}, {value.high:.1%}]"


def _claims(study: Study, rows: dict[str, Row], tuned: dict[str, float]) -> dict[str, Any]:
    """A row a claim, and how many hold, fail, are equivalent, undecided or have no result yet."""
    found = verdicts(study, rows, tuned)
    labels = {arm.name: arm.label or arm.name for arm in study.arms()}
    several = {claim.text for claim in study.claims if len(claim.opponents) > 1}
    body = [
        (
            f"{verdict.text}{f', here {labels[verdict.than]}' if verdict.text in several else ''} ({verdict.source})",
            _gain(verdict.contrast.gain), _wins(verdict.contrast.wins),
            f"{round(verdict.contrast.agree * len(verdict.contrast.by_seed))} of {len(verdict.contrast.by_seed)}",
            "" if verdict.word == GOES_ON else f"{verdict.p:.3f}" if verdict.p >= 0.001 else "< 0.001",
            f"**{verdict.word}**",
        )
        for verdict in found
    ]  # fmt: skip
    counts = {word.replace(" ", "_"): sum(v.word == word for v in found) for word in WORDS}
    return {"rows": body, "missing": len(study.claims) - len(found), **counts}


def _group(group: Group, study: Study, rows: dict[str, Row]) -> dict[str, Any]:
    """Its title, its text, and a row an arm that has results."""
    labels = {arm.name: arm.label or arm.name for arm in study.arms()}
    names = [name for name in (*group.also, *(arm.name for arm in group.arms)) if name in rows]
    against = labels.get(group.against, group.against)
    header = ["arm", "steps", "gain over base", "sd over seeds", "wins over base"]
    header += [f"gain over {against}", f"wins over {against}", "lab-reward gain", "seeds"]
    body = []
    for name in names:
        base = contrast(rows[name], rows[BASE])
        if base is None:
            body.append([labels[name], "failed", *[""] * 7])
            continue
        results = [rows[name]["seeds"][str(seed)] for seed in seeds_of(rows[name])]
        other = contrast(rows[name], rows[group.against]) if group.against in rows and name != group.against else None
        beside = ["", ""] if other is None else [_gain(other.gain), _wins(other.wins)]
        cells = [labels[name], str(results[0]["steps"]), _gain(base.gain), f"{base.spread:.2f}", _wins(base.wins)]
        body.append([*cells, *beside, f"{base.reward:+.2f}", str(len(results))])
    text = f"{group.text}{_agreement(names, rows)}".strip()
    return {"title": group.title, "text": text, "header": header, "rows": body}


def _agreement(names: Sequence[str], rows: dict[str, Row]) -> str:
    """How many votes agree with the truth, where arms differ in that."""
    found: dict[str, str] = {}
    for name in names:
        values = [result["agreement"] for result in rows[name]["seeds"].values() if "agreement" in result]
        if values:
            noise = rows[name]["arm"]["noise"]
            found[f"{noise:g}"] = f"{sum(values) / len(values):.1%} of the decided votes at noise {noise:g}"
    return f" The votes agree with the true quality in {', '.join(found.values())}." if len(found) > 1 else ""


def _tuned(study: Study, rows: Path, world: str) -> list[tuple[str, ...]]:
    """A row a grid that was trained as a whole."""
    body: list[tuple[str, ...]] = []
    for name, arm in study.tuned().items():
        method = arm.method
        held = read_row(tuning_file(rows, name), tuning_identity(study, arm, world))
        points: list[dict[str, Any]] = list(held.get("grid", {}).values())
        good = [point for point in points if "mean" in point]
        if good and len(points) == len(grid(study.tuning, method)):
            best = max(good, key=lambda point: point["mean"])
            option = strength_option(method)
            value = f"{option} {best['beta'][option]:g}" if option else "none"
            spread = f"{min(p['mean'] for p in good):.2f} to {best['mean']:.2f}"
            trained = f"{len(good)} of {len(points)}"
            body.append((arm.label or name, f"{best['learning_rate']:g}", value, spread, trained))
    return body


def _cost(study: Study, rows: Path, found: dict[str, Row]) -> dict[str, Any]:
    trials = [result for row in found.values() for result in row.get("seeds", {}).values()]
    for file in (tuning_file(rows, name) for name in study.tuned()):
        trials += list(read_json(file)["grid"].values()) if file.is_file() else []
    versions = found[BASE]["versions"]
    return {
        "trials": len(trials), "forwards": [t["cost"] for t in trials if "cost" in t],
        "hours": sum(t.get("train_seconds", 0) + t.get("judge_seconds", 0) for t in trials) / 3600,
        "versions": ", ".join(f"{name} {versions[name]}" for name in LIBRARIES if name in versions),
    }  # fmt: skip
