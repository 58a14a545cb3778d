"""The package: what is in it, that it works away from the repository, and that what is said of it agrees."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import package_files
from finepref.plan.environment import FLOORS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MEGABYTES = 14
LIGHT = """
import sys
import finepref
from finepref.cli.main import main

assert finepref.__file__.startswith(sys.argv[1]), finepref.__file__
open("votes.csv", "w").write("left,right,winner\\n" + "a,b,left\\nb,a,right\\na,b,tie\\n" * 5)
for words in ("methods", "config -c sd15/pickapic_v2/arenapo", "lab model --out model", "arena votes.csv --out arena"):
    sys.argv = ["finepref", *words.split()]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, words
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> package_files.Built:
    return package_files.build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def metadata(built: package_files.Built) -> Message:
    with zipfile.ZipFile(built.wheel) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(wheel.read(name))


def test_a_wheel_of_the_sdist_holds_every_file(built: package_files.Built) -> None:
    """Code, layers, templates, assets, weights of the lab and py.typed; nothing else, and not much."""
    source = ROOT / "src"
    files = {path.relative_to(source).as_posix() for path in (source / "finepref").rglob("*") if path.is_file()}
    with zipfile.ZipFile(built.wheel) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert [name for name in wheel.namelist() if name.endswith("/licenses/LICENSE")]
    assert held == {name for name in files if "__pycache__" not in name}
    assert "finepref/py.typed" in held
    assert max(path.stat().st_size for path in (built.wheel, built.sdist)) < MEGABYTES * 1e6


def test_metadata(metadata: Message) -> None:
    """As pyproject.toml says."""
    for field, value in (
        ("Name", PROJECT["name"]),
        ("Version", PROJECT["version"]),
        ("Summary", PROJECT["description"]),
        ("License-Expression", "Apache-2.0"),
        ("Requires-Python", PROJECT["requires-python"]),
    ):
        assert metadata[field] == value, field
    assert metadata.get_all("Classifier") == PROJECT["classifiers"]
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {line.lower() for line in needed} == {line.lower().replace("_", "-") for line in PROJECT["dependencies"]}
    assert str(metadata.get_payload()).startswith("# finepref\n")


def test_it_works_away_from_the_repository(built: package_files.Built, tmp_path: Path) -> None:
    """Layers, weights, templates and assets are found where the wheel was unpacked, in a folder that holds nothing."""
    with zipfile.ZipFile(built.wheel) as wheel:
        wheel.extractall(tmp_path / "site")
    (tmp_path / "work").mkdir()
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "FINEPREF_HOME": str(tmp_path / "home")}
    words = [sys.executable, "-c", LIGHT, str(tmp_path / "site")]
    done = subprocess.run(words, cwd=tmp_path / "work", env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "work" / "model" / "model_index.json").is_file()
    assert "<svg" in (tmp_path / "work" / "arena" / "arena.html").read_text(encoding="utf-8")


def test_floors_are_those_that_were_tried() -> None:
    """Every lower bound stands in constraints/floors.txt, with which the suite's choice was run; doctor knows the same.

    torch is left out: it was tried as constraints/ci.txt has it.
    """
    pinned = {}
    for line in (ROOT / "constraints" / "floors.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pinned[name] = Version(version)
    floors = {
        (needed := Requirement(line)).name: Version(next(iter(needed.specifier)).version)
        for line in PROJECT["dependencies"]
    }
    assert {**pinned, "torch": floors["torch"]} == floors
    assert f"torch=={pinned['torch']}" in (ROOT / "constraints" / "ci.txt").read_text(encoding="utf-8").split()
    for name, floor in FLOORS.items():
        assert floors[name] == Version(".".join(map(str, floor))), name


def test_pythons_agree() -> None:
    """Classifiers name the Pythons that were tried; the workflow marks the others."""
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    job = yaml.safe_load(text)["jobs"]["suite"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    versions = [each["python"] for each in job["strategy"]["matrix"]["include"]]
    assert versions == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["requires-python"] == f">={versions[0]}"
    tried = [version for version in versions if not re.search(rf'"{version}" .*# not tried$', text, re.MULTILINE)]
    said = [line.rpartition(" :: ")[2] for line in PROJECT["classifiers"] if re.search(r" :: 3\.\d+$", line)]
    assert tried == said


def test_what_is_said_of_it_agrees() -> None:
    """CITATION.cff, the changelog, and the templates of issues."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["title"], cited["version"], cited["license"]) == ("finepref", PROJECT["version"], PROJECT["license"])
    assert cited["authors"] == PROJECT["authors"]
    assert re.search(r"^## (Unreleased|\d)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        template = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.name != "config.yml":
            assert {"name", "description", "body"} == set(template), path.name
            assert all(field["attributes"]["label"] for field in template["body"]), path.name


def test_hooks_are_those_of_make_check() -> None:
    """pre-commit calls tools of `.venv` that scripts/check calls too, or a script that is there."""
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    check = (ROOT / "scripts" / "check").read_text(encoding="utf-8")
    for hook in local["hooks"]:
        program, _, rest = hook["entry"].partition(" ")
        if program.endswith("python"):
            assert (ROOT / rest).is_file(), rest
        else:
            assert program in check, program
