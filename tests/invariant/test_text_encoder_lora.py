"""LoRA runs that train the text encoders too: plain diffusers encodes the same, loads the same, and starts the same."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import lora_files as made
import own_pairs
import tiny
from finepref.core import rng
from finepref.core.errors import ConfigError, InputError
from finepref.core.provenance import sha256_bytes
from finepref.data.tokens import prompt_texts
from finepref.models import lora
from finepref.models.encoder import LatentEncoder
from finepref.models.export import export
from finepref.models.load import load_adapter, load_pipeline, open_pipeline
from finepref.models.lora import LoraSettings
from finepref.train.config import load_config
from finepref.train.method import make_method
from finepref.train.processes import World, check_sharding
from finepref.train.run import train_run
from finepref.train.trainer import Trainer
from tiny import perturb, picture
from torchrun import FINEPREF, launched

FAMILIES = ("sd15", "sdxl")
PARTS = {"sd15": ("text_encoder",), "sdxl": ("text_encoder", "text_encoder_2")}
PROMPTS = ["a red circle", "", "two squares " * 60]
SETTINGS = LoraSettings(rank=4, text_encoder=True)
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1")  # without out_proj, diffusers drops kohya's attention weights
STEPS = ("train.lr_scheduler=constant", "train.adam_epsilon=1e-4", "train.checkpoint_every=1", "train.max_steps=2")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("text-encoder-lora")
    own_pairs.make_folder(folder / "data", pairs=4)

    @functools.cache
    def make(family: str) -> Path:
        world = folder / family
        tiny.BUILDERS[family](world / "base")
        config = {
            "model": {"base": str(world / "base")},
            "cache": {"folder": str(world / "cache"), "dtype": "float32"},
            "data": {"paths": [str(folder / "data")], "resolution": 32},
            "objective": {"name": "dpo", "beta": 500},
            "lora": {"rank": 4, "text_encoder": True},
            "train": {"pairs_per_step": 4, "micro_batch": 4, "learning_rate": 1e-4},
        }
        (world / "run.yaml").write_text(yaml.safe_dump(config))
        return world

    return make


def train(world: Path, out: Path, *words: str, resume: bool = False) -> Path:
    return train_run(load_config(world / "run.yaml", [*STEPS, *words]), out, resume=resume)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / lora.FILE)


def farthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_encoded_as_the_pipeline_does_it(worlds, family: str) -> None:
    """Bit for bit, the empty prompt and one that is too long among them; the reference too, whatever is trained."""
    base = worlds(family) / "base"
    wanted = LatentEncoder(base, resolution=32).encode_prompts(PROMPTS)
    adapter = load_adapter(base, lora=SETTINGS)
    assert tuple(adapter.texts.encoders) == PARTS[family]
    cond = {**adapter.texts.tokens(PROMPTS), "time_ids": torch.zeros(3, 6)}
    with torch.no_grad():
        found = adapter.texts.embedded(cond)
        assert {**wanted, "time_ids": cond["time_ids"]}.keys() == found.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        perturb(adapter)
        assert not torch.equal(adapter.texts.embedded(cond)["prompt_embeds"], wanted["prompt_embeds"])
        with adapter.switch.reference():
            assert all(torch.equal(adapter.texts.embedded(cond)[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_finite_differences(worlds, family: str) -> None:
    """In float64, along a random direction of every text encoder's trained weights; layers nobody reads are left."""
    draws = rng.torch_generator(3, "directions")
    adapter = load_adapter(worlds(family) / "base", lora=SETTINGS)
    perturb(adapter)
    for network in (adapter.network, *adapter.texts.encoders.values()):
        network.double()
    x, t = torch.randn(3, 4, 4, 4, dtype=torch.float64, generator=draws), torch.tensor([5, 400, 999])
    cond = {**adapter.texts.tokens(PROMPTS), "time_ids": torch.zeros(3, 6, dtype=torch.float64)}

    def loss() -> torch.Tensor:
        return adapter.policy(x, t, cond).square().mean()

    names = dict(adapter.trainable())
    for part in PARTS[family]:
        mine = {name: value for name, value in names.items() if name.startswith(f"{part}.")}
        layers = len(adapter.texts.encoders[part].get_submodule(_layers(adapter.texts.encoders[part])))
        read = layers - (1 if (family, part) == ("sdxl", "text_encoder") else 0)
        assert len(mine) == read * 4 * 2
        direction = {name: torch.randn(value.shape, dtype=value.dtype, generator=draws) for name, value in mine.items()}
        adapter.network.zero_grad()
        gradients = torch.autograd.grad(loss(), list(mine.values()))
        found = sum((g * d).sum() for g, d in zip(gradients, direction.values(), strict=True)).item()

        def moved(step: float, mine=mine, direction=direction) -> float:
            with torch.no_grad():
                for name, value in mine.items():
                    value.add_(step * direction[name])
                try:
                    return loss().item()
                finally:
                    for name, value in mine.items():
                        value.sub_(step * direction[name])

        assert found == pytest.approx((moved(1e-5) - moved(-1e-5)) / 2e-5, rel=1e-5)
        assert found != 0.0


