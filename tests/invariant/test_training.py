"""Equivalence classes of runs: what may differ and still give the same weights."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from finepref.core.errors import ConfigError, InputError
from finepref.core.files import write_parquet
from finepref.train.config import load_config
from finepref.train.run import train_run
from torchrun import FINEPREF, launched

WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


def train(world: Path, out: Path, *overrides: str, resume: bool = False) -> Path:
    return train_run(load_config(world / "run.yaml", overrides), out, resume=resume, overwrite=False)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / WEIGHTS)


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.fixture(scope="module")
def uninterrupted(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(world, tmp_path_factory.mktemp("runs") / "whole")


def test_first_step_is_log_two(uninterrupted: Path) -> None:
    """Policy equals reference: u is exactly 0 and the loss is ln 2."""
    first = metrics(uninterrupted)[0]
    assert first["u"] == 0.0
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-7)


def test_training_changes_the_weights(world: Path, uninterrupted: Path) -> None:
    assert largest_difference(weights(uninterrupted), load_file(world / "model" / WEIGHTS)) > 1e-5


def _die(world: Path, out: Path, step: int, delay: float) -> None:
    """Train; this process ends as it stands, `delay` CPU-seconds after its optimiser step number `step`."""
    steps = itertools.count(1)

    def after_step(*_: object) -> None:
        if next(steps) == step:
            signal.setitimer(signal.ITIMER_VIRTUAL, delay)  # SIGVTALRM: nothing handles it

    register_optimizer_step_post_hook(after_step)
    train(world, out)


@pytest.mark.parametrize(("step", "delay"), [(1, 0.001), (4, 0.02), (6, 0.04)])
def test_killed_and_resumed_is_bitwise_the_same(
    world: Path, uninterrupted: Path, tmp_path: Path, step: int, delay: float
) -> None:
    """Killed in the middle of a step or of a checkpoint, then --resume: weights and metrics.jsonl are bit-identical."""
    out = tmp_path / "run"
    child = multiprocessing.get_context("fork").Process(target=_die, args=(world, out, step, delay))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGVTALRM
    assert not (out / "run.json").exists(), "the run was over before it was killed"
    train(world, out, resume=True)
    assert (out / "metrics.jsonl").read_bytes() == (uninterrupted / "metrics.jsonl").read_bytes()
    assert (out / WEIGHTS).read_bytes() == (uninterrupted / WEIGHTS).read_bytes()


def test_accumulation_equals_the_big_batch(world: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """Micro-batches of 2 give what micro-batches of 4 give, up to rounding."""
    other = train(world, tmp_path / "run", "train.micro_batch=2")
    for a, b in zip(metrics(other), metrics(uninterrupted), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=2e-4)
    assert metrics(other)[1]["grad_norm"] == pytest.approx(metrics(uninterrupted)[1]["grad_norm"], rel=1e-3)


def _two_processes(world: Path, out: Path, *words: str) -> Path:
    launched(*FINEPREF, "train", "-c", world / "run.yaml", "--out", out, *words)
    return out


def test_two_processes_equal_one(world: Path, tmp_path: Path) -> None:
    """torchrun with 2 processes and k micro-batches each equals 1 process with 2k, to 1e-6.

    beta 2 keeps the loss from magnifying rounding, and Adam's epsilon 1e-2 keeps its sign-like first steps from it.
    """
    words = ["train.max_steps=3", "train.micro_batch=2", "train.learning_rate=1e-2", "objective.beta=2"]
    words += ["train.adam_epsilon=1e-2", "train.max_grad_norm=null"]
    one = train(world, tmp_path / "one", *words)
    _two_processes(world, tmp_path / "two", *words)
    start = load_file(world / "model" / WEIGHTS)
    moved = largest_difference(weights(one), start)
    assert moved > 1e-3
    assert largest_difference(weights(one), weights(tmp_path / "two")) < 1e-6
    for a, b in zip(metrics(one), metrics(tmp_path / "two"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-6)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5)
    about = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "two")]
    assert [record["processes"] for record in about] == [1, 2]
    assert about[0]["network_calls"] == about[1]["network_calls"]


def test_a_finished_run_is_left_alone(world: Path, uninterrupted: Path) -> None:
    before = (uninterrupted / "run.json").read_bytes()
    train(world, uninterrupted)
    assert (uninterrupted / "run.json").read_bytes() == before


def test_a_checkpoint_of_another_config_is_refused(world: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """A folder of another run: one sentence, nothing overwritten."""
    before = (uninterrupted / "run.json").read_bytes()
    with pytest.raises(InputError, match="another config"):
        train(world, uninterrupted, "objective.beta=600")
    assert (uninterrupted / "run.json").read_bytes() == before
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        (unfinished / name).write_bytes((uninterrupted / name).read_bytes())
    (unfinished / "checkpoints").symlink_to(uninterrupted / "checkpoints")
    with pytest.raises(InputError, match="unfinished run"):
        train(world, unfinished)
    kept = (unfinished / "config.yaml").read_bytes()
    with pytest.raises(InputError, match=r"it was trained with other settings \(objective.beta 500, now 600\)"):
        train(world, unfinished, "objective.beta=600", resume=True)
    assert (unfinished / "config.yaml").read_bytes() == kept


def test_combinations_without_sense_are_refused(world: Path, tmp_path: Path) -> None:
    """An option without effect is an error with its reason."""
    for words, reason in (
        (["guard.name=sdpo", "objective={name: sft}"], "does not look at losers"),
        (["guard.mu=0.5"], "unknown key 'guard.mu'; it takes no options"),
        (["signal.margin_scale=2"], "no signal file"),
        (["trajectory.name=renoice"], "did you mean 'renoise'"),
        (["objective.betta=3"], "did you mean 'beta'"),
        (["train.learning_rat=3"], "did you mean 'learning_rate'"),
        (["data.desirable_share=0.5"], "takes pairs"),
        (["objective={name: kto}"], "needs image labels"),
    ):
        with pytest.raises(ConfigError, match=reason):
            train(world, tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


def test_not_finite_gradients_are_skipped_counted_and_stop_the_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN gradients: skip, count, name the pair at fault, stop after the stated number."""
    from finepref.core.errors import CheckFailed
    from finepref.train import loop

    original, poison = loop.pair_loss, ["every"]

    def poisoned(batch, **keywords):
        out, t = original(batch, **keywords)
        bad = [poison[0] in (pair, "every") for pair in batch.pair_id]
        return type(out)(loss=out.loss * torch.where(torch.tensor(bad), torch.nan, 1.0), stats=out.stats), t

    monkeypatch.setattr(loop, "pair_loss", poisoned)
    with pytest.raises(CheckFailed, match="2 steps were skipped"):
        train(world, tmp_path / "run", "train.max_skipped=1", "train.checkpoint_every=1")
    lines = metrics(tmp_path / "run")
    assert len(lines) == 2
    assert len(set(lines[0]["skipped_pairs"])) == 8
    poison[0] = lines[0]["skipped_pairs"][3]
    train(world, tmp_path / "run", "train.max_skipped=9", "train.checkpoint_every=1", resume=True)
    skipped = [line["skipped_pairs"] for line in metrics(tmp_path / "run")[2:] if "skipped_pairs" in line]
    assert skipped
    assert all(pairs == [poison[0]] for pairs in skipped)


