"""`finepref methods`: what can be trained, as axes, and every option of every axis."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

if TYPE_CHECKING:
    from pydantic import BaseModel

# kind of signal -> where it comes from, and where we deviate
KINDS = {
    "binary": ("the votes alone, as in Diffusion-DPO", "none"),
    "uniform": ("ArenaPO Eq. 14 with one margin for all pairs (its Tables 5, 7)", "none"),
    "paper": ("ArenaPO Eq. 12", "none"),
    "truncated": ("ours: Eq. 12 with the noise of a vote (docs/arena.md)", "none published"),
    "selection": ("ours: the images' share of that noise (docs/arena.md)", "none published"),
    "image": ("ours: difference of the images' posterior means (docs/arena.md)", "none published"),
    "smoothed": ("SmPO-Diffusion Eq. 8-12", "extremes of the data set unless --extremes pickscore"),
    "reward-margin": ("ArenaPO Appendix F, reading 1", "the paper states no mechanism"),
    "relabel": ("Diffusion-DPO, code only: choice_model", "none"),
    "kto": ("Diffusion-KTO (arXiv 2404.04465), code only: image labels", "none"),
}


def command(
    name: Annotated[str | None, typer.Argument(help="One method in full; all of them in short without it.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """List the methods: signal, trajectory, objective, guard, what each needs and where it comes from."""
    import json as json_module

    from finepref.plan import methods

    chosen = methods.shipped() if name is None else (methods.get(name),)
    if json:
        content: dict[str, Any] = {"methods": [method.as_dict() for method in chosen]}
        if name is None:
            content |= _axes()
        print(json_module.dumps(content, indent=2))
        return
    if name is not None:
        for key, value in chosen[0].as_dict().items():
            print(f"{key:<12} {_words(value)}")
        print(f"every value, its source and the commands of a run: finepref config -c {chosen[0].configs[0]}")
        return
    rows = [("method", "signal", "trajectory", "objective", "guard", "needs", "source")]
    for method in chosen:
        needs = method.needs()
        wanted = [word for word in ("labels", "reward", "arena") if needs[word]]
        wanted += [] if needs["reference"] == "none" else [f"reference {needs['reference']}"]
        trajectory, objective, guard = (method.axes[axis]["name"] for axis in ("trajectory", "objective", "guard"))
        axes = ("+".join(method.about.signal) or "binary", trajectory, objective, guard.replace("none", "-"))
        rows.append((method.name, *axes, ", ".join(wanted), method.about.source))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row[:6], widths, strict=True)), row[6]]))
    print()
    for axis, entries in _axes().items():
        for entry, described in entries.items():
            print(f"{axis} {entry}: {described['source']}" if described["source"] else f"{axis} {entry}")
            for option, text in described["options"].items():
                print(f"    {option} [{text['default']}]  {text['description']}")
    print(
        "\nTrain one with -c lab/NAME. Its deviations, recipe, configs and golden files: finepref methods NAME. "
        "Everything: --json."
    )


def _axes() -> dict[str, dict[str, dict[str, Any]]]:
    """axis -> row -> source and options, from `finepref signals` and the tables of the other axes."""
    from finepref.diffusion import trajectories as trajectories
    from finepref.objectives import table as objectives

    return {
        "signal": {
            kind: {"source": source, "deviations": deviations, "options": _signal_options(kind)}
            for kind, (source, deviations) in KINDS.items()
        },
        "trajectory": {
            row.name: {"source": row.reference, "deviations": row.deviations, "options": _options(row.options)}
            for row in trajectories.ROWS
        },
        "objective": {
            row.name: {"source": row.reference, "deviations": row.deviations, "options": _options(row.options)}
            for row in objectives.ROWS
        },
        "guard": {
            row.name: {"source": row.reference, "deviations": row.deviations, "options": _options(row.options)}
            for row in objectives.GUARDS.values()
        },
    }


def _signal_options(kind: str) -> dict[str, dict[str, Any]]:
    """The options of `finepref signals` that act on a kind; their help ends with the default in brackets."""
    from finepref.cli.signals import command as signals
    from finepref.signals.make import ACTS_ON

    found = {}
    for name, parameter in inspect.signature(signals, eval_str=True).parameters.items():
        if kind in ACTS_ON.get(name, ()):
            words = parameter.annotation.__metadata__[0].help
            default = re.search(r" \[(.*)\]", words)
            found[name] = {
                "default": yaml.safe_load(default[1]) if default else parameter.default,
                "description": re.sub(r" \[.*\]", "", words),
            }
    return found


def _options(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    return {
        name: {"default": field.default, "description": field.description or ""}
        for name, field in model.model_fields.items()
    }


def _words(value: Any) -> str:
    """A value of the table as words."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return " + ".join(str(inner) for inner in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else str(value)
