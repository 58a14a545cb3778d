"""A run that reads its reference errors from a cache is the run that computes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from finepref.cli.main import build
from finepref.core.errors import ConfigError, InputError
from finepref.train.config import load_config
from finepref.train.frozen import ERRORS, open_frozen
from finepref.train.identity import reference_identity
from finepref.train.run import fill_run, train_run

WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"
SHORT = ("train.max_steps=3", "train.place_batch=4")


def config(world: Path, *overrides: str):
    return load_config(world / "run.yaml", (*SHORT, *overrides))


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def errors(folder: Path) -> np.ndarray:
    """[draws, 2] of winners and losers, in the order of the plan."""
    held = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    return np.concatenate([np.stack([each["error_w"], each["error_l"]], axis=1) for each in held])


@pytest.fixture(scope="module")
def filled(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("errors") / "reference"
    summary = fill_run(config(world, f"train.reference_cache={folder}"), ERRORS)
    assert (summary.draws, summary.computed, summary.images) == (24, 24, 48)
    assert summary.device_seconds > 0
    return folder


def test_a_run_with_the_cache_is_the_run_without(world: Path, filled: Path, tmp_path: Path) -> None:
    """Equal micro-batches: weights, losses and every statistic are bit-identical; no reference network is called."""
    runs = {}
    for name, words in (("with", [f"train.reference_cache={filled}"]), ("without", [])):
        runs[name] = train_run(config(world, *words), tmp_path / name)
    assert lines(runs["with"]) == lines(runs["without"])
    assert (runs["with"] / WEIGHTS).read_bytes() == (runs["without"] / WEIGHTS).read_bytes()
    about = {name: json.loads((run / "run.json").read_text()) for name, run in runs.items()}
    assert about["with"]["network_calls"]["reference"] == 0
    assert about["without"]["network_calls"]["reference"] == 48
    assert about["with"]["device_seconds_by"]["reference_cache"] > 0
    assert about["without"]["device_seconds_by"]["reference_cache"] == 0


def test_other_batches_change_only_the_last_bits(world: Path, filled: Path, tmp_path: Path) -> None:
    """Filled with batches of 5: the same errors to 1e-6."""
    other = tmp_path / "other"
    fill_run(config(world, f"train.reference_cache={other}", "train.place_batch=5"), ERRORS)
    a, b = (errors(folder) for folder in (filled, other))
    assert a.shape == (24, 2)
    assert np.isfinite(a).all()
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=0)


def test_filling_goes_on_where_it_stopped(world: Path, filled: Path, tmp_path: Path) -> None:
    """A longer run adds its own draws; a second filling computes nothing."""
    folder = tmp_path / "reference"
    shutil.copytree(filled, folder)
    before = errors(folder)
    same = fill_run(config(world, f"train.reference_cache={folder}"), ERRORS)
    assert same.computed == 0
    longer = fill_run(config(world, f"train.reference_cache={folder}", "train.max_steps=4"), ERRORS)
    assert longer.computed == 32, "the one shard was not full"
    after = errors(folder)
    assert after.shape == (32, 2)
    np.testing.assert_allclose(after[:24], before, rtol=1e-6, atol=0)
    assert np.isfinite(after).all()


def test_a_draw_that_is_not_held_is_refused(world: Path, filled: Path, tmp_path: Path) -> None:
    longer = config(world, f"train.reference_cache={filled}", "train.max_steps=4")
    with pytest.raises(InputError, match=r"draws from 0 on are not in it; fill it with `finepref cache"):
        train_run(longer, tmp_path / "run")
    assert not (tmp_path / "run").exists(), "it is said before the first step"


def test_a_folder_of_something_else_is_left_alone(world: Path, tmp_path: Path) -> None:
    """Neither filling nor --overwrite touches files that are no reference cache; one folder has one cache."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"it holds notes\.txt, and is not a reference cache"):
            fill_run(config(world, f"train.reference_cache={tmp_path / 'mine'}"), ERRORS, overwrite=overwrite)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "kept"
    with pytest.raises(InputError, match=r"holds 'cache', not a reference cache"):
        fill_run(config(world, f"train.reference_cache={world / 'cache'}"), ERRORS)


