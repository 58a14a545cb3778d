"""A run from Python is that of the command line: model and pairs in memory, stopped by a callback, resumed."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig

import finepref as fp
from finepref.core.errors import ConfigError, InputError
from finepref.formats.metrics import METRICS
from finepref.formats.run import is_finished, read_run
from finepref.train.config import load_config
from finepref.train.run import train_run
from finepref.train.trainer import Trainer


class Watcher(fp.Callback):
    """Keeps what it is told, spoils what it is handed, and stops after a step."""

    def __init__(self, stop: int = 0) -> None:
        self.stop, self.told = stop, []

    def on_step(self, state, metrics):
        self.told.append(("step", state.step, metrics.means["loss"]))
        metrics.means.clear()
        state.calls.clear()
        torch.randn(3)
        return state.step == self.stop

    def on_checkpoint(self, state, folder):
        assert (folder / "state.json").is_file()
        self.told.append(("checkpoint", state.step))

    def on_samples(self, state, folder):
        assert [*folder.glob("*.png")]
        self.told.append(("samples", state.step))

    def on_end(self, state):
        self.told.append(("end", state.step, state.finished))


@pytest.fixture(scope="module")
def rows(world: Path) -> list[dict]:
    """The world's pairs in memory: an image as a path, the other as bytes."""
    with (world / "data" / "metadata.csv").open(newline="") as handle:
        table = list(csv.DictReader(handle))
    name = lambda row, side: world / "data" / row[f"{side}_file_name"]  # noqa: E731
    return [
        {"prompt": row["prompt"], "chosen": name(row, "chosen"), "rejected": name(row, "rejected").read_bytes()}
        for row in table
    ]


def test_numbers_are_those_of_the_command(world: Path, rows: list[dict], tmp_path: Path) -> None:
    """Pipeline, pairs and signals in memory; stopped after step 3 and resumed; callbacks that spoil what they get."""
    signals = fp.make_signals(fp.read_preferences(world / "data"), kind="uniform", margin=1.5)
    fp_made = fp.make_signals(fp.read_preferences(rows), kind="uniform", margin=1.5)
    assert signals.pair_id == fp_made.pair_id
    watcher = Watcher(stop=3)
    trainer = fp.Trainer(
        model=StableDiffusionPipeline.from_pretrained(world / "model", safety_checker=None),
        data=fp.read_preferences(rows),
        method=world / "run.yaml",
        signals=fp_made,
        out=tmp_path / "run",
        callbacks=[watcher],
        cache={"folder": tmp_path / "cache"},
        validation={"prompts": ["a"], "every": 4, "steps": 1},
    )
    assert trainer.train() == tmp_path / "run"
    assert not is_finished(tmp_path / "run")
    with pytest.raises(InputError, match="unfinished run"):
        trainer.train()
    with pytest.raises(InputError, match="neither a finished run"):
        trainer.pipeline()
    trainer.train(resume=True)
    told = [("samples", 0), ("step", 1), ("step", 2), ("checkpoint", 2), ("step", 3), ("checkpoint", 3), ("end", 3)]
    assert [each[:2] for each in watcher.told[:7]] == told
    assert watcher.told[6] == ("end", 3, False)
    assert watcher.told[-1] == ("end", 8, True)
    assert ("samples", 8) in watcher.told
    config = load_config(world / "run.yaml", [f"signal.file={tmp_path / 'run' / 'signals.parquet'}"])
    other = train_run(config, tmp_path / "command")
    assert (tmp_path / "run" / METRICS).read_bytes() == (other / METRICS).read_bytes()
    assert read_run(tmp_path / "run").network_calls == read_run(other).network_calls
    assert type(trainer.pipeline(device="cpu")).__name__ == "StableDiffusionPipeline"
    assert read_run(other).method == "dpo"
    kept = (tmp_path / "run" / "pairs.parquet").read_bytes()
    second = fp.Trainer("lab", rows[:3], method=world / "run.yaml", out=tmp_path / "run", **{"data.resolution": 16})
    with pytest.raises(InputError, match=r"finished run of another config .*data\.resolution 32, now 16"):
        second.train()  # said before its pairs are written and its cache is looked at
    assert (tmp_path / "run" / "pairs.parquet").read_bytes() == kept


def test_names_are_layers(world: Path) -> None:
    """A method lies on the shipped base of the model's family; data, LoRA and overrides lie on top."""
    given = {"method": "arenapo", "signals": "s.parquet", "out": "x", "train": {"max_steps": 3}}
    made = Trainer("lab", "lab", **given, **{"objective.beta": 7.5}).config
    words = ["train.max_steps=3", "objective.beta=7.5", "cache.folder=null", "signal.file=s.parquet"]
    assert made == load_config("lab/arenapo", words)
    assert (made.method, made.guard.name) == ("arenapo", "none")
    assert made.origin("train", "max_steps") == "Trainer"
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["to_q"], init_lora_weights="gaussian")
    own = Trainer(world / "model", [world / "data"], method="dpo", out="x", lora=lora).config
    assert (own.model.base, own.data.paths) == (str(world / "model"), [str(world / "data")])
    assert own.train.pairs_per_step == 2048
    assert own.lora is not None
    kinds = {"rslora": False, "dora": False, "dropout": 0.0, "text_encoder": False}
    assert own.lora.model_dump() == {"rank": 4, "alpha": 8.0, "targets": ["to_q"], **kinds}
    whole = Trainer(world / "model", world / "data", method=own, out="y", lora={"rank": 2}).config
    assert whole.lora is not None
    assert (whole.lora.rank, whole.lora.alpha) == (2, 8.0)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"method": "dpoo"}, "did you mean 'dpo'"),
        ({"method": "arenapo"}, "Trainer, signals: arenapo trains on a signal of its pairs, and none is given"),
        ({"method": "lab/kto"}, "kto trains on a signal of its pairs"),
        ({"method": ["lab", "smpo"]}, "give what make_signals returned, or its file"),
        ({"train": {"max_step": 3}}, "Trainer: unknown key 'train.max_step'"),
        ({"trian": {"max_steps": 3}}, "unknown key 'trian'"),
        ({"lora": LoraConfig(r=4, lora_bias=True)}, "lora_bias has no effect"),
        ({"lora": LoraConfig(r=4, target_modules="to_.")}, "a pattern of target_modules has no effect"),
    ],
)
def test_refused_at_once(given: dict, sentence: str) -> None:
    """What cannot be is said before anything is read or written."""
    with pytest.raises(ConfigError, match=sentence):
        Trainer("lab", "lab", out="x", **given)


def test_processes_share_files_only(rows: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in memory would be written by each."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="several processes share files only"):
        Trainer("lab", rows, out=tmp_path).train()
