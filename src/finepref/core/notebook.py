"""How records show themselves in a notebook: a plain table, which takes the notebook's own style."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any
from xml.etree import ElementTree

MOST = 20  # rows that are shown


def table_html(names: Sequence[str], rows: Iterable[Sequence[Any]], *, total: int) -> str:
    """The first `MOST` rows as an HTML table. names: of the columns. total: how many rows there are."""
    table = ElementTree.Element("table")
    if total > MOST:
        ElementTree.SubElement(table, "caption").text = f"the first {MOST} of {total:,} rows"
    for kind, line in (("th", names), *(("td", row) for row in islice(rows, MOST))):
        found = ElementTree.SubElement(table, "tr")
        for value in line:
            ElementTree.SubElement(found, kind).text = _text(value)
    return ElementTree.tostring(table, encoding="unicode", method="html")


def records_html(records: Sequence[Any], names: Sequence[str]) -> str:
    """As `table_html`: records of one kind, with these of their attributes."""
    return table_html(names, ([getattr(each, name) for name in names] for each in records), total=len(records))


def _text(value: Any) -> str:
    """A cell: numbers with four digits, nothing for what is not known."""
    if value is None or value != value:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
