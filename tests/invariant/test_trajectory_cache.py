"""A run that reads the reference's inversions from a cache is the run that makes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finepref.cli.main import build
from finepref.core.errors import ConfigError, InputError
from finepref.train.config import load_config
from finepref.train.frozen import ERRORS, NOISE, open_frozen
from finepref.train.run import fill_run, train_run
from torchrun import launched

INVERSION = "trajectory={name: renoise, network: reference}"
SHARED = "trajectory={name: renoise, network: reference, share: 4}"
SHORT = ("train.max_steps=3", "train.place_batch=8")


def config(world: Path, *overrides: str):
    return load_config(world / "run.yaml", (*SHORT, *overrides))


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def numbers(value: Any) -> Iterator[float]:
    """Every number of a line, those of its t-buckets too."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif value is not None:
        yield float(value)


def calls(run: Path) -> dict[str, int]:
    return json.loads((run / "run.json").read_text())["network_calls"]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten draws a shard, so that shards end inside optimiser steps."""
    monkeypatch.setattr("finepref.train.frozen.SHARD", 10)
    monkeypatch.setattr("finepref.train.identity.SHARD", 10)


@pytest.mark.parametrize(
    "words",
    [
        (INVERSION, "train.stratified_t=true"),
        (SHARED, "train.stratified_t=true"),
        (INVERSION, "objective={name: mapo}"),
        (INVERSION, "objective={name: dspo}", "lora={rank: 2}"),
    ],
)
def test_a_run_with_the_cache_is_the_run_without(world: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Stored in float32: every statistic to rounding; and no network inverts."""
    folder = tmp_path / "points"
    known = f"train.trajectory_cache={folder}"
    summary = fill_run(config(world, *words, known), NOISE)
    draws = 6 if words[0] == SHARED else 24
    assert (summary.draws, summary.computed) == (draws, draws)
    with_cache = train_run(config(world, *words, known), tmp_path / "with")
    without = train_run(config(world, *words), tmp_path / "without")
    assert calls(with_cache)["inversion"] == 0
    assert calls(without)["inversion"] == summary.images > 0
    for one, other in zip(lines(with_cache), lines(without), strict=True):
        assert list(numbers(one)) == pytest.approx(list(numbers(other)), rel=2e-3, abs=2e-5)
    seconds = json.loads((with_cache / "run.json").read_text())["device_seconds_by"]
    assert seconds["trajectory_cache"] > 0


