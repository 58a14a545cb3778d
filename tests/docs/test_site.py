"""The site builds strictly and without network; its reference holds what the code has; every page shows something.

The reference is written from the code (scripts/site_reference.py). What must stand in it is found here another way:
what commands print for `--help` and as JSON, and what is declared in the source of `finepref.formats`.
"""

from __future__ import annotations

import ast
import html
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

import finepref
import one_process
from finepref.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
REMOTE = re.compile(
    r"<(?:script|img|iframe)\b[^>]*\bsrc=\"?(?:https?:)?//[^\s\">]+|<link\b[^>]*\bhref=\"?https?://[^\s\">]+"
)
SHOWN = re.compile(r"<img\b|<pre\b")
CODE = re.compile(r"<code>(.*?)</code>", re.S)
INTERNAL = {
    "Account", "Asked", "Cells", "Checked", "Crops", "Dialect", "Games", "GapChunk", "Gathered", "ImageRef", "Items",
    "Joined", "Kind", "Layer", "Layout", "Manifest", "Met", "Once", "Onward", "OpenedPairs", "PairColumns", "PairRows",
    "Parts", "Preference", "Preferences", "PromptSet", "ReadPart", "Reading", "Rewards", "Scores", "Setting", "Stack",
    "Standing", "Stretch", "Table", "Vocabulary", "VoteTable", "Votes",
}  # fmt: skip
"""Records of `formats/` that live in memory alone."""

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="pip install 'finepref[docs]' builds the site"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make site` does."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run([ROOT / "scripts" / "site", str(folder)], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def parts(site: Path, page: str) -> dict[str, set[str]]:
    """Heading -> what is shown as code below it, up to the next heading."""
    text = (site / "reference" / page).read_text(encoding="utf-8")
    _, *found = re.split(r"<h[1-6] id=\"([^\"]+)\"", text)
    return {name: coded(inside) for name, inside in zip(found[::2], found[1::2], strict=True)}


def coded(text: str) -> set[str]:
    return {html.unescape(re.sub(r"<[^>]+>", "", found)) for found in CODE.findall(text)}


def words(site: Path, page: str) -> set[str]:
    """What a page shows as code."""
    return coded((site / "reference" / page).read_text(encoding="utf-8"))


def printed(*lines: str) -> str:
    """What commands print, run in one process."""
    call = [sys.executable, "-c", one_process.CODE]
    return subprocess.run(call, input="\n".join(lines), capture_output=True, text=True, check=True).stdout


def helps(commands: list[str]) -> dict[str, str]:
    """Command -> what it prints for --help, with the commands of groups."""
    texts = printed(*(f"{command} --help" for command in commands)).split("Usage: ")[1:]
    found = dict(zip(commands, texts, strict=True))
    inner = [
        f"{command} {name}"
        for command, text in found.items()
        for name in re.findall(r"^  ([a-z][\w-]*)", text.partition("\nCommands:\n")[2].partition("\n\n")[0], re.M)
    ]
    return {**found, **(helps(inner) if inner else {})}


def test_every_command_and_option(site: Path) -> None:
    """What --help lists stands below the command's heading."""
    page = parts(site, "commands.html")
    listed = helps([f"finepref {name}" for name in COMMANDS])
    assert len(listed) > len(COMMANDS)
    for command, text in listed.items():
        lines = re.findall(r"^  (-[^<\s,]*(?:, -[^<\s,]*)*)", text.partition("\nOptions:\n")[2], re.M)
        options = {option for line in lines for option in line.split(", ")} - {"-h", "--help", "--plugin"}
        left = options - page[command.replace(" ", "-")]
        assert not left, (command, left)
        assert options or "Commands:" in text or command in WITHOUT_OPTIONS, command


WITHOUT_OPTIONS = ("finepref scorers list", "finepref doctor")


def keys(schema: dict[str, Any], place: str, defs: dict[str, Any]) -> Iterator[str]:
    """The dotted names of the options in a JSON schema."""
    for each in (schema, *schema.get("anyOf", ()), *schema.get("allOf", ())):
        if "$ref" in each:
            yield from keys(defs[each["$ref"].rpartition("/")[2]], place, defs)
        for name, inner in each.get("properties", {}).items():
            yield (dotted := f"{place}.{name}".lstrip("."))
            yield from keys(inner, dotted, defs)


def test_every_option_of_a_run(site: Path) -> None:
    """What `finepref config --schema` lists, options of the rows of the axes among it."""
    schema = json.loads(printed("finepref config --schema"))
    wanted = {key for key in keys(schema, "", schema["$defs"]) if "." in key}
    assert {"train.stop.patience", "trajectory.steps", "guard.mu", "lora.rank", "validation.every"} <= wanted
    assert wanted <= words(site, "config.html")


def columns(tree: ast.Module) -> Iterator[str]:
    """The fields of the records of a module, and the columns of its schemas."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and "dataclass" in "".join(map(ast.unparse, node.decorator_list)):
            fields = (each for each in node.body if isinstance(each, ast.AnnAssign))
            named = node.name not in INTERNAL and not node.name.startswith("_")
            yield from (ast.unparse(each.target) for each in fields if named)
        if isinstance(node, ast.Tuple) and len(node.elts) == 2 and "pa." in ast.unparse(node.elts[1]):
            yield from (each.value for each in node.elts[:1] if isinstance(each, ast.Constant))


def test_every_column_and_key(site: Path) -> None:
    """Of the files that commands exchange, as their modules declare them."""
    shown, missing = words(site, "files.html"), {}
    for path in sorted((ROOT / "src" / "finepref" / "formats").glob("*.py")):
        if left := {*columns(ast.parse(path.read_text(encoding="utf-8")))} - shown:
            missing[path.name] = left
    assert not missing, missing


def test_every_method_row_and_scorer(site: Path) -> None:
    """What `finepref methods --json` and `finepref scorers list` print."""
    methods, _, scorers = printed("finepref methods --json", "finepref scorers list").rpartition("\n}\n")
    content = json.loads(methods + "\n}")
    shown, headings = words(site, "methods.html"), parts(site, "methods.html")
    assert {method["name"] for method in content.pop("methods")} <= shown
    for axis, rows in content.items():
        for name, row in rows.items():
            place = re.sub(r"[^\w-]", "", f"{axis} {name}".lower().replace(" ", "-"))
            assert {*row["options"]} <= headings[place], (axis, name)
    assert {line.split()[0] for line in scorers.splitlines()} <= words(site, "scorers.html")


def test_every_name_of_python(site: Path) -> None:
    """Each with the first line of its docstring."""
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", page)).split())
    for name in finepref.__all__[1:]:
        assert f">fp.{name}<" in page, name
        first = (inspect.getdoc(getattr(finepref, name)) or "").split("\n")[0].split(". ")[0]
        assert first.replace("`", "") in text, name


