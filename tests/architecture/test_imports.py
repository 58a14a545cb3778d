"""Who may import whom (docs: the import DAG), which third parties, and what importing costs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "finepref"
# A room may import the rooms of the lines above its own, and of its own line those that SIDEWAYS names.
LEVELS: tuple[frozenset[str], ...] = (
    frozenset({"core"}),
    frozenset({"formats"}),
    frozenset({"arena", "signals", "diffusion", "objectives"}),
    frozenset({"models"}),
    frozenset({"data", "plan", "train", "evaluate"}),
    frozenset({"report", "collect"}),
    frozenset({"align", "rounds", "study"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
SIDEWAYS: dict[str, set[str]] = {
    "signals": {"arena"},
    "train": {"data", "evaluate"},  # the statistics of held-out pairs
    "plan": {"train", "data", "evaluate"},  # what a scorer costs
    "evaluate": {"data"},
    "study": {"lab", "align"},
    "rounds": {"align"},
    "cli": {"lab"},
    "lab": {"core", "formats", "arena", "signals", "diffusion", "objectives", "models", "evaluate"},
}
THIRD_PARTIES: dict[str, set[str]] = {
    "core": {"numpy", "pyarrow", "pydantic", "tqdm", "rich", "torch", "PIL"},
    "arena": {"numpy", "scipy", "pyarrow", "numba"},
    "signals": {"numpy", "scipy", "pyarrow", "pydantic"},
    "diffusion": {"torch", "jaxtyping", "pydantic", "diffusers"},
    "objectives": {"torch", "jaxtyping", "pydantic"},
}
BANNED = {
    "torchvision",
    "open_clip",
    "timm",
    "xformers",
    "hpsv2",
    "ImageReward",
    "imscore",
    "streaming",
    "litdata",
    "ray",
}


def part_of(module: str) -> str:
    """finepref.evaluate.scorers.clip -> evaluate; finepref.core.rng -> core."""
    return [*module.split("."), ""][1]


def module_of(path: Path) -> str:
    parts = ["finepref", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(path: Path) -> tuple[tuple[str, int, bool], ...]:
    """(module, line, whether it runs when the file is imported) of every import, TYPE_CHECKING blocks left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: list[tuple[str, int, bool]] = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            inside = top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            if isinstance(child, ast.Import):
                found.extend((alias.name, child.lineno, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno} relative import"
                module = child.module or ""
                for alias in child.names:
                    inner = PACKAGE.parent / Path(*module.split(".")) / f"{alias.name}.py"
                    is_module = inner.exists() or inner.with_suffix("").is_dir()
                    found.append((f"{module}.{alias.name}" if is_module else module, child.lineno, top))
            visit(child, inside)

    visit(tree, True)
    return tuple(found)


FILES = sorted(PACKAGE.rglob("*.py"))


LEVEL = {part: number for number, parts in enumerate(LEVELS) for part in parts}


def test_import_directions() -> None:
    """No room imports upward; only study, cli and the composition root know that there is a lab."""
    wrong = []
    for path in FILES:
        part = part_of(module_of(path))
        for name, line, _ in imports(path):
            other = part_of(name)
            if not name.startswith("finepref.") or other == part:
                continue
            downward = other in LEVEL and part in LEVEL and LEVEL[other] < LEVEL[part]
            if not downward and other not in SIDEWAYS.get(part, set()):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} {part} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_cycles() -> None:
    """Modules that are imported at import time form no cycle."""
    graph = {
        module_of(path): {name for name, _, top in imports(path) if top and name.startswith("finepref")}
        for path in FILES
    }
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        if module in trail:
            raise AssertionError(" -> ".join([*trail[trail.index(module) :], module]))
        if module in done or module not in graph:
            return
        for other in sorted(graph[module] - {module}):
            walk(other, (*trail, module))
        done.add(module)

    for module in graph:
        walk(module, ())


@pytest.mark.parametrize("part", sorted(THIRD_PARTIES))
def test_third_parties(part: str) -> None:
    """The mathematical parts know few libraries."""
    ours = [p for p in FILES if part_of(module_of(p)) == part]
    wrong = [
        f"{path.name}:{line} {name}"
        for path in ours
        for name, line, _ in imports(path)
        if name.split(".")[0] not in sys.stdlib_module_names | THIRD_PARTIES[part] | {"finepref"}
    ]
    assert ours
    assert not wrong, "\n".join(wrong)


def test_no_banned_library() -> None:
    """Libraries that break other people's environments are not imported anywhere."""
    folders = [PACKAGE, *(PACKAGE.parents[1] / name for name in ("tests", "benchmarks", "examples"))]
    wrong = [
        f"{path}:{line} {name}"
        for folder in folders
        for path in folder.rglob("*.py")
        for name, line, _ in imports(path)
        if name.split(".")[0] in BANNED
    ]
    assert not wrong, "\n".join(wrong)


LIGHT = (
    "finepref",
    "finepref.arena",
    "finepref.signals",
    "finepref.data",
    "finepref.report",
    "finepref.cli.main",
)


@pytest.mark.parametrize("module", LIGHT)
def test_light_imports_load_neither_torch_nor_diffusers(module: str) -> None:
    """A laptop job must not pay for torch."""
    code = (
        f"import {module}, sys, json;"
        "print(json.dumps([m for m in ('torch', 'diffusers', 'transformers', 'datasets') if m in sys.modules]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []


def test_help_loads_no_torch() -> None:
    """`benchmarks/cli_start.py` measures what it costs."""
    code = (
        "import sys\n"
        "from finepref.cli.main import main\n"
        "sys.argv = ['finepref', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print('TORCH', 'torch' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("TORCH False\n")