def _layers(encoder: Any) -> str:
    return next(name for name, _ in encoder.named_modules() if name.endswith("encoder.layers"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run(worlds, tmp_path: Path, family: str) -> None:
    """u is 0 before the first step; everything read is trained; resumed, the same bits; in parts, to rounding."""
    world = worlds(family)
    whole = train(world, tmp_path / "whole")
    first = json.loads((whole / "metrics.jsonl").read_bytes().splitlines()[0])
    assert first["u"] == 0.0
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-7)
    held = weights(whole)
    assert lora.parts(whole) == ["unet", *PARTS[family]]
    unmoved = [name for name, value in held.items() if ".lora_B." in name and not value.any()]
    assert all("layers.1." in name and name.startswith("text_encoder.") for name in unmoved)
    assert bool(unmoved) == (family == "sdxl")
    train(world, tmp_path / "half", "train.max_steps=1")
    train(world, tmp_path / "half", resume=True)
    assert farthest(weights(tmp_path / "half"), held) == 0.0
    assert farthest(weights(train(world, tmp_path / "small", "train.micro_batch=1")), held) < 1e-5
    half = train(world, tmp_path / "bf16", "train.mixed_precision=bf16", "train.max_steps=1")
    assert json.loads((half / "metrics.jsonl").read_bytes())["u"] == 0.0
    with pytest.raises(InputError, match="another config"):
        train(world, tmp_path / "whole", "lora.text_encoder=false", resume=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_run_leaves_is_read_by_plain_diffusers(worlds, tmp_path: Path, family: str) -> None:
    """The run, its exports for other tools, and the merged pipeline: one picture."""
    from diffusers import DiffusionPipeline

    world, run = worlds(family), tmp_path / "run"
    train(world, run, "train.learning_rate=3e-2")
    wanted = picture(open_pipeline(str(run), device="cpu"))
    pipe = DiffusionPipeline.from_pretrained(world / "base")
    pipe.set_progress_bar_config(disable=True)
    assert (picture(pipe) - wanted).abs().max() > 1e-2
    pipe.load_lora_weights(str(run))
    assert torch.equal(picture(pipe), wanted)
    for format in ("kohya", "comfyui"):
        file = export(run, None, tmp_path / f"{format}.safetensors", format=format)
        pipe.unload_lora_weights()
        pipe.load_lora_weights(str(file.parent), weight_name=file.name)
        assert (picture(pipe) - wanted).abs().max() < 1e-5
        before = ("lora_te_",) if family == "sd15" else ("lora_te1_", "lora_te2_")
        assert {name.split("text_model")[0] for name in load_file(file) if "_te" in name} == {*before}
    for format, name in (("merged", "merged"), ("single-file", "one.safetensors")):
        out = export(run, None, tmp_path / name, format=format)
        again = load_pipeline(out, **({} if format == "merged" else {"config": str(world / "base")}))
        assert (picture(again) - wanted).abs().max() < 1e-4
    only = {name: value for name, value in weights(run).items() if name.startswith("unet.")}
    made.write(tmp_path / "unet.safetensors", only)
    pipe.unload_lora_weights()
    pipe.load_lora_weights(str(tmp_path), weight_name="unet.safetensors")
    assert (picture(pipe) - wanted).abs().max() > 1e-3  # the text encoders' part is seen


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "text encoder alone", "no text encoder"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_start_with_text_encoders_is_plain_diffusers_picture(worlds, tmp_path: Path, family: str, layout) -> None:
    """At learning rate 0, policy and reference alike."""
    from diffusers import DiffusionPipeline

    world = worlds(family)
    pipe = DiffusionPipeline.from_pretrained(world / "base")
    pipe.set_progress_bar_config(disable=True)
    own = made.adapter(pipe.unet, ("to_q", "to_out.0"))
    texts = {part: made.adapter(getattr(pipe, part), TEXT, seed=1) for part in PARTS[family]}
    if layout == "kohya":
        named = {"text_encoder": "lora_te" if family == "sd15" else "lora_te1", "text_encoder_2": "lora_te2"}
        own = made.renamed(own, made.original) if family == "sdxl" else own
        tensors = made.kohya(own, "lora_unet")
        for part, words in texts.items():
            plain = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in words.items()}
            tensors |= made.kohya(plain, named[part])
    else:
        tensors = {} if layout == "text encoder alone" else made.under("unet", own)
        for part, words in texts.items() if layout != "no text encoder" else ():
            tensors |= made.under(part, words)
    file = tmp_path / "start.safetensors"
    made.write(file, tensors)
    base = picture(pipe)
    pipe.load_lora_weights(str(tmp_path), weight_name=file.name)
    wanted = picture(pipe)
    assert (wanted - base).abs().max() > 1e-3
    alpha = made.ALPHA if layout == "kohya" else made.RANK
    words = (f"model.init_from={file}", "train.learning_rate=0", f"lora.alpha={alpha}", "train.max_steps=1")
    run = train(world, tmp_path / "run", *words)
    assert (picture(open_pipeline(str(run), device="cpu")) - wanted).abs().max() < 1e-5
    assert (picture(open_pipeline(f"{run}@0", device="cpu")) - wanted).abs().max() < 1e-5
    first = json.loads((run / "metrics.jsonl").read_bytes().splitlines()[0])
    assert first["u"] == 0.0


def _text(world: Path) -> Any:
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(world / "base").text_encoder


def test_a_pipeline_with_adapters_is_no_base(worlds, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    run = train(worlds("sd15"), tmp_path / "run", "train.max_steps=1")
    pipe = DiffusionPipeline.from_pretrained(worlds("sd15") / "base")
    pipe.load_lora_weights(str(run))
    with pytest.raises(InputError, match="carries adapters, which are no part of a base"):
        Trainer(model=pipe, data=[], method="dpo", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_trained_is_refused(worlds, tmp_path: Path) -> None:
    world = worlds("sd15")
    train(world, tmp_path / "run", "train.max_steps=1")  # makes the cache
    with pytest.raises(ConfigError, match="which a cache does not hold"):
        train(world, tmp_path / "other", "data.paths=[]")
    with pytest.raises(ConfigError, match="nothing to shard over"):
        train(world, tmp_path / "other", "train.distributed=fsdp2")
    with pytest.raises(ConfigError, match="the text encoders of flux are not trained here"):
        load_adapter(tiny.BUILDERS["flux"](tmp_path / "flux"), lora=SETTINGS)
    masked = shutil.copytree(world / "base", tmp_path / "masked")
    config_file = masked / "text_encoder" / "config.json"
    config_file.write_text(json.dumps({**json.loads(config_file.read_text()), "use_attention_mask": True}))
    with pytest.raises(ConfigError, match="masks tokens"):
        train(world, tmp_path / "other", f"model.base={masked}", f"cache.folder={tmp_path / 'no-cache'}")
    assert not (tmp_path / "no-cache").exists()
    strange = {f"text_encoder_3.{name}": value for name, value in made.adapter(_text(world), TEXT).items()}
    made.write(tmp_path / "strange.safetensors", strange)
    with pytest.raises(InputError, match="those of this base are called text_encoder; give a LoRA of the same family"):
        train(world, tmp_path / "other", f"model.init_from={tmp_path / 'strange.safetensors'}")
    named = made.under("text_encoder", made.adapter(_text(world), TEXT))
    about = {"lora_adapter_metadata": json.dumps({"text_encoder.r": 4, "text_encoder.lora_alpha": 4, "unet.r": 4})}
    made.write(tmp_path / "said.safetensors", named, **about)
    with pytest.raises(InputError, match="its metadata speaks of unet, of which it has no tensors"):
        train(world, tmp_path / "other", f"model.init_from={tmp_path / 'said.safetensors'}")
    config = load_config(world / "run.yaml", ["train.distributed=fsdp2", "train.optimizer=adamw"])
    with pytest.raises(ConfigError, match="fsdp2 shards the denoiser alone"):
        check_sharding(config, make_method(config), World(rank=0, size=2, device=torch.device("cpu")))
    (tmp_path / "words.csv").write_text("prompt,chosen,rejected\na thing that nobody drew,a.png,b.png\n")
    with pytest.raises(InputError, match="they lack 1 of 1 prompts of the cache"):
        prompt_texts([tmp_path / "words.csv"], reading=config.data.reading(), wanted=[sha256_bytes(b"other")])
    with pytest.raises(InputError, match="for text encoders, and prompts are encoded by the base's"):
        train(world, tmp_path / "other", f"model.init_from={tmp_path / 'run'}", "lora.text_encoder=false")


@pytest.mark.parametrize("words", [(), ("train.ema_decay=0.5",), ("lora.dora=true",)], ids=["plain", "ema", "dora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_is_the_run_of_that_step(worlds, tmp_path: Path, family: str, words: tuple[str, ...]) -> None:
    """RUN@2 of two steps is RUN, in tensors and in plain diffusers' picture; a run from RUN@2 starts there."""
    from diffusers import DiffusionPipeline

    world, run = worlds(family), tmp_path / "run"
    train(world, run, "train.learning_rate=3e-2", *words)
    wanted = picture(open_pipeline(str(run), device="cpu"))
    assert farthest(weights(run / "checkpoints" / "step-000002"), weights(run)) == 0.0
    assert torch.equal(picture(open_pipeline(f"{run}@2", device="cpu")), wanted)
    pipe = DiffusionPipeline.from_pretrained(world / "base")
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(str(run))
    assert torch.equal(picture(pipe), wanted)
    dora = [word for word in words if "dora" in word]
    start = ("train.learning_rate=0", "train.max_steps=1", f"model.init_from={run}@2", *dora)
    again = train(world, tmp_path / "again", *start)
    assert torch.equal(picture(open_pipeline(str(again), device="cpu")), wanted)
    with pytest.raises(InputError, match="for text encoders"):
        train(world, tmp_path / "other", *start, "lora.text_encoder=false")


@pytest.mark.parametrize("family", FAMILIES)
def test_exports_of_modules_that_differ(worlds, tmp_path: Path, family: str) -> None:
    """Alpha and rank of a text encoder's modules are the file's; what every export starts is the run's picture."""
    from diffusers import DiffusionPipeline

    world = worlds(family)
    pipe = DiffusionPipeline.from_pretrained(world / "base")
    pipe.set_progress_bar_config(disable=True)
    tensors = made.kohya(made.renamed(made.adapter(pipe.unet, ("to_q",)), made.original) if family == "sdxl" else
                         made.adapter(pipe.unet, ("to_q", "to_out.0")), "lora_unet")  # fmt: skip
    names = ("lora_te",) if family == "sd15" else ("lora_te1", "lora_te2")
    for part, name in zip(PARTS[family], names, strict=True):
        words = made.adapter(getattr(pipe, part), TEXT[:4], seed=1, rank=2)
        plain = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in words.items()}
        made_so = made.kohya(plain, name, alpha=8.0)
        tensors |= {key: torch.tensor(2.0) if key.endswith("q_proj.alpha") else value for key, value in made_so.items()}
    made.write(tmp_path / "start.safetensors", tensors)
    start = (f"model.init_from={tmp_path / 'start.safetensors'}", f"lora.alpha={made.ALPHA}", "train.max_steps=1")
    run = train(world, tmp_path / "run", *start, "train.learning_rate=0")
    wanted = picture(open_pipeline(str(run), device="cpu"))
    for format in ("kohya", "comfyui", "diffusers"):
        out = export(
            run, None, tmp_path / (format if format == "diffusers" else f"{format}.safetensors"), format=format
        )
        held = load_file(out / lora.FILE if format == "diffusers" else out)
        file = tmp_path / "again.safetensors"
        made.write(file, held, **(_header(out / lora.FILE) if format == "diffusers" else {}))
        again = train(
            world, tmp_path / f"from-{format}", f"model.init_from={file}", f"lora.alpha={made.ALPHA}",
            "train.max_steps=1", "train.learning_rate=0",
        )  # fmt: skip
        assert (picture(open_pipeline(str(again), device="cpu")) - wanted).abs().max() < 1e-5


def _header(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as held:
        return {name: value for name, value in held.metadata().items() if name == "lora_adapter_metadata"}


def test_a_learned_word_has_all_its_tokens(worlds, tmp_path: Path) -> None:
    """Textual inversion in several vectors: the ids are those that the pipeline itself makes."""
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(worlds("sd15") / "base")
    pipe.load_textual_inversion(torch.ones(3, 32) * torch.tensor([[1.0], [2.0], [3.0]]), token="<cat>")
    pipe.save_pretrained(tmp_path / "base")
    prompts = ["a <cat> on a square", "no word of it"]
    wanted = LatentEncoder(tmp_path / "base", resolution=32).encode_prompts(prompts)["prompt_embeds"]
    texts = load_adapter(tmp_path / "base", lora=SETTINGS).texts
    with torch.no_grad():
        assert torch.equal(texts.embedded(texts.tokens(prompts))["prompt_embeds"], wanted)


def test_dropout_leaves_trajectories_alone(worlds, tmp_path: Path) -> None:
    """The policy inverts without it; the trained step has it."""
    words = ("lora.dropout=0.3", "trajectory={name: renoise, steps: 2}")
    for name, kind in (("text", ()), ("plain", ("lora.text_encoder=false",))):
        run = train(worlds("sd15"), tmp_path / name, *words, *kind)
        assert json.loads((run / "metrics.jsonl").read_bytes().splitlines()[1])["u"] != 0.0


def test_samples_in_half_precision(worlds, tmp_path: Path) -> None:
    """SDXL's scheduler hands the network's own type on to its VAE, which is in float32."""
    words = ("validation.prompts=[a red circle]", "validation.every=1", "validation.steps=2", "train.max_steps=1")
    for kind in ("lora.text_encoder=false", "lora.text_encoder=true"):
        run = train(worlds("sdxl"), tmp_path / kind[-5:], *words, kind, "train.mixed_precision=bf16")
        assert list((run / "samples").glob("*/*.png"))


def test_a_refused_resume_changes_nothing(worlds, tmp_path: Path) -> None:
    run = train(worlds("sd15"), tmp_path / "run")
    for folder in (run / "checkpoints").iterdir():
        (folder / "finepref.json").unlink()
        held = load_file(folder / "trainable.safetensors")
        made.write(folder / "trainable.safetensors", {k: v for k, v in held.items() if "text_encoder" not in k})
    with pytest.raises(InputError, match="trainable parameters have other names"):
        train(worlds("sd15"), run, "train.max_steps=3", resume=True)
    assert export(run, None, tmp_path / "out", format="diffusers").is_dir()


def test_two_processes_are_one(worlds, tmp_path: Path) -> None:
    world = worlds("sdxl")
    one = weights(train(world, tmp_path / "one", "train.micro_batch=2"))
    words = ["train", "-c", world / "run.yaml", "--out", tmp_path / "two", *STEPS, "train.micro_batch=2"]
    launched(*FINEPREF, *words)
    assert farthest(weights(tmp_path / "two"), one) < 1e-5


def test_dropout_in_text_encoders_is_a_function_of_the_draw(worlds, tmp_path: Path) -> None:
    world = worlds("sd15")
    drop = "lora.dropout=0.4"
    whole = weights(train(world, tmp_path / "whole", drop))
    assert farthest(weights(train(world, tmp_path / "small", drop, "train.micro_batch=1")), whole) < 1e-5
    assert farthest(weights(train(world, tmp_path / "none")), whole) > 1e-5