def pages(site: Path) -> Iterator[tuple[Path, str]]:
    """Every page, but those that scripts wrote as results, and what is shown for a page that is not there."""
    for path in sorted(site.rglob("*.html")):
        if path.relative_to(site).parts[0] != "benchmarks" and path.name != "404.html":
            yield path, path.read_text(encoding="utf-8")


def test_every_page_shows_something(site: Path) -> None:
    """A picture or an example."""
    bare = [path.name for path, text in pages(site) if not SHOWN.search(text.partition("<article")[2])]
    assert not bare, bare


def test_no_link_is_broken(site: Path) -> None:
    """Each leads to a file of the site, and to a place in it that is there."""
    ids = {path: {*re.findall(r"\bid=\"([^\"]+)\"", path.read_text(encoding="utf-8"))} for path in site.rglob("*.html")}
    broken, links = [], 0
    for path, text in pages(site):
        for link in re.findall(r"<(?:a|img|link|script)\b[^>]*?\b(?:href|src)=\"([^\"]+)\"", text):
            address, _, anchor = html.unescape(link).partition("#")
            if re.match(r"\w+:|//", address):
                continue
            target = (path.parent / unquote(address)).resolve() if address else path
            links += 1
            if not target.exists() or (anchor and target in ids and unquote(anchor) not in ids[target]):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert links > 1000
    assert not [each for each in broken if not each.endswith("#__codelineno")]


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """No script, style, font or picture of another host."""
    found = [hit for path, text in pages(site) for hit in REMOTE.findall(text)]
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert not found
    assert styles
    assert not [hit for text in styles for hit in re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//\S+", text)]


def test_every_picture_is_made_by_the_script() -> None:
    """scripts/pictures names every file of docs/images, and no other."""
    named = set(re.findall(r"\"(\w+\.(?:png|svg))\"", (ROOT / "scripts" / "pictures").read_text(encoding="utf-8")))
    assert named == {path.name for path in (ROOT / "docs" / "images").iterdir()} | {"shot.png"}
