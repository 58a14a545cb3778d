"""Shared test settings: offline, one thread, shapes checked at every call, the same examples drawn every time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

import drawn  # noqa: F401  (loads the profile of the property tests, before a test module reads it)
from nightly import LONG

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before anything imports them: every jaxtyping annotation of these packages is checked by beartype while testing.
install_import_hook(["finepref.diffusion", "finepref.objectives"], "shape_checker.check")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the long tests."""
    for item in items:
        if item.nodeid.startswith(LONG):
            item.add_marker(pytest.mark.nightly)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared research data beside the checkout; tests that want it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside the checkout")
    return SHARED