def test_the_limit_of_skipped_steps_holds_for_new_ones(world: Path, tmp_path: Path) -> None:
    """Counting goes on from the checkpoint, but a step that was not skipped never stops the run."""
    from finepref.train import checkpoint as state

    out = train(world, tmp_path / "run", "train.max_steps=8")
    (out / "run.json").unlink()
    last = state.checkpoints(out)[-1]
    assert last.name == "step-000008"
    for path in (last, *(p for p in state.checkpoints(out)[:-1] if p.name != "step-000006")):
        shutil.rmtree(path)
    record = out / "checkpoints" / "step-000006" / "state.json"
    counters = json.loads(record.read_text())
    record.write_text(json.dumps({**counters, "skipped": 5}))
    record.with_name("finepref.json").unlink()  # which would say that it was changed
    train(world, out, "train.max_steps=8", "train.max_skipped=1", resume=True)
    assert json.loads((out / "run.json").read_text())["skipped_steps"] == 5


@pytest.fixture(scope="module")
def labels(world: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A KTO signal of the world's pairs."""
    from typer.testing import CliRunner

    from finepref.cli.main import build

    file = tmp_path_factory.mktemp("labels") / "kto.parquet"
    words = ["signals", str(world / "data"), "--kind", "kto", "--desirable", "any_win", "--out", str(file)]
    result = CliRunner().invoke(build(), words)
    assert result.exit_code == 0, result.output
    return f"signal.file={file}"


def test_kto_has_one_anchor_a_step(world: Path, labels: str, tmp_path: Path) -> None:
    """Micro-batches and processes change nothing: the anchor is that of all images of the step, and it is not 0."""
    words = ["objective={name: kto, beta: 2}", labels, "train.max_steps=3", "train.learning_rate=1e-2"]
    words += ["train.adam_epsilon=1e-2", "train.max_grad_norm=null", "data.prompt_dropout=0"]
    one = train(world, tmp_path / "one", *words, "train.micro_batch=8")
    parts = train(world, tmp_path / "parts", *words, "train.micro_batch=2")
    two = _two_processes(world, tmp_path / "two", *words, "train.micro_batch=2")
    assert metrics(one)[2]["anchor"] > 0
    assert metrics(one)[2]["A_desirable"] != metrics(one)[2]["A_undesirable"]
    for other in (parts, two):
        assert largest_difference(weights(one), weights(other)) < 1e-6
        for a, b in zip(metrics(one), metrics(other), strict=True):
            assert a["anchor"] == pytest.approx(b["anchor"], rel=1e-4, abs=1e-8)
            assert a["loss"] == pytest.approx(b["loss"], abs=1e-6)
    calls = [json.loads((run / "run.json").read_text())["network_calls"] for run in (one, parts)]
    assert calls[0]["reference"] == calls[1]["reference"] == 24
    assert [(each["policy"], each["anchor"]) for each in calls] == [(24, 0), (24, 24)]


def test_kto_keeps_both_labels_of_an_image(world: Path, tmp_path: Path) -> None:
    """An image that won one pair and lost another counts once as each, whatever the order of the pairs."""
    from finepref.formats.cachetables import Pairs
    from finepref.train.data import image_table

    held = {"p": ("c", "x", "y", "8x8"), "q": ("c", "z", "x", "8x8")}
    file = tmp_path / "kto.parquet"
    columns = {"pair_id": ["p", "q"], "winner": np.int8([0, 0]), "label_0": np.int8([1, 1]), "label_1": np.int8([0, 0])}
    columns |= {name: np.float32([0, 0]) for name in ("margin_0", "margin_1", "weight")}
    write_parquet(file, pa.table(columns))
    for order in (["p", "q"], ["q", "p"]):
        pairs = Pairs(order, *zip(*(held[each] for each in order), strict=True))
        table = image_table(SimpleNamespace(pairs=pairs), signals=str(file))
        found = dict(zip(table.image_id, zip(table.image, table.desirable, strict=True), strict=True))
        assert found == {"x:c:1": ("x", True), "x:c:0": ("x", False), "y:c": ("y", False), "z:c": ("z", True)}


def test_a_signal_without_effect_is_refused(world: Path, tmp_path: Path) -> None:
    """SFT looks at neither margins nor weights: a signal that sets one is a mistake."""
    from typer.testing import CliRunner

    from finepref.cli.main import build

    file = tmp_path / "uniform.parquet"
    for margin, reason in (("2", "does not look at the margins"), ("0", None)):
        words = ["signals", str(world / "data"), "--kind", "uniform", "--margin", margin, "--out", str(file)]
        assert CliRunner().invoke(build(), words).exit_code == 0
        own = ["objective={name: sft}", f"signal.file={file}", "train.max_steps=1"]
        if reason is None:
            train(world, tmp_path / "run", *own)
        else:
            with pytest.raises(ConfigError, match=reason):
                train(world, tmp_path / "run", *own)


def test_too_many_processes_are_refused(world: Path, tmp_path: Path) -> None:
    words = ["train", "-c", world / "run.yaml", "--out", tmp_path / "run", "train.pairs_per_step=1"]
    result = launched(*FINEPREF, *words, code=1)
    assert "2 processes cannot share 1 draws a step" in result.stderr


def test_overwrite_removes_runs_only(world: Path, tmp_path: Path) -> None:
    """A folder that is not a run is refused and left alone; a run goes, but for its cache."""
    out = tmp_path / "mine"
    out.mkdir()
    (out / "notes.txt").write_text("kept")
    config = load_config(world / "run.yaml", ["train.max_steps=1", "cache.folder=null"])
    with pytest.raises(InputError, match=r"it holds notes\.txt, and is not a run of finepref's"):
        train_run(config, out, resume=False, overwrite=True)
    assert (out / "notes.txt").read_text() == "kept"
    run = train_run(config, tmp_path / "run")
    made = (run / "cache" / "cache.json").stat().st_mtime_ns
    longer = load_config(world / "run.yaml", ["train.max_steps=2", "cache.folder=null"])
    train_run(longer, run, resume=False, overwrite=True)
    assert len(metrics(run)) == 2
    assert (run / "cache" / "images.parquet").is_file()
    assert made <= (run / "cache" / "cache.json").stat().st_mtime_ns
