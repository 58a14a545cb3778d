"""run.json, metrics.jsonl and timing.jsonl: written and read back, older ones read, broken ones refused."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from finepref.core.errors import InputError
from finepref.formats.metrics import (
    TIMING,
    BucketMetrics,
    StepMetrics,
    StepTiming,
    append_line,
    append_metrics,
    cut_after,
    read_metrics,
    read_timing,
)
from finepref.formats.run import RunSignals, is_finished, read_run, write_run
from run_record import run_record


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert not is_finished(tmp_path)
    for record in (
        run_record(),
        run_record(init_sha256="1", device_seconds=None, device_seconds_by={"labelling": None, "training": 2.0}),
        run_record(signals=RunSignals(kind="kto", sha256="2", rewards=("a", "b"), images=4, desirable=2)),
    ):
        write_run(tmp_path, record)
        assert is_finished(tmp_path)
        assert read_run(tmp_path) == record
    assert "left_out" not in json.loads((tmp_path / "run.json").read_text())["signals"]


def test_a_run_without_a_version_is_read_and_a_newer_or_broken_one_refused(tmp_path: Path) -> None:
    write_run(tmp_path, run_record())
    held = json.loads((tmp_path / "run.json").read_text())

    def hold(value: object) -> None:
        (tmp_path / "run.json").write_text(json.dumps(value))

    hold({key: value for key, value in held.items() if key != "version"})
    assert read_run(tmp_path) == run_record()
    for value, word in (
        ({**held, "version": 2}, "version 2 is not known"),
        ({**held, "steps": "many"}, "steps: "),
        ({**held, "signals": {"sha256": ""}}, "signals.kind: field required"),
        ({"scripts": {}}, "method: field required"),
        ([held], "it is not of the form"),
    ):
        hold(value)
        with pytest.raises(InputError, match=word):
            read_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_run(tmp_path)


def test_steps_are_read_as_they_were_written_and_cut(tmp_path: Path) -> None:
    """nan and infinity become null and are nan when read; a resume drops later steps and half a line."""
    assert read_metrics(tmp_path) == read_timing(tmp_path) == ()
    step = StepMetrics(
        step=1, means={"loss": 0.5}, pairs=4, by_t=(BucketMetrics(4, {"loss": 0.5}), BucketMetrics(0, {"loss": 1.0})),
        grad_norm=1.0, lr=1e-6,
    )  # fmt: skip
    scaled = replace(step, step=2, loss_scale=512.0, overflow=True)
    skipped = replace(step, step=3, grad_norm=math.inf, skipped_pairs=("p1",))
    for record in (step, scaled, skipped):
        append_metrics(tmp_path, record)
        append_line(tmp_path / TIMING, asdict(StepTiming(record.step, 0.1, 0.1 * record.step)))
    *before, last = read_metrics(tmp_path)
    assert before == [step, scaled]
    assert math.isnan(last.grad_norm)
    assert replace(last, grad_norm=math.inf) == skipped
    assert list(step.numbers()) == ["loss", "grad_norm", "lr", "loss/t0", "loss/t1"]
    assert scaled.numbers()["loss_scale"] == 512
    with (tmp_path / "metrics.jsonl").open("a") as handle:
        handle.write('{"step": 4, "lo')
    with pytest.raises(InputError, match="line 4: not valid JSON"):
        read_metrics(tmp_path)
    cut_after(tmp_path, 2)
    assert [record.step for record in read_metrics(tmp_path)] == [1, 2]
    assert [record.step for record in read_timing(tmp_path)] == [1, 2]


@pytest.mark.parametrize("line", ["[1]", '{"step": 1}', '{"step": 1, "pairs": 2, "by_t": [3]}'])
def test_a_line_that_is_no_step_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match="line 1"):
        read_metrics(tmp_path)
