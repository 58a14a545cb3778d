"""Pages are made by `report/` alone: templates hold the HTML, Python draws SVG in one file, the arena knows no page."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "finepref"
TAG = re.compile(
    r"</?(html|head|body|main|nav|section|header|footer|div|span|p|h[1-6]|ul|ol|li|table|thead|tbody|tr|th|td|b|i|em|s|a"
    r"|br|img|figure|figcaption|details|summary|small|code|style|script|svg|g|text|rect|line|circle)(\s*/?>|\s+[\w-]+=)"
)


def literals(path: Path) -> list[tuple[int, str]]:
    """(line, text) of every string of a file that is no docstring; the fixed parts of f-strings too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in statements
    ]


def markup(path: Path) -> list[str]:
    """Places of a file where a string begins or ends an element."""
    place = path.relative_to(PACKAGE).as_posix()
    return [f"{place}:{line} {found[0]}" for line, text in literals(path) if (found := TAG.search(text))]


def test_no_markup_in_python() -> None:
    """No string of Python holds an element; the drawings of report/charts.py are put together by one function."""
    found = [place for path in sorted(PACKAGE.rglob("*.py")) for place in markup(path)]
    assert not found, "\n".join(found)


def test_only_the_charts_build_elements() -> None:
    """`Markup` marks text as safe; only the charts and the kit, which takes in style and script, may do so."""
    users = {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if "Markup(" in p.read_text("utf-8")}
    assert users == {"report/charts.py", "report/kit.py"}
    assert not [path.name for path in PACKAGE.rglob("*.j2") if "|safe" in path.read_text("utf-8")]


def test_the_rule_sees_markup(tmp_path: Path) -> None:
    for text, seen in (('x = f"<p>{y}</p>"', True), ('x = "<table class=a>" + y', True), ('x = "a < b"', False)):
        assert bool(TAG.search(literals(_file(tmp_path, text))[0][1])) is seen


def _file(folder: Path, text: str) -> Path:
    path = folder / "one.py"
    path.write_text(text)
    return path
