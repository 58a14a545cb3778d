"""The index of the results: README.md here, from the files in `results` and the lines of `findings.yaml`.

    python benchmarks/results_index.py

A result is one benchmark on one date: `results/DATE-NAME.json`, `.md` or both. A folder holds rows, one file a run (or
one line a seed), to which a benchmark adds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

HERE = Path(__file__).resolve().parent
RESULTS, FINDINGS, PAGE = HERE / "results", HERE / "findings.yaml", HERE / "README.md"
DATED = re.compile(r"(\d{4}-\d{2}-\d{2})-(.+)")
COMMAND = re.compile(r"^(?:    )?((?:[A-Z_]+=\d+ )?(?:python benchmarks/|finepref )[^\n]*)$", re.M)
HEAD = """# Results of benchmarks

Written by `python benchmarks/results_index.py` from the files in `results` and the lines of `findings.yaml`.

A result is one benchmark on one date, and stays as it was measured: run again, a benchmark leaves another file.
A folder holds rows, one file a run or one line a seed; more runs add files or lines, and change none. Versions and the
machine stand in the files.

| date | result | what it says | command |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Result:
    """A benchmark on a date, or a folder of rows. files: where it is, the page to read first."""

    name: str
    files: tuple[Path, ...]

    def data(self) -> dict[str, Any]:
        """What a line may take numbers from."""
        if self.files[0].is_dir():
            rows = [json.loads(path.read_text("utf-8")) for path in sorted(self.files[0].glob("*.json"))]
            return {"rows": [{**row.get("job", {}), **row} for row in rows]}
        files = [path for path in self.files if path.suffix == ".json"]
        return {"data": json.loads(files[0].read_text("utf-8"))} if files else {}

    def command(self) -> str:
        """The command as the page has it, or else the JSON file; empty where neither does."""
        texts = [path.read_text("utf-8") for path in self.files if path.suffix == ".md"]
        if texts and (found := COMMAND.search(texts[0])):
            return re.split(r"\s{2,}", found[1])[0].rstrip("\\ ")
        data = self.data().get("data", {})
        places = (data, data.get("about", {}), data.get("provenance", {}))
        said = next((place["command"] for place in places if "command" in place), "")
        return f"python benchmarks/{said}" if said and not said.startswith("python") else said


def results() -> list[Result]:
    """All that lie in `results`, the newest first, folders last."""
    stems: dict[str, list[Path]] = {}
    for path in sorted(RESULTS.iterdir(), key=lambda path: (path.suffix != ".md", path.name)):
        if path.is_file() or any(path.iterdir()):
            stems.setdefault(path.stem, []).append(path)
    dated = sorted((name for name in stems if DATED.fullmatch(name)), key=lambda name: DATED.fullmatch(name)[2])  # type: ignore[index]
    dated.sort(key=lambda name: name[:10], reverse=True)
    return [Result(name, tuple(stems[name])) for name in [*dated, *sorted(set(stems) - set(dated))]]


def where(rows: Iterable[Mapping[str, Any]], **values: Any) -> list[Mapping[str, Any]]:
    """The rows that have these values."""
    return [row for row in rows if all(row.get(key) == value for key, value in values.items())]


def gain(rows: Iterable[Mapping[str, Any]]) -> str:
    """Mean of what true quality gained."""
    return f"{mean(mean(row['after']) - mean(row['before']) for row in rows):+.2f}"


def line_of(result: Result, finding: Mapping[str, Any]) -> str:
    """A row of the table."""
    words = Environment(undefined=StrictUndefined, autoescape=False)
    words.filters |= {
        "where": where,
        "gain": gain,
        "percent": lambda value, digits=1: f"{100 * value:.{digits}f} %",
        "count_of": lambda value: f"{value:,.0f}",
        "scientific": lambda value: f"{value:.1e}".replace("e-0", "e-"),
    }
    said = words.from_string(finding["finds"]).render(result.data())
    named = DATED.fullmatch(result.name)
    date, name = (named[1], named[2]) if named else (str(finding["date"]), result.name)
    links = " ".join(f"[{path.suffix[1:] or 'rows'}](results/{path.name})" for path in result.files)
    return f"| {date} | {name} {links} | {said} | `{finding.get('command') or result.command()}` |\n"


def page() -> str:
    """The text of README.md."""
    findings = yaml.safe_load(FINDINGS.read_text("utf-8"))
    return HEAD + "".join(line_of(result, findings[result.name]) for result in results())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
