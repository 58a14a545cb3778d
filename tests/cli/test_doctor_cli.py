"""`finepref doctor` says what is installed and finds a broken torchvision."""

from __future__ import annotations

import json
import subprocess
import sys

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
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "0.28.0" if name == "torchvision" else real(name))

    def broken(*_args: object, **_kwargs: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "RuntimeError: operator torchvision::nms does not exist\n")

    monkeypatch.setattr(doctor.subprocess, "run", broken)
    finding = doctor._probe_torchvision()
    assert not finding.good
    assert "operator torchvision::nms does not exist" in finding.what
    assert finding.remedy.startswith("pip uninstall torchvision")


def test_old_versions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "peft" else "1.9.0")
    finding = doctor._floors()
    assert not finding.good
    assert "torch 1.9.0, at least 2.6 is needed" in finding.what
    assert "peft is missing" in finding.what
