"""`finepref doctor` says what is installed and finds a broken torchvision."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import pytest

from finepref.plan import environment as doctor


def test_doctor_json() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "finepref", "doctor", "--json"], capture_output=True, text=True, check=False
    )
    facts = json.loads(done.stdout)
    assert facts["versions"]["torch"].startswith("2.")
    assert facts["devices"][0] == "cpu"
    assert done.returncode == int(not all(finding["good"] for finding in facts["findings"]))


def test_a_broken_torchvision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.28.0" if name == "torchvision" else real(name))

    def broken(*_args: object, **_kwargs: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "RuntimeError: operator torchvision::nms does not exist\n")

    monkeypatch.setattr(doctor.subprocess, "run", broken)
    (finding,) = [finding for finding in doctor.examine()[1] if "torchvision" in finding.what]
    assert not finding.good
    assert "operator torchvision::nms does not exist" in finding.what
    assert finding.remedy.startswith("pip uninstall torchvision")


def test_old_versions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def old(name: str) -> str:
        if name == "peft":
            raise metadata.PackageNotFoundError(name)
        return "1.9.0"

    monkeypatch.setattr(metadata, "version", old)
    finding = doctor.examine()[1][0]
    assert not finding.good
    assert "torch 1.9.0, at least 2.6 is needed" in finding.what
    assert "peft is missing" in finding.what
