"""`finepref methods`: what can be trained, as axes, and every option of every axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel


def command(
    name: Annotated[str | None, typer.Argument(help="One method in full; all of them in short without it.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """List the methods and the rows of every axis.

    Signal, trajectory, objective, guard, what each needs and where it comes from.
    """
    import json as json_module

    from finepref.core.terminal import folded
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
            print("\n".join(folded(f"{key:<12} {_words(value)}", indent=" " * 13)))
        print(f"every value, its source and the commands of a run:\nfinepref config -c {chosen[0].configs[0]}")
        return
    rows = []
    for method in chosen:
        needs = method.needs()
        wanted = [word for word in ("labels", "reward", "arena") if needs[word]]
        wanted += [] if needs["reference"] == "none" else [f"reference {needs['reference']}"]
        trajectory, objective, guard = (method.axes[axis]["name"] for axis in ("trajectory", "objective", "guard"))
        axes = ("+".join(method.about.signal) or "binary", trajectory, objective, guard.replace("none", "-"))
        rows.append((method.name, *axes, ", ".join(wanted), method.about.source))
    print("\n".join([*_table(rows), ""]))
    for axis, entries in _axes().items():
        for entry, described in entries.items():
            where = ", ".join(filter(None, (described["source"], described.get("from"))))
            lines = [f"{axis} {entry}: {where}" if where else f"{axis} {entry}"]
            options = described["options"].items()
            lines += [f"    {option} [{text['default']}]  {text['description']}" for option, text in options]
            print("\n".join(part for line in lines for part in folded(line, indent="    ")))
    more = "All it needs, its deviations, recipe, configs and golden files: finepref methods NAME. Everything: --json."
    print("\n".join(["", *folded(f"Train one with -c lab/NAME. {more}")]))


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The methods as lines. A terminal without room for all columns shows a method as a chain of its axes, and leaves
    what it needs of the reference to `finepref methods NAME`.
    """
    from finepref.core.terminal import table_lines, width

    if not 0 < width() < WIDE:
        return table_lines(("method", "signal", "trajectory", "objective", "guard", "needs", "source"), rows)
    chains = [
        (
            name,
            " ".join([signal, trajectory, objective, *([] if guard == "-" else [guard])]),
            needs.partition("reference")[0].rstrip(", "),
            source,
        )
        for name, signal, trajectory, objective, guard, needs, source in rows
    ]
    return table_lines(("method", "signal, trajectory, objective, guard", "needs", "source"), chains)


WIDE = 160  # characters of a terminal in which the columns of all methods have room
AXES = ("dialect", "signal", "gap", "trajectory", "objective", "guard")


def _axes() -> dict[str, dict[str, dict[str, Any]]]:
    """axis -> row -> source, deviations, options, and the file of a row that is not ours."""
    from finepref.core.rows import table

    return {
        axis: {
            name: {
                "source": getattr(row, "source", ""),
                "deviations": getattr(row, "deviations", ""),
                "options": _options(row.options) if hasattr(row, "options") else {},
                **({"from": rows.origin[name].path or rows.origin[name].module} if name in rows.origin else {}),
            }
            for name, row in rows.items()
        }
        for axis, rows in ((axis, table(axis)) for axis in AXES)
    }


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
