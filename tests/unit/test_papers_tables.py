"""docs/papers.md: configs of one table of a paper differ only in what the table varies."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from finepref.formats.layers import shipped_configs, shipped_names
from finepref.train.config import load_config
from finepref.train.log import flat

PAGE = Path(__file__).resolve().parents[2] / "docs" / "papers.md"
METHOD = ("signal.", "trajectory.", "objective.", "guard.")
MEMORY = ("train.micro_batch",)
OPTION = r"[a-z_]+\.[a-z_0-9]+"


@dataclass(frozen=True)
class Row:
    """A row of a table: names or patterns of its configs, overrides of each run, options that it says are its own."""

    title: str
    patterns: tuple[str, ...]
    runs: tuple[tuple[str, ...], ...]
    own: tuple[str, ...]

    def configs(self, group: str) -> dict[str, dict[str, Any]]:
        """Name and overrides -> option -> value, of its configs on a backbone and a data set."""
        wanted = [name if "/" in name else f"{self.patterns[0].rpartition('/')[0]}/{name}" for name in self.patterns]
        forms = [name.replace("*", ".+") for name in wanted]
        named = [n for n in shipped_configs() if n.startswith(group) and any(re.fullmatch(form, n) for form in forms)]
        return {" ".join((name, *run)): _values(name, run) for name in named for run in self.runs}


@cache
def _values(name: str, run: tuple[str, ...]) -> dict[str, Any]:
    return dict(flat(load_config(name, run).as_dict()))


def tables() -> dict[str, list[Row]]:
    """`ArenaPO Table 2` -> its rows, from the page."""
    found: dict[str, list[Row]] = defaultdict(list)
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        paper = section.partition("\n")[0]
        for line in section.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            label = re.match(r"(Table|Figure)s? ([\d, ]+): ", cells[0])
            quoted = [re.findall(r"`([^`]*)`", cell) for cell in cells]
            if not line.startswith("| ") or not label or not quoted[1]:
                continue
            values = re.search(r"V = (-?[\d.]+(?:, -?[\d.]+)*)", cells[2])
            words = [word for text in quoted[2] for word in text.split() if re.fullmatch(rf"{OPTION}=\S+", word)]
            one_each = [value.rstrip(".") for value in values[1].split(", ")] if values else ["V"]
            row = Row(
                cells[0],
                (*quoted[1], *(text for text in quoted[2] if text in shipped_names("method"))),
                tuple(tuple(re.sub("=V$", f"={value}", word) for word in words) for value in one_each),
                tuple(text for text in quoted[2] if re.fullmatch(OPTION, text)),
            )
            for number in label[2].split(", "):
                found[f"{paper} {label[1]} {number}"].append(row)
    return dict(found)


def strangers(rows: list[Row], group: str) -> list[str]:
    """Options in which a row differs from the rows that claim none, outside the method and what it says itself."""
    plain = [values for row in rows if not row.own for values in row.configs(group).values()]
    said = []
    for row in rows:
        for name, values in row.configs(group).items():
            for key in sorted({*values, *plain[0]}):
                here, there = values.get(key), plain[0].get(key)
                if here != there and not key.startswith(METHOD) and key not in (*MEMORY, *row.own):
                    said.append(f"{row.title}: {name} has {key} {here}, others {there}")
    return said


TABLES = tables()
GROUPS = [f"{backbone}/{data}/" for backbone in ("sd15", "sdxl") for data in ("pickapic_v2", "hpdv3")]


@pytest.mark.parametrize("table", TABLES)
def test_rows_of_a_table_differ_in_the_method_only(table: str) -> None:
    """Every config of every row, on each backbone and data set: the options that no row claims are equal."""
    rows = TABLES[table]
    groups = [group for group in GROUPS if sum(bool(row.configs(group)) for row in rows)]
    assert groups
    assert not [words for group in groups for words in strangers(rows, group)]


@pytest.mark.parametrize("table", TABLES)
def test_what_a_row_claims_to_differ_in_does_differ(table: str) -> None:
    """No row claims an option that it shares with the others on every backbone."""
    rows = TABLES[table]
    for row in (row for row in rows if row.own):
        differing: set[str] = set()
        for group in GROUPS:
            plain = [values for other in rows if not other.own for values in other.configs(group).values()]
            for values in row.configs(group).values():
                differing |= {key for key in row.own if values[key] != plain[0][key]}
        assert differing == {*row.own}, row.title


def test_every_table_of_the_papers_is_read() -> None:
    """The tables that train something; and a rate of one row alone is noticed."""
    numbers = {"ArenaPO": (2, 3, 5, 7, 8), "SmPO-Diffusion": (2, 3, 4, 5, 6, 7, 8, 9)}
    wanted = {f"{paper} Table {number}" for paper, tables in numbers.items() for number in tables}
    assert {*TABLES} == wanted | {"ArenaPO Figure 7"}
    slower = Row("slower", ("*/arenapo",), (("train.learning_rate=1e-9",),), ())
    (words,) = strangers([*TABLES["ArenaPO Table 2"], slower], "sdxl/hpdv3/")
    assert words == "slower: sdxl/hpdv3/arenapo train.learning_rate=1e-9 has train.learning_rate 1e-09, others 1e-08"
