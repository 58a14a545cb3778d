"""Commands in processes that were forked with their imports: they are what `python -m finepref` is."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from finepref.align.starter import Starter
from finepref.align.timed import Stage, run_stage
from finepref.core.errors import FineprefError

ONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def votes(out: Path, count: int = 20) -> tuple[str, ...]:
    return ("lab", "votes", "--out", str(out), "--count", str(count), "--prompts", "4")


def test_what_commands_leave_and_how_they_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """They run where the person is and say what they say on stderr; one that fails ends those beside it."""
    monkeypatch.chdir(tmp_path)
    with Starter() as starter:
        found = starter.run([votes(Path("a.parquet")), votes(Path("b.parquet"))], ONE)
        assert [each.code for each in found] == [0, 0]
        assert all(each.cpu_seconds > 0 and each.peak_mb > 100 for each in found)
        assert pq.read_table("a.parquet").equals(pq.read_table("b.parquet"))
        capfd.readouterr()
        wrong, slow = ("arena", "nothing.parquet"), votes(Path("c.parquet"), count=100_000)
        with pytest.raises(FineprefError, match=r"`finepref arena nothing.parquet` stopped with exit code 2") as error:
            run_stage(Stage("x", (slow, wrong)), starter, workers=2, number="1")
        assert error.value.exit_code == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert "nothing.parquet: no such file" in err
        assert not Path("c.parquet").exists()
        nested = {**ONE, "OMP_NUM_THREADS": "1,2"}  # as OpenMP takes it: of each level
        assert starter.run([("data", "inspect", "a.parquet")], nested)[0].code == 0  # and it goes on


def test_one_that_was_killed(tmp_path: Path) -> None:
    with Starter() as starter:
        assert starter.run([votes(tmp_path / "a.parquet")], ONE)[0].code == 0
        assert starter._process is not None
        os.kill(starter._process.pid, signal.SIGKILL)
        with pytest.raises(FineprefError, match="ended by a signal; run the same command again"):
            run_stage(Stage("x", (votes(tmp_path / "b.parquet"),)), starter, workers=1, number="1")