@pytest.mark.parametrize(
    "change",
    [
        "train.seed=1",
        "data.prompt_dropout=0.5",
        "train.stratified_t=true",
        "train.mixed_precision=bf16",
        "model.init_from={start}",
    ],
)
def test_a_cache_of_something_else_is_refused(world: Path, filled: Path, tmp_path: Path, change: str) -> None:
    """Seed, data, draw plan and reference are in its identity."""
    words = [f"train.reference_cache={filled}", change.format(start=world / "model")]
    with pytest.raises(InputError, match="filled for another seed, data set, reference, trajectory or draw plan"):
        train_run(config(world, *words), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_the_start_counts_by_its_weights(world: Path, tmp_path: Path) -> None:
    """Other weights under the same `init_from` path: the cache is refused."""
    start, folder = tmp_path / "start", tmp_path / "reference"
    shutil.copytree(world / "model" / "unet", start / "unet")
    words = [f"model.init_from={start}", f"train.reference_cache={folder}", "train.max_steps=1"]
    fill_run(config(world, *words), ERRORS)
    weights = load_file(start / WEIGHTS)
    weights["conv_in.bias"] += 0.1
    save_file(weights, start / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(InputError, match="another seed"):
        fill_run(config(world, *words), ERRORS)
    assert fill_run(config(world, *words), ERRORS, overwrite=True).computed == 8


def test_the_variant_counts(world: Path) -> None:
    """The hash of a base is of all its files; which of them are read, its variant says."""
    base, table = SimpleNamespace(base_sha256="0", init_sha256=None), SimpleNamespace(pair_id=["a"], winner=[0])
    words: tuple[list[str], ...] = ([], ["model.variant=fp16"], ["model.variant=bf16"])
    found = {reference_identity(config(world, *each), base=base, cache="", table=table) for each in words}
    assert len(found) == 3


def test_margins_and_learning_rates_share_a_cache(world: Path, filled: Path, tmp_path: Path) -> None:
    """What does not enter a reference error does not enter the identity."""
    words = (
        f"train.reference_cache={filled}",
        "objective={name: dmpo}",
        "train.learning_rate=3e-5",
        "train.max_steps=1",
    )
    run = train_run(config(world, *words), tmp_path / "run")
    assert (run / "run.json").is_file()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["trajectory={name: renoise}"], "asked at points that no cache knows"),
        (["objective={name: dspo}"], "needs the reference's whole predictions"),
        (["objective={name: mapo}"], "needs no reference"),
        (["objective={name: kto}"], "takes no pairs"),
    ],
)
def test_runs_that_cannot_use_it_are_refused(world: Path, tmp_path: Path, words: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        fill_run(config(world, f"train.reference_cache={tmp_path / 'r'}", *words), ERRORS)
    assert not (tmp_path / "r").exists()


def test_the_command_prints_what_filling_cost(world: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    folder = tmp_path / "reference"
    arguments = ["cache", "-c", str(world / "run.yaml"), *SHORT, f"train.reference_cache={folder}", "--reference"]
    result = CliRunner().invoke(build(), arguments)
    assert result.exit_code == 0, result.output
    assert "reference errors of 24 draws (24 computed now: 48 reference images" in result.stdout
    again = CliRunner().invoke(build(), [*arguments, "--json"])
    assert json.loads(again.stdout)["reference"]["computed"] == 0
    refused = CliRunner().invoke(build(), ["cache", "-c", str(world / "run.yaml"), "--reference"])
    assert "train.reference_cache: no folder is named" in str(refused.exception)


def test_a_missing_cache_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"finepref cache -c run\.yaml --reference"):
        open_frozen(tmp_path, ERRORS, identity="x", draws=1)
