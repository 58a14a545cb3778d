"""docs/study.md: what the rows of a study say, written from the rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError
from finepref.core.files import read_json, write_text
from finepref.evaluate.stats import Interval
from finepref.study.arms import read_row, tuning_file, tuning_identity
from finepref.study.claims import Contrast, Row, contrast, read_rows, seeds_of, verdicts
from finepref.study.design import BASE, Group, Study, grid, strength_option

HEAD = """# Do the papers' claims hold where the truth is known?

This page is written from the rows in `{folder}` by

    finepref lab study --out {folder} --report {page}

and the rows by `finepref lab study --out {folder}`{config}. Nothing in it is written by hand.

## What was done

On the lab world (32 x 32 pictures of coloured shapes, a Stable-Diffusion pipeline of 2.2 million parameters) the true
quality of a picture is computed, so a method's gain is known and need not be guessed by a reward model. Simulated
voters, who differ in taste and err, compare pictures of six makers on 252 training prompts. Their votes are all that a
method sees, but for methods with a reward: they also have the lab's reward model, learned from 8,400 other votes on the
training prompts, whose labelling is not counted as cost (in the arms with noise it learns from the arm's own votes).

- **Equal cost.** Every run may spend {cost} network forwards; a policy forward with its backward counts as three, a
  forward without gradient (reference, inversion) as one. Methods that invert get fewer optimiser steps for it.
- **Seeds.** {seeds} seeds ({seed_list}); a seed decides pictures, voters, votes, training draws and the noise of the
  evaluation pictures. Every arm sees the same ones.
- **Evaluation.** {prompts} held-out prompts, one picture each, {steps} DDIM steps, guidance {guidance}; true quality is
  in units of a voter's noise. Differences are paired by prompt and seed.
- **Tuning.** One rule for every method: {points} grid points (learning rates {rates}; strength, that is beta or
  lambda_residual, at {strengths} times that of its lab config; a method without a strength gets more learning rates),
  one training each with seed {tuning_seed}, which no arm has, at the same cost; the best mean true quality on
  {validation} other held-out prompts wins. Ablation arms keep the values of the method that they vary.
- **Intervals** are 95 % and hold for new seeds and new prompts alike (two-way random effects, Student's t with
  Satterthwaite's degrees of freedom).

"""

CLAIMS = """## The claims

Of {count} claims {holds} hold here, {fails} fail (the opposite is seen) and {undecided} are undecided{missing}. A claim
holds or fails where p < 0.05, over seeds and prompts, after Holm's correction for all of them; else it is undecided,
which also means that a run of this size could not tell.

"""


def write_page(study: Study, *, rows: Path, page: Path, world: str, config: str = "") -> None:
    """Write the page. world: hash of the lab that the rows must come from.

    Raises:
        InputError: there is no row of the base model yet, or a row of other settings or another lab.
    """
    found = read_rows(rows, study, world=world)
    if not seeds_of(found.get(BASE, {})):
        raise InputError("no row of the base model", where=rows, remedy="run `finepref lab study` first")
    parts = [_head(study, rows, page, config), _claims(study, found)]
    parts += [_group(group, study, found) for group in study.groups]
    parts += [_tuned(study, rows, world), _cost(study, rows, found)]
    write_text(page, "\n".join(part.rstrip() + "\n" for part in parts if part))


def _head(study: Study, rows: Path, page: Path, config: str) -> str:
    tuning, evaluation = study.tuning, study.evaluation
    return HEAD.format(
        folder=rows.as_posix(),
        page=page.as_posix(),
        config=f" with `-c {config}`" if config else "",
        cost=f"{study.training.cost:,}",
        seeds=len(study.seeds),
        seed_list=", ".join(map(str, study.seeds)),
        prompts=evaluation.prompts,
        steps=evaluation.steps,
        guidance=f"{evaluation.guidance:g}",
        points=len(tuning.learning_rate) * len(tuning.strength),
        rates=", ".join(f"{rate:g}" for rate in tuning.learning_rate),
        strengths=", ".join(f"{strength:g}" for strength in tuning.strength),
        tuning_seed=tuning.seed,
        validation=evaluation.validation_prompts,
    )


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in body)]) + "\n"


def _gain(value: Interval) -> str:
    return f"{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"


def _wins(value: Interval) -> str:
    return f"{value.value:.1%} [{value.low:.1%}, {value.high:.1%}]"


def _claims(study: Study, rows: dict[str, Row]) -> str:
    found = verdicts(study, rows)
    if not found:
        return ""
    counts = {word: sum(v.word == word for v in found) for word in ("holds", "fails", "undecided")}
    missing = len(study.claims) - len(found)
    text = CLAIMS.format(count=len(found), missing=f"; {missing} have no result yet" if missing else "", **counts)
    body = [
        [
            f"{verdict.text} ({verdict.source})",
            _gain(verdict.contrast.gain),
            _wins(verdict.contrast.wins),
            _agree(verdict.contrast),
            f"{verdict.p:.3f}" if verdict.p >= 0.001 else "< 0.001",
            f"**{verdict.word}**",
        ]
        for verdict in found
    ]
    header = ["claim", "difference of true quality", "win rate", "seeds of one sign", "p (Holm)", "here"]
    return text + _table(header, body)


def _agree(found: Contrast) -> str:
    return f"{round(found.agree * len(found.by_seed))} of {len(found.by_seed)}"


def _group(group: Group, study: Study, rows: dict[str, Row]) -> str:
    if not any(arm.name in rows for arm in group.arms):
        return ""
    labels = {arm.name: arm.label or arm.name for arm in study.arms()}
    names = [name for name in (*group.also, *(arm.name for arm in group.arms)) if name in rows]
    body = []
    against = labels.get(group.against, group.against)
    for name in names:
        base = contrast(rows[name], rows[BASE])
        if base is None:
            body.append([labels[name], "failed", *[""] * 7])
            continue
        results = [rows[name]["seeds"][str(seed)] for seed in seeds_of(rows[name])]
        other = contrast(rows[name], rows[group.against]) if group.against in rows and name != group.against else None
        body.append(
            [
                labels[name],
                f"{results[0]['steps']}",
                _gain(base.gain),
                f"{base.spread:.2f}",
                _wins(base.wins),
                "" if other is None else _gain(other.gain),
                "" if other is None else _wins(other.wins),
                f"{base.reward:+.2f}",
                str(len(results)),
            ]
        )
    header = ["arm", "steps", "gain over base", "sd over seeds", "wins over base"]
    header += [f"gain over {against}", f"wins over {against}", "lab-reward gain", "seeds"]
    text = f"{group.text}{_agreement(names, rows)}".strip()
    return f"## {group.title}\n\n" + (f"{text}\n\n" if text else "") + _table(header, body)


def _agreement(names: Sequence[str], rows: dict[str, Row]) -> str:
    """How many votes agree with the truth, where arms differ in that."""
    found: dict[str, str] = {}
    for name in names:
        values = [result["agreement"] for result in rows[name]["seeds"].values() if "agreement" in result]
        if values:
            noise = rows[name]["arm"]["noise"]
            found[f"{noise:g}"] = f"{sum(values) / len(values):.1%} of the decided votes at noise {noise:g}"
    return f" The votes agree with the true quality in {', '.join(found.values())}." if len(found) > 1 else ""


def _tuned(study: Study, rows: Path, world: str) -> str:
    body = []
    for method in study.methods():
        held = read_row(tuning_file(rows, method), tuning_identity(study, method, world))
        points: list[dict[str, Any]] = list(held.get("grid", {}).values())
        good = [point for point in points if "mean" in point]
        if good and len(points) == len(grid(study.tuning, method)):
            best = max(good, key=lambda point: point["mean"])
            option = strength_option(method)
            value = f"{option} {best['beta'][option]:g}" if option else "none"
            spread = f"{min(p['mean'] for p in good):.2f} to {best['mean']:.2f}"
            body.append([method, f"{best['learning_rate']:g}", value, spread, f"{len(good)} of {len(points)}"])
    if not body:
        return ""
    header = ["method", "learning rate", "strength", "validation quality over the grid", "points that trained"]
    return "## Tuned values\n\n" + _table(header, body)


def _cost(study: Study, rows: Path, found: dict[str, Row]) -> str:
    trials = [result for row in found.values() for result in row.get("seeds", {}).values()]
    for file in (tuning_file(rows, method) for method in study.methods()):
        trials += list(read_json(file)["grid"].values()) if file.is_file() else []
    seconds = sum(t.get("train_seconds", 0) + t.get("judge_seconds", 0) for t in trials)
    forwards = [t["cost"] for t in trials if "cost" in t]
    realised = f" Realised cost of a run: {min(forwards):,} to {max(forwards):,} forwards." if forwards else ""
    versions = found[BASE]["versions"]
    names = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "diffusers") if name in versions)
    return (
        f"## Cost\n\n{len(trials)} trials (tuning included), {seconds / 3600:.1f} CPU-hours, one thread each."
        f"{realised} {names}."
    )
