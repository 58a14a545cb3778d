"""Parts that were not made for each other are refused before a byte of the cache or of a run is written."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import own_pairs
import tiny
from finepref.cli.main import main
from finepref.core.errors import FineprefError
from finepref.core.files import read_object
from finepref.models.load import load_adapter, load_pipeline
from finepref.plan.skeleton import count
from finepref.train.config import RunConfig, parse_config
from finepref.train.run import train_run

Change = Callable[[Path, dict[str, Path]], None]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny pipelines by family, and the data of a run."""
    place = tmp_path_factory.mktemp("parts")
    made = {name: tiny.BUILDERS[name](place / name) for name in ("sd15", "sdxl", "flux", "sd3")}
    own_pairs.make_folder(place / "data", pairs=3)
    return {**made, "data": place / "data"}


def config(name: str, **entries: Any) -> Change:
    """Entries of a JSON file of the folder; None removes one, ... is null."""

    def change(folder: Path, bases: dict[str, Path]) -> None:
        changed = {**read_object(folder / name), **entries}
        held = {key: None if value is ... else value for key, value in changed.items() if value is not None}
        (folder / name).write_text(json.dumps(held))  # with NaN, as Python's writer has it

    return change


def part_of(name: str, part: str, *, to: str | None = None) -> Change:
    """A part of another family's pipeline in place of the own one, as diffusers saved it."""
    place = to or part

    def change(folder: Path, bases: dict[str, Path]) -> None:
        shutil.rmtree(folder / place)
        shutil.copytree(bases[name] / part, folder / place)
        entry = read_object(bases[name] / "model_index.json")[part]
        config("model_index.json", **{place: entry})(folder, bases)

    return change


def vae(**options: Any) -> Change:
    def change(folder: Path, bases: dict[str, Path]) -> None:
        shutil.rmtree(folder / "vae")
        tiny.kl_vae(**options).save_pretrained(folder / "vae")

    return change


def unet(**changed: Any) -> Change:
    """The UNet made again with another config, its weights with it."""

    def change(folder: Path, bases: dict[str, Path]) -> None:
        from diffusers import UNet2DConditionModel

        options = {**UNet2DConditionModel.load_config(folder / "unet"), **changed}
        tiny.seeded(1, lambda: UNet2DConditionModel.from_config(options)).save_pretrained(folder / "unet")

    return change


def text(width: int, tokens: int | None = None) -> Change:
    """A text encoder of another width, or with another number of words."""

    def change(folder: Path, bases: dict[str, Path]) -> None:
        known = tiny.clip_tokenizer() if tokens is None else range(tokens)
        tiny.clip_text(known, width=width).save_pretrained(folder / "text_encoder")

    return change


def said(word: str) -> Change:
    """What the header of the UNet's weights says."""

    def change(folder: Path, bases: dict[str, Path]) -> None:
        from safetensors.torch import load_file, save_file

        file = folder / "unet" / "diffusion_pytorch_model.safetensors"
        save_file(load_file(file), file, metadata={"format": "pt", "modelspec.prediction_type": word})

    return change


def tensors(part: str, **changed: torch.Tensor | None) -> Change:
    """Other tensors in a part's weights than its config wants; None removes one."""

    def change(folder: Path, bases: dict[str, Path]) -> None:
        from safetensors.torch import load_file, save_file

        file = next((folder / part).glob("*.safetensors"))
        held = {**load_file(file), **{name.replace("__", "."): value for name, value in changed.items()}}
        save_file({name: value for name, value in held.items() if value is not None}, file, metadata={"format": "pt"})

    return change


def rewritten(part: str, make: Callable[[str, torch.Tensor], dict[str, torch.Tensor]]) -> Change:
    """Every tensor of a part's weights becomes those that `make` makes of it."""

    def change(folder: Path, bases: dict[str, Path]) -> None:
        from safetensors.torch import load_file, save_file

        file = next((folder / part).glob("*.safetensors"))
        held = [make(name, value) for name, value in load_file(file).items()]
        save_file({name: value for each in held for name, value in each.items()}, file, metadata={"format": "pt"})

    return change


def shards(*, plain: bool) -> Change:
    """The UNet in shards, one weight in two of them. plain: and all in one file beside them."""

    def change(folder: Path, bases: dict[str, Path]) -> None:
        from diffusers import UNet2DConditionModel
        from safetensors.torch import load_file, save_file

        file = folder / "unet" / "diffusion_pytorch_model.safetensors"
        UNet2DConditionModel.from_pretrained(folder / "unet").save_pretrained(folder / "unet", max_shard_size="500KB")
        if not plain:
            file.unlink()
            first, *_, last = sorted(file.parent.glob("*.safetensors"))
            name, value = next(iter(load_file(first).items()))
            save_file({**load_file(last), name: value + 7}, last, metadata={"format": "pt"})

    return change


