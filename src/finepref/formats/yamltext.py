"""YAML as people mean it, and one short sentence for what is wrong with it."""

from __future__ import annotations

import re
from typing import Any

import yaml

from finepref.core.errors import FineprefError, InputError, first_line

MOST = 100_000
"""Values that a text may hold, those of an alias counted wherever it stands; a settings file has some hundred."""


class _Loader(yaml.SafeLoader):
    """`no` and `off` are words, 1e4 is a number, 010, 1:30 and dates are text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(\.inf|\.Inf|\.INF|([0-9][0-9_]*)?\.?[0-9]+\.?([eE][-+]?[0-9]+)?)|\.nan|\.NaN", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def yaml_node(text: str, *, where: object, error: type[FineprefError] = InputError) -> yaml.Node:
    """The node of a YAML text; every value of it can be constructed.

    Raises:
        InputError, or another `error`: it is not YAML, with the line; it is nested too deeply, or far too long.
    """
    remedy = "correct that place, or write a shorter file"
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
        node = yaml.ScalarNode("tag:yaml.org,2002:null", "") if node is None else node
        if _count(node) > MOST:
            raise ValueError(f"more than {MOST:,} values")
        plain(node)
    except yaml.MarkedYAMLError as found:
        mark, what = found.problem_mark or found.context_mark, found.problem or found.context
        lines = len(text.splitlines())
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark and lines > 1 else where
        raise error(f"not valid YAML: {what}", where=place, remedy="correct that place") from None
    except RecursionError:
        raise error("not valid YAML: it is nested too deeply", where=where, remedy=remedy) from None
    except Exception as found:  # a number of thousands of digits, a tag such as !!bool on what is none
        raise error(f"not valid YAML: {first_line(found).partition(';')[0]}", where=where, remedy=remedy) from None
    return node


def plain(node: yaml.Node) -> Any:
    """The value of a node."""
    return yaml.constructor.SafeConstructor().construct_document(node)


def _count(node: yaml.Node) -> int:
    """How many values there are, up to one more than `MOST`; a mapping that holds itself has no end."""
    left, count = [node], 0
    while left and count <= MOST:
        one = left.pop()
        count += 1
        if isinstance(one, yaml.MappingNode):
            left += [part for pair in one.value for part in pair]
        elif isinstance(one, yaml.SequenceNode):
            left += one.value
    return count
