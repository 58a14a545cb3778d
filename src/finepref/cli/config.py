"""`finepref config`: every option of a run, what it does, its value and where that came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finepref.cli.ending import command_lines
from finepref.core.terminal import folded_text
from finepref.core.text import visible

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from finepref.formats.layers import Stack
    from finepref.train.config import RunConfig


Layers = Annotated[list[str], typer.Option("-c", "--config", help="Layer, repeatable: a YAML file or a shipped name.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value, repeatable; values are YAML.")]


def command(
    config: Layers = [],  # noqa: B006
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Options, notes and commands as JSON.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="The JSON schema of a config file.")] = False,
) -> None:
    """Every option of a run, its value and its origin.

    Names the commands of the run too. Without -c: the defaults.
    """
    from finepref.formats.layers import stack
    from finepref.plan.methods import commands
    from finepref.train.config import parse_config, resolve
    from finepref.train.method import check_data, make_method

    if schema:
        print(json.dumps(_schema(), indent=2))
        return
    found = stack(config or (), overrides or ())
    run = resolve(found) if config or overrides else parse_config({"model": {"base": ""}})
    check_data(run, make_method(run))
    lines = commands(found, run, layers=config, overrides=overrides or ()) if config else []
    options = _options(run, found)
    if as_json:
        content = {"layers": found.layers, "options": options, "notes": found.about.notes, "commands": lines}
        print(json.dumps(content, indent=2))
        return
    print(folded_text(f"# layers: {', '.join(found.layers) or 'none, these are the defaults'}", indent="# "))
    for option in options:
        origin = option["from"] + (f": {option['source']}" if option["source"] else "")
        print(folded_text(visible(f"{option['key']} = {_text(option['value'])}  # {origin}"), indent="        # "))
        print(folded_text(f"    {option['description']}"))
    if found.about.notes:
        print("\nNotes")
        for note in found.about.notes:
            print(folded_text(f"    {visible(note)}"))
    if lines:
        print("\nCommands")
        for line in lines:
            print("\n".join(command_lines(line, start="    ")))


def _tables() -> dict[str, Mapping[str, Any]]:
    """The tables of the axes of a run: axis -> name -> row."""
    from finepref.core.rows import table

    return {axis: table(axis) for axis in ("trajectory", "objective", "guard")}


def _options(run: RunConfig, found: Stack) -> list[dict[str, Any]]:
    """Every option of every section, and those of the chosen rows of the axes."""
    from pydantic import BaseModel

    from finepref.train.config import axis_options, section_of

    listed = []
    for section, values in run.as_dict().items():
        fields = dict(section_of(section).model_fields)
        if section in _tables():
            row = _tables()[section][values["name"]]
            axis_options(run, section, row.options)
            fields |= row.options.model_fields
        for key, option in fields.items():
            default = None if option.is_required() else option.get_default(call_default_factory=True)
            held = None if values is None else values.get(key, default)
            if not isinstance(default, BaseModel):
                listed.append(_option(run, found, (section, key), option, held))
                continue
            for name, each in type(default).model_fields.items():
                listed.append(_option(run, found, (section, key, name), each, None if held is None else held[name]))
    return listed


def _option(run: RunConfig, found: Stack, key: tuple[str, ...], option: FieldInfo, value: Any) -> dict[str, Any]:
    """One option: key, value, default, description, and where its value is from."""
    place = next((each for each in found.settings if key[: len(each)] == each[: len(key)]), None)
    return {
        "key": ".".join(key),
        "value": value,
        "default": None if option.is_required() else option.get_default(call_default_factory=True),
        "description": option.description,
        "from": "nowhere, name it" if option.is_required() and place is None else run.origin(*key),
        "source": found.settings[place].source if place else "",
    }


def _schema() -> dict[str, Any]:
    """The schema of a config, with the options of every row of the axes."""
    from finepref.train.config import RunConfig

    schema = RunConfig.model_json_schema()
    for axis, rows in _tables().items():
        section = schema["$defs"][f"{axis.capitalize()}Section"]
        section["anyOf"] = [
            {"properties": {"name": {"const": name}, **row.options.model_json_schema().get("properties", {})}}
            for name, row in rows.items()
        ]
    return schema


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
