"""The reference pages, written from the code itself whenever the site is built: nothing here is kept by hand."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)
AXES = ("signal", "gap", "trajectory", "objective", "guard", "dialect")


def pages(root: Path) -> dict[str, str]:
    """Path in the site -> Markdown."""
    shown = examples(root)
    return {
        "reference/commands.md": commands(shown),
        "reference/config.md": config(),
        "reference/files.md": exchanged(),
        "reference/methods.md": methods(),
        "reference/scorers.md": scorers(),
        "reference/python.md": python(),
        "results.md": results(root),
    }


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    head = list(head)
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def code(value: object) -> str:
    """A value as code; nothing for nothing."""
    return f"`{value}`" if str(value) else ""


def examples(root: Path) -> dict[str, list[str]]:
    """Command -> the lines that README and the pages call it by, which the suite runs or parses."""
    found: dict[str, list[str]] = {}
    for page in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                line = re.sub(r"\s+", " ", line.partition(" #")[0]).strip()
                if line.startswith("finepref "):
                    found.setdefault(line.split()[1], []).append(line)
    return found


# commands


def commands(shown: dict[str, list[str]]) -> str:
    """Every command with every argument and option."""
    from typer.main import get_command

    from finepref.cli.main import COMMANDS, build

    parts = [
        "# Commands",
        "Every command takes `-h`, and prints what stands here. Exit code 0: done. 1: it ran, and a check failed. "
        "2: bad input, said in one sentence. 130 and 143: stopped. `--plugin FILE.py|MODULE` goes with every command "
        "and loads [rows of your own](../own_rows.md).",
    ]
    app: Any = get_command(build())
    for name in COMMANDS:
        parts += [f"## finepref {name}", *_command(app.commands[name], f"finepref {name}", level=3)]
        lines = list(dict.fromkeys(shown.get(name, [])))
        parts.append("\n".join(["```sh", *sorted(lines, key=len)[:3], "```"]))
    return "\n\n".join(parts) + "\n"


def _command(command: Any, name: str, *, level: int) -> Iterator[str]:
    yield inspect.cleandoc(command.help or "")
    own = [each for each in command.params if "--help" not in each.opts]
    for title, kind in (("argument", "argument"), ("option", "option")):
        rows = [_parameter(each) for each in own if each.param_type_name == kind]
        if rows:
            yield table([title, "value", "default", "meaning"], rows)
    for inner, each in getattr(command, "commands", {}).items():
        yield f"{'#' * level} {name} {inner}"
        yield from _command(each, f"{name} {inner}", level=level + 1)


def _parameter(each: Any) -> list[str]:
    """Name, value, default and meaning of an argument or an option."""
    argument = each.param_type_name == "argument"
    names = [each.name.upper()] if argument else [*each.opts, *each.secondary_opts]
    flag = not argument and each.is_flag
    default = each.default() if callable(each.default) else each.default
    shown = "" if flag or default in (None, [], ()) else code(default)
    value = "" if flag else _type(each.type_descriptor.annotation).replace("Path", "path").replace("str", "text")
    return [", ".join(map(code, names)), value, "needed" if each.required else shown, each.help or ""]


# options of a run


def config() -> str:
    """Every option of a run config, and those of the rows of its axes."""
    from finepref.core.rows import table as axis_table
    from finepref.train.config import RunConfig, section_of

    parts = [
        "# Options of a run",
        "A run is a config: layers of YAML, then `section.key=value` on the command line; later ones win. An unknown "
        "key is an error that names the nearest one. `finepref config` prints the same for your run, with the value of "
        "every option and the layer that it comes from:",
        "```sh\nfinepref config -c lab/arenapo train.max_steps=100\n```",
    ]
    for section in RunConfig.model_fields:
        model = section_of(section)
        parts += [f"## {section}", inspect.getdoc(model) or "", _options(model, section)]
        if section in ("trajectory", "objective", "guard"):
            for name, row in axis_table(section).items():
                if row.options.model_fields:
                    parts += [f"### {section}.name={name}", _options(row.options, section)]
    return "\n\n".join(parts) + "\n"


def _options(model: type[BaseModel], prefix: str) -> str:
    return table(["option", "type", "default", "meaning"], _rows(model, prefix))


def _rows(model: type[BaseModel], prefix: str) -> Iterator[list[str]]:
    for name, field in model.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        inner = _models(field.annotation)
        shown = "" if isinstance(default, BaseModel) else "needed" if field.is_required() else code(_text(default))
        yield [code(f"{prefix}.{name}".lstrip(".")), code(_type(field.annotation)), shown, field.description or ""]
        for each in inner:
            yield from _rows(each, f"{prefix}.{name}")


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The records of options in an annotation."""
    parts = [annotation, *typing.get_args(annotation)]
    return [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]


