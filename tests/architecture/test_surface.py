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
USER = Path(__file__).resolve().parents[1] / "typing" / "user.py"
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
    """mypy knows what the functions return, and finds each wrong argument and name, where tests/typing/user.py says."""
    sections = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in SKIPPED.split())
    ini = f"[mypy]\nfollow_imports = silent\nignore_missing_imports = true\nwarn_unused_ignores = true\n{sections}"
    (tmp_path / "mypy.ini").write_text(ini)
    words = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", str(USER)]
    env = {**os.environ, "MYPYPATH": str(SOURCE)}
    checked = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert checked.stdout == "Success: no issues found in 1 source file\n"
    assert (SOURCE / "finepref" / "py.typed").is_file()