V = {"prediction_type": "v_prediction"}
SCHEDULER = "scheduler/scheduler_config.json"
CASES: dict[str, tuple[str, Change, str]] = {
    "16-channel VAE": ("sd15", vae(channels=16), "its unet takes 4 channels, its VAE makes latents of 16; take all"),
    "VAE of FLUX": ("sdxl", part_of("flux", "vae"), "its unet takes 4 channels, its VAE makes latents of 16"),
    "4-channel VAE": ("flux", part_of("sdxl", "vae"), "takes 64 channels, its VAE makes latents of 4 (4 a token: 16)"),
    "wider text encoder": ("sd15", text(64), "its unet takes prompt_embeds 32 wide, its text encoders make 64"),
    "one wider of two": ("sdxl", text(48), "its unet takes prompt_embeds 64 wide, its text encoders make 80"),
    "T5 of another width": ("sd3", part_of("flux", "text_encoder_2", to="text_encoder_3"),
                            "its transformer takes prompt_embeds 64 wide, its text encoders make 32"),
    "T5 in CLIP's place": ("sd3", part_of("flux", "text_encoder_2"),
                           "its text encoders (CLIPTextConfig, T5Config, T5Config) are not sd3's"),
    "inpainting": ("sd15", unet(in_channels=9), "9 channels, its VAE makes latents of 4: it is one for inpainting"),
    "editing": ("sdxl", unet(in_channels=8), "8 channels, its VAE makes latents of 4: it is one for inpaint"),
    "learned variance": ("sd15", unet(out_channels=8), "its unet makes 8 channels of 4"),
    "UNet of SDXL": ("sd15", part_of("sdxl", "unet"), "addition_embed_type is 'text_time', a unet of sd15 has None"),
    "UNet of SD1.5": ("sdxl", part_of("sd15", "unet"), "addition_embed_type is None, a unet of sdxl has 'text_time'"),
    "transformer in a UNet's place": ("sd15", part_of("sd3", "scheduler"), "a scheduler of flow matching"),
    "noise scheduler of a flow": ("sd3", part_of("sd15", "scheduler"), "'epsilon', and sd3 is a model of flow"),
    "unknown prediction": ("sd15", config(SCHEDULER, prediction_type="sample"), "unknown prediction_type 'sample'"),
    **{f"{name}'s {key} {value!r:.9}": (name, config(SCHEDULER, **{key: value}), f"scheduler_config.json: {sentence}")
       for name, key, value, sentence in (
        ("sd15", "num_train_timesteps", 0, "num_train_timesteps is 0, not a number of levels; take the scheduler's"),
        ("flux", "num_train_timesteps", "x", "num_train_timesteps is 'x', not a number of levels"),
        ("sd15", "beta_start", float("nan"), "beta_start holds nan, not a number from 0 to 1"),
        ("sdxl", "beta_end", float("inf"), "beta_end holds inf, not a number from 0 to 1"),
        ("sd15", "trained_betas", [0.01] * 10, "trained_betas is not a list of 1000 numbers"),
        ("sd15", "trained_betas", [0.01] * 999 + [-1.0], "trained_betas holds -1.0, not a number from 0 to 1"),
    )},
    "said epsilon": ("sd15", lambda *at: (said("epsilon")(*at), config(SCHEDULER, **V)(*at))[0],
                     "prediction_type is 'v_prediction', the UNet's weights say that they predict 'epsilon'"),
    "said v": ("sdxl", said("v"), "prediction_type is 'epsilon', the UNet's weights say that they predict 'v'"),
    "words": ("sd15", text(32, tokens=200), "tokens, its text encoder 200"),
    "no scale": ("sdxl", config("vae/config.json", scaling_factor=None), "it does not say scaling_factor, by which"),
    "no shift": ("flux", config("vae/config.json", shift_factor=None), "it does not say shift_factor, by which"),
    **{f"{name}'s {key} {value}": (name, config("vae/config.json", **{key: value}, **more), sentence)
       for name, key, value, more, sentence in (
        ("sd15", "shift_factor", 0.5, {}, "shift_factor is 0.5, and the pipeline of sd15 does not undo it"),
        ("sd15", "latents_std", [2.0] * 4, {"latents_mean": [0.5] * 4}, "latents_mean is [0.5, 0.5, 0.5, 0.5], and"),
        ("sdxl", "shift_factor", 0.5, {}, "shift_factor is 0.5, and the pipeline of sdxl does not undo it"),
        ("sdxl", "latents_mean", [0.5] * 4, {}, "it says one of latents_mean and latents_std"),
        ("sd3", "latents_mean", [0.5] * 16, {"latents_std": [2.0] * 16}, "and the pipeline of sd3 does not undo it"),
        ("sdxl", "latents_std", [0.0] * 4, {"latents_mean": [0.5] * 4}, "latents_std is [0.0, 0.0, 0.0, 0.0], not 4 n"),
        ("sdxl", "latents_std", [1.0], {"latents_mean": [0.5] * 4}, "latents_std is [1.0], not 4 numbers above 0"),
        ("sd15", "scaling_factor", "x", {}, "vae/config.json: scaling_factor is 'x', not a number above 0; take conf"),
        ("sd15", "scaling_factor", ..., {}, "vae/config.json: scaling_factor is None, not a number above 0"),
        ("sd15", "scaling_factor", 0, {}, "vae/config.json: scaling_factor is 0, not a number above 0"),
        ("flux", "shift_factor", float("nan"), {}, "vae/config.json: shift_factor is nan, not a number"),
    )},
    "config of wider layers": ("sd15", config("unet/config.json", block_out_channels=[32, 128]),
                               "as [64, 32, 3, 3], its config.json wants [128, 32, 3, 3]"),
    "config of more layers": ("flux", config("transformer/config.json", num_layers=2), "of its weights are missing"),
    "config of fewer layers": ("sdxl", config("vae/config.json", layers_per_block=0), "of its weights have no place"),
    "one weight away": ("flux", tensors("transformer", x_embedder__weight=None), "1 of its weights are missing"),
    "one tensor more": ("sd15", tensors("unet", v_pred=torch.zeros(1)), "1 of its weights have no place in the U"),
    "config of more words": ("sd15", config("text_encoder/config.json", vocab_size=75, hidden_size=32),
                             "its words' table is ["),
    "a name in two shards": ("sd15", shards(plain=False), "one weight is there twice, as "),
    "shards and one file": ("sd15", shards(plain=True), "its weights are there twice, as diffusion_pyt"),
    "a text encoder under two names": (
        "sd15", rewritten("text_encoder", lambda name, value: {name: value, f"text_model.{name}": value * 3}),
        "one weight is there twice, as embeddings.position_embedding.weight of model.safetensors and as text_m"),
    "attention under two names": (
        "sd15", rewritten("vae", lambda name, value: {name: value, name.replace(".to_q.", ".query."): value * 1}),
        "attentions.0.to_q.bias of diffusion_pytorch_model.safetensors; fetch it again"),
    **{f"{dtype} of a {part}": ("sd15", rewritten(part, lambda name, value, dtype=dtype: {name: value.to(dtype)}),
       f"{name}, and weights are floats; give the float weights")
       for part, dtype, name in (("unet", torch.int8, "conv_in.bias holds I8"), ("vae", torch.complex64, "holds C64"),
       ("text_encoder", torch.bool, "holds BOOL"), ("unet", torch.int64, "conv_in.bias holds I64"))},
    "no text encoder": ("flux", config("model_index.json", text_encoder=[None, None]), "the pipeline has no text_en"),
}  # fmt: skip


