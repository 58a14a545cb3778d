"""The notebooks of examples/ run from top to bottom, each in an empty folder, with the sizes of `QUICK`.

`python THIS_FILE FOLDER NAME...` runs those of these names in one process. A cell is run as Jupyter does:
`!finepref ...` is a command, and the value of a last expression is shown. The cell with the tag `parameters` is
followed by smaller sizes.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
QUICK = {"VOTES": 80, "STEPS": 2, "PROMPTS": 4, "SEEDS": [0], "SETS": 24}


def cells(path: Path) -> list[dict[str, Any]]:
    """The cells of code."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


def command(line: str, names: dict[str, Any]) -> None:
    """A line `!finepref ...`, with `{NAME}` as Jupyter puts it in."""
    from finepref.cli.main import main

    words = shlex.split(re.sub(r"\{(\w+)\}", lambda found: str(names[found[1]]), line))
    assert words[0] == "finepref", line
    sys.argv = words
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"{line}: exit {ended.code}") from None


def run_cell(text: str, names: dict[str, Any]) -> Any:
    """The value of the last expression; None where the last line is none."""
    if text.startswith("!"):
        for line in text.splitlines():
            command(line.removeprefix("!"), names)
        return None
    tree = ast.parse(text)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def run_notebook(path: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells(path)):
        try:
            shown = run_cell("".join(cell["source"]), names)
            getattr(shown, "_repr_html_", lambda: repr(shown))()  # noqa: B023
        except BaseException as error:
            raise RuntimeError(f"{path.name}, cell of code {number}: {error}") from error
        if "parameters" in cell["metadata"].get("tags", ()):
            names |= {name: value for name, value in QUICK.items() if name in names}


def run_all(folder: Path, names: list[str]) -> None:
    """Run notebooks; failed.json says which failed."""
    failed = {}
    for path in (each for each in NOTEBOOKS if each.stem in names):
        place = folder / path.stem
        place.mkdir()
        os.chdir(place)
        sys.path.insert(0, str(place))
        try:
            run_notebook(path)
        except BaseException:
            failed[path.name] = traceback.format_exc()
        sys.path.remove(str(place))
    (folder / "failed.json").write_text(json.dumps(failed))


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, str]:
    chosen = [item for item in request.session.items if getattr(item, "originalname", "") == "test_it_runs"]
    names = [item.callspec.params["path"].stem for item in chosen]  # type: ignore[attr-defined]
    folder = tmp_path_factory.mktemp("notebooks")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, __file__, str(folder), *names], env=environment, capture_output=True, text=True, check=False
    )
    assert (folder / "failed.json").is_file(), done.stderr[-4000:]
    found: dict[str, str] = json.loads((folder / "failed.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(failed: dict[str, str], path: Path) -> None:
    assert path.name not in failed, failed[path.name]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_what_it_printed(path: Path) -> None:
    """Outputs go stale, and make every diff unreadable; a reader runs the notebook."""
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells(path))


def test_there_are_four() -> None:
    assert len(NOTEBOOKS) == 4


if __name__ == "__main__":
    run_all(Path(sys.argv[1]), sys.argv[2:])
