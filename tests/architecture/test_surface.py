"""The public surface: `import finepref as fp` is light, has the names that it says, with docstrings and real types."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import finepref
from finepref.core.rows import table

SOURCE = Path(finepref.__file__).parents[1]
USER = """
import finepref as fp

votes = fp.read_votes("votes.csv")
ratings = fp.rate(votes, engine="batch")
prefs = fp.read_preferences("pairs.parquet")
reveal_type(ratings)
reveal_type(fp.gaps(votes, ratings, kind="image"))
reveal_type(prefs)
reveal_type(fp.make_signals(prefs, kind="paper", ratings=ratings))
reveal_type(fp.objectives.dpo)
reveal_type(fp.guards.sdpo)
reveal_type(fp.Trainer("lab", prefs, method="dpo", out="run", callbacks=[fp.Callback()]).train())
reveal_type(fp.generate({"base": "lab"}, "lab-eval", [0], "eval"))
reveal_type(fp.score("eval", ["lab-true"]))
reveal_type(fp.compare("eval", "base"))
reveal_type(fp.report("eval", "report.html"))
fp.rate(3)
fp.rates
"""
TYPES = """
finepref.arena.ratings.Ratings
numpy.ndarray[tuple[Any, ...], numpy.dtype[numpy.float64]]
finepref.formats.preferences.Preferences
finepref.formats.signals.Signals
def (pred: finepref.core.tensors.PairPrediction, signal: finepref.core.tensors.PairSignal, *, beta: float) -> \
finepref.core.tensors.ObjectiveOutput
def (pred: finepref.core.tensors.PairPrediction, *, mu: float, scope: Literal['sample'] | Literal['batch'] =) -> \
tuple[finepref.core.tensors.PairPrediction, dict[str, Any]]
pathlib.Path
finepref.formats.manifest.Manifest
finepref.formats.scores.Scores
finepref.formats.comparison.Comparison
pathlib.Path
""".replace("\\\n", "")
SKIPPED = (
    "torch diffusers transformers peft scipy PIL pydantic jaxtyping typer rich pyarrow accelerate safetensors yaml"
)
"""Libraries that the check of types does not read, for speed."""


def test_names_are_there_and_documented() -> None:
    """Every name of `__all__` can be had, has a docstring, and no other name is shown."""
    assert dir(finepref) == sorted(finepref.__all__)
    for name in finepref.__all__[1:]:
        found = getattr(finepref, name)
        assert inspect.getdoc(found), name
        methods = inspect.getmembers(found, inspect.isfunction) if inspect.isclass(found) else ()
        undocumented = [method for method, each in methods if not inspect.getdoc(each)]
        assert not [method for method in undocumented if not method.startswith("_")], (name, undocumented)


def test_light() -> None:
    """`import finepref`, and all that a laptop job takes from it, load no torch."""
    light = ("Votes", "rate", "gaps", "read_votes", "read_preferences", "make_signals", "report", "register", "compare")
    code = f"import sys, finepref\nassert len(sys.modules) < 300\nfor name in {light}:\n    getattr(finepref, name)\n"
    code += "print('torch' in sys.modules, 'diffusers' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False False\n"


def test_report_is_the_function() -> None:
    """The room of that name does not take its place when it is imported."""
    code = "import finepref\nfrom finepref.report import page\nassert finepref.report is page.report"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_functions_by_the_names_of_their_rows() -> None:
    """What training takes from the tables is there for a loop of one's own."""
    for axis, module, field in (
        ("objective", finepref.objectives, "function"),
        ("guard", finepref.guards, "function"),
        ("trajectory", finepref.trajectories, "place"),
    ):
        for name, row in table(axis).items():
            if name not in table(axis).origin:
                assert getattr(module, name) is getattr(row, field), (axis, name)


def test_types_of_a_users_program(tmp_path: Path) -> None:
    """mypy knows what the functions return, and finds a wrong argument and a wrong name."""
    (tmp_path / "user.py").write_text(USER)
    sections = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in SKIPPED.split())
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nfollow_imports = silent\nignore_missing_imports = true\n{sections}")
    words = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", "user.py"]
    env = {**os.environ, "MYPYPATH": str(SOURCE)}
    printed = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True).stdout
    assert [line.split('"')[1] for line in printed.splitlines() if "Revealed" in line] == TYPES.split("\n")[1:-1], (
        printed
    )
    errors = [line for line in printed.splitlines() if " error: " in line]
    assert [line.partition("  [")[2] for line in errors] == ["arg-type]", "attr-defined]"], printed
    assert (SOURCE / "finepref" / "py.typed").is_file()