def run_of(base: Path, bases: dict[str, Path], cache: Path) -> RunConfig:
    return parse_config(
        {
            "model": {"base": str(base)},
            "data": {"paths": [str(bases["data"])], "resolution": 32},
            "cache": {"folder": str(cache)},
            "objective": {"name": "dpo", "beta": 100.0},
            "train": {"max_steps": 1, "pairs_per_step": 2, "learning_rate": 1e-5},
        }
    )


@pytest.mark.parametrize("case", CASES)
def test_parts_of_two_models_are_refused_before_any_work(
    bases: dict[str, Path],
    tmp_path: Path,
    case: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By `finepref cache` (exit code 2) and by a run, in the same sentence; neither leaves a file."""
    name, change, sentence = CASES[case]
    folder = shutil.copytree(bases[name], tmp_path / "base")
    change(folder, bases)
    run = run_of(folder, bases, tmp_path / "cache")
    (tmp_path / "run.yaml").write_text(json.dumps(run.model_dump(mode="json", exclude_none=True)))
    monkeypatch.setattr(sys, "argv", ["finepref", "cache", "-c", str(tmp_path / "run.yaml")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert sentence in said
    with pytest.raises(FineprefError) as refused:
        train_run(run, tmp_path / "run")
    assert sentence in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "run.yaml"]


def test_who_reads_a_part_of_it_refuses_the_same(bases: dict[str, Path], tmp_path: Path) -> None:
    """A VAE of `model.vae`, and every other entrance: adapter, pipeline, plan."""
    other = tmp_path / "vae"
    tiny.kl_vae(channels=16).save_pretrained(other)
    folder = shutil.copytree(bases["sd15"], tmp_path / "base")
    part_of("flux", "vae")(folder, bases)
    calls: list[Callable[[], object]] = [
        lambda: load_adapter(bases["sd15"], vae=str(other)),
        lambda: load_pipeline(folder),
        lambda: count(folder, resolution=32),
        lambda: count(bases["sd15"], vae=str(other), resolution=32),
    ]
    for call in calls:
        with pytest.raises(FineprefError, match="its unet takes 4 channels, its VAE makes latents of 16"):
            call()


@pytest.mark.parametrize("case", ["a name in two shards", "a text encoder under two names", "torch.int8 of a unet"])
def test_who_only_loads_refuses_the_same_weights(bases: dict[str, Path], tmp_path: Path, case: str) -> None:
    _, change, sentence = CASES[case]
    change(folder := shutil.copytree(bases["sd15"], tmp_path / "base"), bases)
    with pytest.raises(FineprefError, match=re.escape(sentence)):
        load_pipeline(folder)


def test_attention_names_of_old_vaes_are_read(bases: dict[str, Path], tmp_path: Path) -> None:
    """As the first published VAEs have them; diffusers renames them when it loads, and the latents are the same."""
    from safetensors.torch import load_file, save_file

    from finepref.models.encoder import LatentEncoder

    folder = shutil.copytree(bases["sd15"], tmp_path / "base")
    file = next((folder / "vae").glob("*.safetensors"))
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    held = load_file(file)
    for new, name in old.items():
        held = {key.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): value for key, value in held.items()}
    assert sum("proj_attn" in key for key in held) == 4
    save_file(held, file, metadata={"format": "pt"})
    pixels = torch.full((1, 3, 32, 32), 200, dtype=torch.uint8)
    found, expected = (LatentEncoder(base, resolution=32).encode_images(pixels)[0] for base in (folder, bases["sd15"]))
    assert torch.equal(found, expected)


def test_shards_are_read_through_their_index(bases: dict[str, Path], tmp_path: Path) -> None:
    """Every shard's shapes; an index that is none, or names a shard that is gone, is one sentence."""
    from diffusers import UNet2DConditionModel

    from finepref.models.header import part_header

    folder = tmp_path / "unet"
    network = UNet2DConditionModel.from_pretrained(bases["sd15"] / "unet")
    network.save_pretrained(folder, max_shard_size="200KB")
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    assert part_header(folder, UNet2DConditionModel).shapes == {
        name: tuple(value.shape) for name, value in network.state_dict().items()
    }
    shards[0].rename(tmp_path / "away")
    with pytest.raises(FineprefError, match=f"{shards[0].name}: no such file"):
        part_header(folder, UNet2DConditionModel)
    next(folder.glob("*.index.json")).write_text('{"weight_map": []}')
    with pytest.raises(FineprefError, match="not a list of weight files"):
        part_header(folder, UNet2DConditionModel)


def test_a_small_vae_without_a_posterior_makes_latents(bases: dict[str, Path], tmp_path: Path) -> None:
    """AutoencoderTiny as `model.vae`: its latents as diffusers gives them, with no spread."""
    from diffusers import AutoencoderTiny

    from finepref.models.encoder import LatentEncoder

    small = tiny.seeded(5, lambda: AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ))  # fmt: skip
    small.save_pretrained(tmp_path / "vae")
    pixels = torch.full((1, 3, 32, 32), 200, dtype=torch.uint8)
    mean, std = LatentEncoder(bases["sd15"], resolution=32, vae=str(tmp_path / "vae")).encode_images(pixels)
    with torch.no_grad():
        torch.testing.assert_close(mean, small.encode(pixels.float() / 127.5 - 1).latents, rtol=1e-5, atol=1e-6)
    assert std.abs().max() == 0
