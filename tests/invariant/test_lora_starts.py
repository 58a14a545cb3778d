"""A run that starts from anybody's LoRA, at learning rate 0: plain diffusers' picture of that file, or one sentence.

The oracle is plain diffusers reading the same file; where it reads one wrongly, the closed form W + alpha / rank B A.
A full run adds the LoRA to its weights, one rounding to float32 (2^-24 of a weight) that two steps of a network of some
twenty layers raise to at most 1e-4 of a pixel; a LoRA run computes what diffusers computes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import lora_files as made
import own_pairs
import tiny
from finepref.core.errors import FineprefError
from finepref.models.load import open_pipeline
from finepref.models.source import locate
from finepref.train.config import load_config
from finepref.train.run import train_run
from tiny import picture

TOLERANCE = {"full": 1e-4, "lora": 1e-5}
TARGETS = {
    "sd15": ("to_q", "to_out.0"),
    "sdxl": ("to_q", "proj_in", "ff.net.2"),
    "flux": ("attn.to_q", "attn.to_k", "attn.to_v", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj",
             "attn.to_out.0", "attn.to_add_out"),
}  # fmt: skip


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("lora-starts")
    own_pairs.make_folder(folder / "data", pairs=2)

    @functools.cache
    def make(family: str) -> Path:
        world = folder / family
        tiny.BUILDERS[family](world / "base")
        config = {
            "model": {"base": str(world / "base")},
            "cache": {"folder": str(world / "cache")},
            "data": {"paths": [str(folder / "data")], "resolution": 32},
            "objective": {"name": "dpo"},
            "train": {"max_steps": 1, "pairs_per_step": 1, "learning_rate": 0.0},
        }
        (world / "run.yaml").write_text(yaml.safe_dump(config))
        return world

    return make


@functools.cache
def plain(base: Path) -> Any:
    """Plain diffusers' pipeline of a folder."""
    import diffusers

    source = locate(base)
    pipe = getattr(diffusers, source.index["_class_name"]).from_pretrained(base, **source.absent())
    pipe.set_progress_bar_config(disable=True)
    return pipe


@functools.cache
def oracle(base: Path, file: Path, *, bare: bool = False) -> torch.Tensor:
    """Plain diffusers' picture of a LoRA file."""
    pipe = plain(base)
    network = getattr(pipe, "unet", None) or pipe.transformer
    try:
        if bare:
            network.load_lora_adapter(str(file), prefix=None)
        else:
            pipe.load_lora_weights(str(file.parent), weight_name=file.name)
        return picture(pipe)
    finally:
        pipe.unload_lora_weights()


def unet(base: Path, targets: tuple[str, ...], **options: Any) -> made.Tensors:
    pipe = plain(base)
    return made.adapter(getattr(pipe, "unet", None) or pipe.transformer, targets, **options)


def text(base: Path) -> made.Tensors:
    return made.adapter(plain(base).text_encoder, made.TEXT, seed=1)


def metadata(part: str, targets: tuple[str, ...]) -> str:
    return json.dumps({f"{part}.{key}": value for key, value in made.config(targets).items()})


def train(world: Path, out: Path, start: Path, kind: str, *words: str, rank: int = made.RANK, alpha: float) -> Path:
    lora = () if kind == "full" else (f"lora.rank={rank}", f"lora.alpha={alpha}")
    config = load_config(world / "run.yaml", [f"model.init_from={start}", *lora, *words])
    return train_run(config, out)


def refused(world: Path, out: Path, start: Path, kind: str, said: str, *words: str) -> None:
    """Exit code 2, one line, and neither run nor cache."""
    with pytest.raises(FineprefError, match=said) as raised:
        train(world, out, start, kind, f"cache.folder={out}-cache", *words, alpha=made.ALPHA)
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value)
    assert not out.exists()
    assert not Path(f"{out}-cache").exists()


