"""The package where nothing else is: an empty environment, the wheel with what it needs, and the demo.

Needs the package registry, minutes and 2 GB, so only the nightly run has it (tests/nightly.py). What is in the package
stands in tests/unit/test_package.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import venv
from pathlib import Path

import pytest

import package_files

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(3600)  # the registry is somewhere else
def test_installed_in_an_empty_environment(tmp_path: Path) -> None:
    """Wheel and sdist install the same files; doctor and the demo run where the repository is not."""
    built = package_files.build(tmp_path / "built")
    place, work = tmp_path / "env", tmp_path / "work"
    venv.create(place, with_pip=True)
    work.mkdir()
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    env |= {"OMP_NUM_THREADS": "1", "FINEPREF_HOME": str(tmp_path / "home"), "VIRTUAL_ENV": str(place)}

    def call(*words: str | Path) -> str:
        done = subprocess.run(words, cwd=work, env=env, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout

    install = (place / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")
    call(*install, built.wheel, "-c", ROOT / "constraints" / "ci.txt")
    (package,) = place.glob("lib/python*/site-packages/finepref")
    files = installed(package)
    assert "py.typed" in files
    found = call(place / "bin" / "python", "-c", "import finepref; print(finepref.__file__)")
    assert found.strip() == str(package / "__init__.py")
    doctor = json.loads(call(place / "bin" / "finepref", "doctor", "--json"))
    assert doctor["versions"]["finepref"] == built.wheel.name.split("-")[1]
    call(place / "bin" / "finepref", "demo", "--quick", "--workers", "1", "--out", "demo")
    assert set(json.loads((work / "demo" / "summary.json").read_text())["true_quality"]) == {"base", "dpo", "posterior"}
    assert (work / "demo" / "report.html").is_file()
    call(*install, "--force-reinstall", "--no-deps", built.sdist)
    assert installed(package) == files


def installed(package: Path) -> dict[str, int]:
    """The files of a package and their sizes."""
    files = (path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(package).as_posix(): path.stat().st_size for path in files}
