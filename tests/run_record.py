"""A record of a run for tests, with what matters to a test changed."""

from __future__ import annotations

from typing import Any

from finepref.formats.run import RunAxes, RunRecord, RunSignals


def run_record(**changes: Any) -> RunRecord:
    """A small finished DPO run."""
    given: dict[str, Any] = {
        "method": "dpo",
        "axes": RunAxes(signal="arena", trajectory="forward", objective="dpo", guard="none"),
        "base": "lab",
        "family": "sd15",
        "base_sha256": "0" * 64,
        "seed": 0,
        "config_hash": "0" * 64,
        "identity": "0" * 64,
        "signals": RunSignals(kind="arena", sha256="0" * 64, pairs=4, left_out=0),
        "steps": 9,
        "pairs": 36,
        "device_seconds": 100.0,
        "device": "cpu",
        "peak_memory_mb": 1.0,
    }
    return RunRecord(**(given | changes))