def test_reference_errors_at_the_stored_points(world: Path, tmp_path: Path) -> None:
    """Both caches: a run without any call of the reference, and the same numbers."""
    points, errors = tmp_path / "points", tmp_path / "errors"
    words = (INVERSION, f"train.trajectory_cache={points}")
    with pytest.raises(InputError, match="there are no inversions by the reference in it; fill it"):
        fill_run(config(world, *words, f"train.reference_cache={errors}"), ERRORS)
    fill_run(config(world, *words), NOISE)
    fill_run(config(world, *words, f"train.reference_cache={errors}"), ERRORS)
    run = train_run(
        config(world, *words, f"train.reference_cache={errors}"), tmp_path / "with", resume=False, overwrite=False
    )
    other = train_run(config(world, *words), tmp_path / "without")
    assert calls(run) | {"reference": 0, "inversion": 0} == calls(run)
    assert calls(other)["reference"] == 48
    for one, wanted in zip(lines(run), lines(other), strict=True):
        assert one["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-4)


def test_filling_goes_on_where_it_stopped(world: Path, tmp_path: Path) -> None:
    """A lost shard and the draws of a longer run are added; what is there stays as it is."""
    folder = tmp_path / "points"
    words = (INVERSION, f"train.trajectory_cache={folder}")
    fill_run(config(world, *words), NOISE)
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    assert names == [f"draws-00000000{n}.safetensors" for n in range(3)]
    assert fill_run(config(world, *words), NOISE).computed == 0
    kept = (folder / names[0]).read_bytes(), (folder / names[1]).read_bytes()
    for path in folder.glob("draws-000000001*"):
        path.unlink()
    longer = fill_run(config(world, *words, "train.max_steps=4"), NOISE)
    assert (longer.draws, longer.computed) == (32, 10 + 10 + 2)
    assert (folder / names[0]).read_bytes() == kept[0]
    assert (folder / names[1]).read_bytes() == kept[1]
    made_for = json.loads((folder / "trajectories.json").read_text())["identity"]
    held = open_frozen(folder, NOISE, identity=made_for, draws=32)
    assert len(held.row) == 32


def test_two_processes_deal_out_the_shards(world: Path, tmp_path: Path) -> None:
    """Each process makes its own shards; together they hold what one process makes."""
    folder, script = tmp_path / "two", tmp_path / "fill.py"
    words = [*SHORT, INVERSION, f"train.trajectory_cache={folder}"]
    script.write_text(
        "import os\nfrom finepref.train import frozen, identity\n"
        "frozen.SHARD = identity.SHARD = 10\n"
        "from finepref.train.config import load_config\nfrom finepref.train.run import fill_run\n"
        f"found = fill_run(load_config({str(world / 'run.yaml')!r}, {words!r}), frozen.NOISE)\n"
        f"open({str(tmp_path)!r} + '/computed-' + os.environ['RANK'], 'w').write(str(found.computed))\n"
    )
    launched(script)
    assert [(tmp_path / f"computed-{rank}").read_text() for rank in (0, 1)] == ["24", "24"]
    alone = tmp_path / "one"
    fill_run(config(world, INVERSION, f"train.trajectory_cache={alone}"), NOISE)
    assert sorted(path.name for path in alone.iterdir()) == sorted(path.name for path in folder.iterdir())
    for one in alone.glob("*.safetensors"):
        tensors, others = load_file(one), load_file(folder / one.name)
        assert all(torch.equal(tensors[name], others[name]) for name in ("tau_w", "tau_l"))


@pytest.mark.parametrize(
    "change",
    ["train.seed=1", "trajectory.steps=4", "trajectory.cfg=3", "data.prompt_dropout=0.5", "train.mixed_precision=bf16"],
)
def test_a_cache_of_something_else_is_refused(world: Path, tmp_path: Path, change: str) -> None:
    words = [INVERSION, f"train.trajectory_cache={tmp_path / 'points'}", "train.max_steps=1"]
    fill_run(config(world, *words), NOISE)
    with pytest.raises(InputError, match="filled for another seed, data set, reference, trajectory or draw plan"):
        train_run(config(world, *words, change), tmp_path / "run")
    with pytest.raises(InputError, match="another seed"):
        fill_run(config(world, *words, change), NOISE)


def test_a_draw_that_is_not_held_is_refused(world: Path, tmp_path: Path) -> None:
    words = [INVERSION, f"train.trajectory_cache={tmp_path / 'points'}"]
    fill_run(config(world, *words, "train.max_steps=1"), NOISE)
    with pytest.raises(InputError, match=r"draws from 0 on are not in it; fill it with `finepref cache"):
        train_run(config(world, *words), tmp_path / "run")
    assert not (tmp_path / "run").exists(), "it is said before the first step"


def test_a_folder_of_something_else_is_left_alone(world: Path, tmp_path: Path) -> None:
    """Neither filling nor --overwrite touches files that are no trajectory cache."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"it holds notes\.txt, and is not a trajectory cache"):
            fill_run(
                config(world, INVERSION, f"train.trajectory_cache={tmp_path / 'mine'}"), NOISE, overwrite=overwrite
            )
    assert (tmp_path / "mine" / "notes.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["trajectory={name: renoise}"], "the policy inverts"),
        (["trajectory={name: forward}"], "forward calls no network"),
        (["objective={name: kto}"], "forward calls no network"),
        ([SHARED, "train.reference_cache=errors"], "several share a trajectory"),
    ],
)
def test_runs_that_cannot_use_it_are_refused(world: Path, tmp_path: Path, words: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        fill_run(config(world, f"train.trajectory_cache={tmp_path / 'p'}", *words), NOISE)
    assert not (tmp_path / "p").exists()


def test_the_command_names_what_it_needs(world: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    folder = tmp_path / "points"
    arguments = ["cache", "-c", str(world / "run.yaml"), *SHORT, INVERSION, "--reference", "--json"]
    result = CliRunner().invoke(build(), [*arguments, f"train.trajectory_cache={folder}"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["trajectories"]["computed"] == 24
    shutil.rmtree(folder)
    refused = CliRunner().invoke(build(), arguments)
    assert "no folder is named" in str(refused.exception)
