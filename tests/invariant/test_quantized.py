"""A LoRA on a base in 8 bits: equal at the start, resumed, saved, exported, loaded again; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import own_pairs
import tiny
from finepref.core.errors import ConfigError, FineprefError, InputError
from finepref.evaluate.generate import generate
from finepref.formats.manifest import read_record, read_rows
from finepref.models.export import export
from finepref.models.load import load_adapter, load_pipeline
from finepref.models.lora import LoraSettings
from finepref.models.quantized import check_quantization, is_plain, quantizable
from finepref.plan.plan import plan_run
from finepref.train.config import load_config
from finepref.train.run import train_run
from tiny import picture

STEPS = ("train.max_steps=4", "train.lr_scheduler=constant", "train.learning_rate=1e-3", "train.checkpoint_every=2")
INT8 = ("model.quantize=int8", "lora={rank: 4}")


@pytest.fixture(scope="module", params=["sdxl", "flux"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SDXL or FLUX with a person's pairs."""
    folder = tmp_path_factory.mktemp(request.param)
    tiny.BUILDERS[request.param](folder / "model")
    own_pairs.make_folder(folder / "data", pairs=6)
    config = {
        "model": {"base": str(folder / "model")},
        "data": {"paths": [str(folder / "data")], "resolution": 32},
        "cache": {"folder": str(folder / "cache"), "dtype": "float32"},
        "objective": {"name": "dpo", "beta": 500},
        "train": {"pairs_per_step": 4, "micro_batch": 2, "lr_warmup_steps": 0},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder


def train(world: Path, out: Path, *words: str, **how: Any) -> Path:
    return train_run(load_config(world / "run.yaml", [*STEPS, *INT8, *words]), out, **how)


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "pytorch_lora_weights.safetensors")


def test_trained_resumed_exported_and_loaded(world: Path, tmp_path: Path) -> None:
    """u is 0 and the loss ln 2 before the first step; a resumed run has the same bits; exports load elsewhere."""
    run = train(world, tmp_path / "run")
    first = lines(run)[0]
    assert (first["u"], first["loss"]) == (0.0, pytest.approx(0.6931471805599453, abs=1e-7))
    assert lines(run)[-1]["u"] != 0.0
    train(world, tmp_path / "half", "train.max_steps=2")
    train(world, tmp_path / "half", resume=True)
    for name, value in weights(run).items():
        assert torch.equal(value, weights(tmp_path / "half")[name])
    base = world / "model"
    plain = picture(load_pipeline(base))
    moved = picture(load_pipeline(base, run))
    assert (moved - plain).abs().max() > 1e-4
    merged = export(run, base, tmp_path / "merged", format="merged")
    assert (picture(load_pipeline(merged)) - moved).abs().max() < 1e-3
    export(run, base, tmp_path / "lora.safetensors", format="comfyui")
    drawn_in_fewer_bits(run, tmp_path / "eval")
    assert json.loads((run / "run.json").read_text())["decides"]["settings"]["model.quantize"] == "int8"


def drawn_in_fewer_bits(run: Path, out: Path) -> None:
    """`generate` with int8 draws what was trained: near the pictures in full, with the LoRA on the short base."""
    models, how = {"before": f"{run}@0", "after": str(run)}, {"steps": 2, "guidance": 2.0, "size": (32, 32)}
    generate(models, ["a dog"], [0], out / "full", **how)
    generate(models, ["a dog"], [0], out / "short", quantize="int8", **how)
    full, short = (
        [np.asarray(Image.open(out / name / row.path)).astype(int) for row in read_rows(out / name)]
        for name in ("full", "short")
    )
    for plain, own in zip(full, short, strict=True):
        assert np.abs(plain - own).max() > 0
        assert np.abs(plain - own).mean() < 3
    assert np.abs(short[0] - short[1]).max() > 0
    said = [read_record(out / name).sampling["after/prompts"].get("quantize") for name in ("full", "short")]
    assert said == [None, "int8"]


def test_what_cannot_be_drawn_in_fewer_bits(tmp_path: Path) -> None:
    for kind, said in (
        ("nf4", "nf4 (has no kernels for a CPU|needs bitsandbytes)"),
        ("int4", "unknown quantisation 'int4'"),
    ):
        with pytest.raises(FineprefError, match=said):
            generate({"a": "lab"}, ["a dog"], [0], tmp_path / "out", quantize=kind)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'a' is loaded already"):
        generate({"a": load_pipeline("lab")}, ["a dog"], [0], tmp_path / "out", quantize="int8")
    assert not (tmp_path / "out").exists()


def test_it_is_the_base_in_fewer_bits(world: Path) -> None:
    """Linear weights are 8-bit and close to the base's; the forward is, too; nothing else has changed."""
    base = world / "model"
    lora = LoraSettings(rank=4, alpha=4)
    short, plain = (load_adapter(base, lora=lora, quantize=kind) for kind in ("int8", None))
    held, own = dict(short.network.named_parameters()), dict(plain.network.named_parameters())
    less = {name for name, value in held.items() if not is_plain(value)}
    assert less
    assert sum(own[name].numel() for name in less) == quantizable(plain.network)
    for name, value in held.items():
        if name in less:
            taken_back = value.data.dequantize().float()
            step = own[name].abs().amax(1, keepdim=True) / 127
            assert ((taken_back - own[name]).abs() <= 0.51 * step + 1e-8).all()
        elif "lora_" not in name:
            assert torch.equal(value, own[name])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lora=null",), "weights in fewer bits cannot be trained"),
        (("lora={rank: 4, dora: true}",), "DoRA measures the weights themselves"),
        (("train.distributed=fsdp2",), "they are not sharded here"),
        (("model.quantize=int4",), "Input should be 'int8' or 'nf4'"),
    ],
)
def test_refusals(world: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train(world, tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


def test_what_this_machine_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """nf4 on a CPU, and a library that is not there."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for kind, extra in (("int8", "quant"), ("nf4", "bnb")):
        with pytest.raises(ConfigError, match=rf"pip install 'finepref\[{extra}\]'"):
            check_quantization(kind, "cuda")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    check_quantization("nf4", "cuda")
    check_quantization(None, "cpu")
    with pytest.raises(ConfigError, match="no kernels for a CPU"):
        check_quantization("nf4", "cpu")


def test_the_plan_counts_it(world: Path) -> None:
    """Of every linear weight three bytes fewer in float32, and 3.4 with nf4."""
    config = load_config(world / "run.yaml", [*STEPS, "lora={rank: 4}", "cache.folder=null"])
    plain = plan_run(config, gpus=[], processes=1)
    for kind, bytes_less in (("int8", 3.0), ("nf4", 4.0 - 0.5625)):
        words = [*STEPS, "lora={rank: 4}", "cache.folder=null", f"model.quantize={kind}"]
        short = plan_run(load_config(world / "run.yaml", words), gpus=[], processes=1)
        less = plain.memory_gb["weights"] - short.memory_gb["weights"]
        assert less * 1e9 == pytest.approx(bytes_less * plain.counts.linear)
