"""Full starts and bases whose files or parts do not fit: one sentence, before any cache is made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import own_pairs
import tiny
from finepref.core.errors import InputError
from finepref.evaluate.named_models import as_source
from finepref.formats.run import write_run
from finepref.models.family import family_of
from finepref.models.load import load_adapter, open_pipeline
from finepref.models.source import locate, vae_folder
from finepref.models.start import check_start
from finepref.train.config import load_config
from finepref.train.run import train_run
from run_record import run_record

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("starts")
    tiny.sd15(folder / "base")
    tiny.sd15(folder / "v", prediction_type="v_prediction", seed=3)
    tiny.sdxl(folder / "sdxl")
    own_pairs.make_folder(folder / "data", pairs=2)
    (folder / "run.yaml").write_text(yaml.safe_dump({
        "model": {"base": str(folder / "base")}, "data": {"paths": [str(folder / "data")], "resolution": 32},
        "objective": {"name": "dpo"}, "train": {"max_steps": 1, "pairs_per_step": 1},
    }))  # fmt: skip
    return folder


def refused(world: Path, out: Path, said: str, *words: str) -> None:
    """A run stops with this sentence and leaves neither a run nor a cache."""
    with pytest.raises(InputError, match=said) as raised:
        train_run(load_config(world / "run.yaml", list(words)), out)
    assert "\n" not in str(raised.value)
    assert not list(out.rglob("*"))


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], None], name: str = WEIGHTS) -> Path:
    """A folder of weights with some of them changed."""
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name, metadata={"format": "pt"})
    return folder


def unet(world: Path, place: Path) -> Path:
    return shutil.copytree(world / "base" / "unet", place / "start")


def with_config(folder: Path, **settings: object) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder


def nine_channels(world: Path, place: Path) -> Path:
    start = with_config(unet(world, place), in_channels=9)
    return changed(start, lambda held: held.update({"conv_in.weight": torch.zeros(32, 9, 3, 3)}))


def run_on(base: str) -> Callable[[Path, Path], Path]:
    """A finished run on another base, whose weights are those of the base itself."""

    def make(world: Path, place: Path) -> Path:
        shutil.copytree(world / "base" / "unet", place / "start" / "unet")
        write_run(place / "start", run_record(base=str(world / base), revision=None))
        return place / "start"

    return make


STARTS: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "another family": (lambda world, place: world / "sdxl", "its unet has addition_embed_type text_time, "),
    "nine channels": (nine_channels, r"config\.json: its unet has in_channels 9, the base's 4"),
    "other widths": (
        lambda world, place: with_config(unet(world, place), block_out_channels=[32, 32], attention_head_dim=4),
        r"its weights hold down_blocks\.1\..* as \[64, 32, 3, 3\], its config\.json wants \[32, 32, 3, 3\]",
    ),
    "another class": (
        lambda world, place: with_config(unet(world, place), _class_name="SD3Transformer2DModel"),
        "a SD3Transformer2DModel, where the base has a UNet2DConditionModel",
    ),
    "v-prediction": (lambda world, place: world / "v", "it was trained for v_prediction, the base predicts epsilon"),
    "its unet alone": (lambda world, place: world / "v" / "unet", "it was trained for v_prediction"),
    "a run of v-prediction": (run_on("v"), "it was trained for v_prediction, the base predicts epsilon"),
    "too much": (
        lambda world, place: changed(unet(world, place), lambda held: held.update(stray=torch.ones(2))),
        "1 of its weights have no place in the UNet2DConditionModel of its config.json, as stray",
    ),
    "too little": (
        lambda world, place: changed(unet(world, place), lambda held: held.pop("conv_out.bias")),
        "1 of its weights are missing in the UNet2DConditionModel of its config.json, as conv_out.bias",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", STARTS)
def test_a_full_start_that_does_not_fit(world: Path, tmp_path: Path, what: str) -> None:
    make, said = STARTS[what]
    refused(world, tmp_path / "run", said, f"model.init_from={make(world, tmp_path)}")


def test_starts_that_fit(world: Path, tmp_path: Path) -> None:
    """A pipeline, its unet alone and a run, also one whose base is gone."""
    for start in (
        world / "base",
        world / "base" / "unet",
        run_on("base")(world, tmp_path / "a"),
        run_on("gone")(world, tmp_path / "b"),
    ):
        config = load_config(world / "run.yaml", [f"model.init_from={start}", f"cache.folder={world / 'cache'}"])
        train_run(config, tmp_path / f"run-{start.name}-{start.parent.name}")


def test_every_tensor_of_a_base_is_used(world: Path, tmp_path: Path) -> None:
    """Published CLIP files hold `position_ids`, which are no weights; nothing else may be left over."""
    base = shutil.copytree(world / "base", tmp_path / "base")
    ids = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    changed(base / "text_encoder", lambda held: held.update(ids), "model.safetensors")
    pipe = load_adapter(base, reference=False).pipeline()
    assert tiny.picture(pipe).isfinite().all()
    for part, name, change, said in (
        ("text_encoder", "model.safetensors", {"stray.weight": torch.ones(2)}, "the first is 'stray.weight'"),
        ("text_encoder", "model.safetensors", {"final_layer_norm.bias": torch.ones(7)},
         r"1 weights have other shapes than its config.json wants, the first is 'final_layer_norm.bias as \[7\] for"),
        ("vae", WEIGHTS, {"decoder.stray": torch.ones(2)}, "the first is 'decoder.stray'"),
        ("unet", WEIGHTS, {"conv_in.bias": torch.full((32,), torch.nan)}, "1 weights hold numbers that are not finite"),
    ):  # fmt: skip
        kept = (base / part / name).read_bytes()
        changed(base / part, lambda held, change=change: held.update(change), name)
        with pytest.raises(InputError, match=said):
            load_adapter(base, reference=False).pipeline()
        (base / part / name).write_bytes(kept)


@pytest.mark.parametrize("name", ["x" * 300, f"runs/{'x' * 300}@5", "a\0b", f"{'x' * 300}.safetensors"])
def test_a_name_that_no_file_can_have(name: str) -> None:
    for use in (as_source, open_pipeline):
        with pytest.raises(InputError):
            use(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("loras/gone.safetensors", "no such file or folder; check the path"),
        ("./gone", "no such (model folder|file or folder); "),
        ("a/b/gone", "no such (model folder|file or folder); "),
        ("dreams", "no such (model folder; did you mean dreams.safetensors|file or folder)"),
        ("owner/gone", "nor a model the hub hands out .which is out of reach, and its cache here lacks it"),
    ],
)
@pytest.mark.parametrize("option", ["init_from", "base", "base with config", "vae"])
def test_a_path_that_is_not_there_is_not_sent_to_the_hub(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str, option: str
) -> None:
    """One sentence about the name that was given, whatever else was."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dreams.safetensors").write_bytes(b"")
    source, config = locate(world / "base"), str(world / "base")
    calls = {
        "init_from": lambda: check_start(source, family_of(source, "auto"), name, None),
        "vae": lambda: vae_folder(source, name),
        "base": lambda: locate(name),
        "base with config": lambda: locate(name, config=config),
    }
    if option != "init_from" and name.endswith(".safetensors"):
        said = "no such file; check the path"
    if option == "base with config" and name == "owner/gone":
        said = "a config belongs to a single file, not to a hub name"
    with pytest.raises(InputError, match=said):
        calls[option]()