def _type(annotation: Any) -> str:
    """A type as one reads it: the words of a choice, null for None."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin is typing.Literal:
        return " | ".join(map(_text, inner))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_type, inner))
    if inner:
        return f"{getattr(origin, '__name__', origin)} of {', '.join(map(_type, inner))}"
    return "null" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


def _text(value: Any) -> str:
    """A value as YAML has it."""
    return value if isinstance(value, str) and value else json.dumps(value)


# files that commands exchange

FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "A table of preferences, `pairs.parquet`": ("preferences", ("PAIRS", "Quarantined")),
    "Votes of the lab, as Pick-a-Pic v2": ("pickapic", ("SCHEMA",)),
    "`ratings.json`, `leaderboard.csv`": ("ratings", ("RatingsRecord", "BoardRecord", "COLUMNS")),
    "`gaps.parquet`": ("gaps", ("GapsRecord",)),
    "`validation.json`": ("validation", ("Validation",)),
    "`questions.json`": ("questions", ("QuestionsRecord",)),
    "What `finepref next` writes": ("proposals", ("Proposal", "ImageProposal")),
    "`signals.parquet`": ("signals", ("COLUMNS", "Signals")),
    "`rewards.parquet`": ("rewards", ("Reward", "RewardPart")),
    "`quarantine.jsonl`": ("quarantine", ("LeftOut",)),
    "`cache.json`, `images.parquet`, `prompts.parquet`": ("cache", ("CacheRecord", "IMAGES", "PROMPTS")),
    "`pairs.parquet` of a cache": ("cachetables", ("CachedRow",)),
    "Parts of data that were read": ("readparts", ("ReadAbout", "ROWS", "IMAGES")),
    "A folder of the frozen reference": ("frozenfolder", ("FrozenRecord", "DRAWS")),
    "`run.json`": ("run", ("RunRecord",)),
    "`metrics.jsonl`, `timing.jsonl`": ("metrics", ("StepMetrics", "StepTiming")),
    "`heldout.jsonl`, `heldout.parquet`": ("heldout", ("HeldOutMetrics", "COLUMNS", "Agreement")),
    "`manifest.jsonl`, `manifest.json`": ("manifest", ("ImageRow", "FolderRecord", "SampledWith")),
    "`maps.json`": ("controlmaps", ("MapsRecord",)),
    "`scores.parquet`": ("scores", ("Score", "ScoredBy", "PartScore")),
    "`comparison.json`": ("comparison", ("Comparison",)),
    "`ksort.json`": ("ksortresult", ("KSortRecord",)),
    "`study.json`": ("collection", ("CollectionRecord",)),
    "`votes.sqlite`": ("answers", ("PictureRow", "StudyVoter", "ShownSet", "Answer")),
    "The votes of a study, as they are read": ("studyvotes", ("COLUMNS",)),
    "`votes.checks.json`": ("voterchecks", ("QuestionChecks",)),
    "`rounds.json`": ("rounds", ("RoundsRecord",)),
    "`alignment.json`": ("alignmentrecord", ("AlignmentRecord",)),
}
"""What a heading says -> its module in `finepref.formats`, and the records and columns there that are in the file."""


def exchanged() -> str:
    """Every file that stages exchange: its columns and keys."""
    parts = [
        "# Files and their columns",
        "Stages meet through files alone. Each file has one module in `finepref.formats`, with its record, its reader, "
        "its writer and its checks. `null` may stand where a type says so; a missing number of a parquet file is null "
        "or nan. How people's own tables are read: [preference data](../data.md). A table is looked at with",
        "```sh\nfinepref data inspect votes.parquet\n```",
    ]
    for title, (name, names) in FILES.items():
        module = importlib.import_module(f"finepref.formats.{name}")
        parts += [f"## {title}", inspect.getdoc(module) or ""]
        parts += [text for each in names for text in _described(getattr(module, each), each, set())]
    return "\n\n".join(parts) + "\n"


def _described(found: Any, name: str, done: set[Any]) -> Iterator[str]:
    """A schema or a record, and the records in it."""
    if dataclasses.is_dataclass(found) and isinstance(getattr(found, "schema", None), pa.Schema):
        found = found.schema
    if isinstance(found, pa.Schema):
        yield table(["column", "type"], ([code(field.name), code(field.type)] for field in found))
    elif hasattr(found, "_fields"):
        yield table(["column", "type"], ([code(key), code(_type(hint))] for key, hint in found.__annotations__.items()))
    elif isinstance(found, tuple):
        yield table(["column"], ([code(column)] for column in found))
    elif found not in done:
        done.add(found)
        hints = typing.get_type_hints(found)
        yield f"**{found.__name__}.** {inspect.getdoc(found)}"
        yield table(["key", "type"], ([code(field), code(_type(hints[field]))] for field in _fields(found)))
        for hint in (hints[field] for field in _fields(found)):
            for inner in _records(hint):
                yield from _described(inner, inner.__name__, done)


def _fields(record: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(record)]


def _records(hint: Any) -> list[Any]:
    """The records of this project in an annotation."""
    found = [each for inner in typing.get_args(hint) for each in _records(inner)]
    own = dataclasses.is_dataclass(hint) and str(getattr(hint, "__module__", "")).startswith("finepref.formats")
    return [hint, *found] if own else found


# rows of the axes


def methods() -> str:
    """Every method, and every row of every axis with its options."""
    from finepref.core.rows import OURS
    from finepref.core.rows import table as axis_table
    from finepref.plan.methods import shipped

    parts = [
        "# Methods and rows",
        "A method is a signal, a trajectory, an objective and a guard: a config, and no code. What the rows do: "
        "[signals, trajectories, objectives](../objectives.md). Which config is which row of the papers: "
        "[papers](../papers.md). One method in full:",
        "```sh\nfinepref methods arenapo\n```",
        "## Methods",
        table(
            ["method", "signal", "trajectory", "objective", "guard", "source", "configs"],
            (
                [
                    code(method.name), " + ".join(method.about.signal) or "binary",
                    *(str(method.axes[axis]["name"]) for axis in ("trajectory", "objective", "guard")),
                    method.about.source, ", ".join(map(code, method.configs)),
                ]
                for method in shipped()
            ),
        ),
    ]  # fmt: skip
    for axis in AXES:
        rows = axis_table(axis)
        parts.append(f"## {axis.capitalize()}")
        for name, row in rows.items():
            about = "; ".join(filter(None, (getattr(row, each, "") for each in ("about", "source", "deviations"))))
            if name in rows.origin and rows.origin[name].module == OURS:
                about += " (of the lab)"
            parts += [f"### {axis} {name}", about]
            if axis == "dialect" and row.roles:
                roles = ([code(role), ", ".join(map(code, columns))] for role, columns in row.roles.items())
                parts.append(table(["what it says", "columns that may say it, the first that is there"], roles))
            options = getattr(row, "options", None)
            if options is not None and options.model_fields:
                parts.append(table(["option", "type", "default", "meaning"], _rows(options, "")))
    return "\n\n".join(parts) + "\n"


def scorers() -> str:
    """Every scorer by name."""
    from finepref.core.rows import table as axis_table

    rows = (
        [code(name), row.about, code(row.preprocess), "no" if row.judges_only else "yes"]
        for name, row in axis_table("scorer").items()
    )
    return "\n\n".join(
        [
            "# Scorers by name",
            "What they look at, in which order pictures are prepared, and how each is checked with its real weights: "
            "[scorers in full](../scorers.md). How one is asked for:",
            "```sh\nfinepref score votes.parquet --scorer lab-reward --out rewards.parquet\n```",
            table(["scorer", "what it is", "preparation", "may be trained on"], rows),
        ]
    )


# Python


def python() -> str:
    """What `import finepref` shows, from the docstrings."""
    import finepref

    parts = [
        "# Python names",
        "What `import finepref as fp` shows, each name as its docstring describes it. A tour with examples that run: "
        "[from Python](../python.md).",
        '```python\nimport finepref as fp\n\nratings = fp.rate(fp.read_votes("votes.parquet"))\n```',
    ]
    for name in finepref.__all__[1:]:
        found = getattr(finepref, name)
        if isinstance(found, types.ModuleType):
            parts += [f"## fp.{name}", inspect.getdoc(found) or ""]
            parts += [f"::: {each.__module__}.{each.__name__}" for each in _functions(found)]
        else:
            parts += [f"## fp.{name}", f"::: {found.__module__}.{found.__qualname__}"]
    return "\n\n".join(parts) + "\n"


def _functions(module: types.ModuleType) -> list[Any]:
    """The functions that a module shows, by name."""
    names = getattr(module, "__all__", [name for name in dir(module) if not name.startswith("_")])
    found = [getattr(module, name) for name in names]
    return [each for each in found if inspect.isfunction(each) and each.__module__.startswith("finepref")]


# results


def results(root: Path) -> str:
    """Every dated result, the newest first."""
    rows = []
    for path in sorted((root / "benchmarks" / "results").glob("*.*"), reverse=True):
        date, what = path.name[:10], path.stem[11:].replace("-", " ")
        link = path.relative_to(root).as_posix()
        rows.append([date, f"[{what}]({link})", "page" if path.suffix == ".md" else "data"])
    return "\n\n".join(
        [
            "# Results",
            "What was measured, when, and the file that says so. Methods against each other where the truth is known: "
            "[do the papers' claims hold](study.md). What failed: the [log of experiments](LOG.md). A number that was "
            "not measured is called so.",
            "![The report of the demo](images/report.png)",
            table(["date", "result", "kind"], rows),
        ]
    )