@functools.cache
def sd15_files(base: Path) -> dict[str, tuple[made.Tensors, dict[str, str], float, str]]:
    """Layout -> tensors, header, the alpha that it has, and why it is refused ("" where it is read)."""
    targets = TARGETS["sd15"]
    own, words, about = unet(base, targets), text(base), metadata("unet", targets)
    named, texts = made.under("unet", own), made.under("text_encoder", words)
    both = {
        "lora_adapter_metadata": json.dumps({**json.loads(about), **json.loads(metadata("text_encoder", made.TEXT))})
    }
    encoders = r"of its \d+ tensors are for text encoders"
    return {
        "diffusers": (named, {}, made.RANK, ""),
        "diffusers with metadata": (named, {"lora_adapter_metadata": about}, made.ALPHA, ""),
        "diffusers + text encoder": ({**named, **texts}, both, made.ALPHA, encoders),
        "text encoder alone": (texts, {}, made.RANK, encoders),
        "kohya": (made.kohya(own, "lora_unet"), {}, made.ALPHA, ""),
        "kohya + text encoder": (
            {**made.kohya(own, "lora_unet"), **made.kohya(words, "lora_te_text_model")}, {}, made.ALPHA, encoders,
        ),
        "old attn-processor": (made.processors(own), {}, made.RANK, ""),
        "bare names": (own, {}, made.RANK, ""),
        "ComfyUI": (made.comfy(own), {}, made.ALPHA, "are of modules that the unet does not have"),
        "renamed modules": (
            made.renamed(named, lambda name: name.replace("_blocks", "_stages")), {}, made.RANK,
            "32 of its 32 tensors are of modules that the unet does not have",
        ),
        "some renamed": (
            made.renamed(named, lambda name: name.replace("mid_block", "middle")), {}, made.RANK,
            "8 of its 32 tensors are of modules that the unet does not have",
        ),
    }  # fmt: skip


LAYOUTS = (
    *("diffusers", "diffusers with metadata", "diffusers + text encoder", "text encoder alone", "kohya"),
    *("kohya + text encoder", "old attn-processor", "bare names", "ComfyUI", "renamed modules", "some renamed"),
)


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_start_is_plain_diffusers_picture_or_a_sentence(worlds, tmp_path: Path, layout: str, kind: str) -> None:
    world = worlds("sd15")
    tensors, header, alpha, said = sd15_files(world / "base")[layout]
    file = world / "files" / f"{layout}.safetensors"
    if not file.is_file():
        made.write(file, tensors, **header)
    if said:
        refused(world, tmp_path / "run", file, kind, said)
        return
    expected = oracle(world / "base", file, bare=layout == "bare names")
    assert (expected - picture(plain(world / "base"))).abs().max() > 0.05
    run = train(world, tmp_path / "run", file, kind, alpha=alpha)
    assert (picture(open_pipeline(str(run), device="cpu")) - expected).abs().max() <= TOLERANCE[kind]


@functools.cache
def other_files(family: str, base: Path) -> dict[str, made.Tensors]:
    own = unet(base, TARGETS[family])
    if family == "sdxl":
        return {
            "diffusers": made.under("unet", own),
            "kohya": made.kohya(made.renamed(own, made.original), "lora_unet"),
        }
    fused = made.fused_qkv(own)
    return {
        "diffusers": made.under("transformer", own),
        "kohya": made.kohya(fused, "lora_unet"),
        "ComfyUI": made.comfy(fused),
    }


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize(
    ("family", "layout"),
    [("sdxl", "diffusers"), ("sdxl", "kohya"), ("flux", "diffusers"), ("flux", "kohya"), ("flux", "ComfyUI")],
)
def test_a_start_of_other_families(worlds, tmp_path: Path, family: str, layout: str, kind: str) -> None:
    """FLUX's converter multiplies alpha into the weights, so that alpha is the rank, also of its split q, k and v."""
    world = worlds(family)
    file = world / "files" / f"{layout}.safetensors"
    if not file.is_file():
        made.write(file, other_files(family, world / "base")[layout])
    alpha = made.ALPHA if (family, layout) == ("sdxl", "kohya") else made.RANK
    expected = oracle(world / "base", file)
    run = train(world, tmp_path / "run", file, kind, alpha=alpha)
    assert (picture(open_pipeline(str(run), device="cpu")) - expected).abs().max() <= TOLERANCE[kind]
    refused(
        worlds("sd15"), tmp_path / "other", file, kind, "of its .* tensors are of modules that the unet does not have"
    )
