"""Single-file checkpoints: the oracle is plain diffusers, of the folder and of the file."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny
from finepref.core.errors import FineprefError, InputError
from finepref.core.files import read_object
from finepref.models.family import family_of
from finepref.models.header import read_header
from finepref.models.load import load_adapter, load_pipeline
from finepref.models.original import pieces
from finepref.models.original_flow import flux
from finepref.models.prediction import scheduler_of
from finepref.models.source import load_vae, locate
from finepref.models.start import check_start, start_sha256
from single_files import MAKERS, UNET, change, equal, pack, plain, weights
from tiny import picture


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    """family -> (folder, file)."""
    made: dict[str, tuple[Path, Path]] = {}

    def get(name: str) -> tuple[Path, Path]:
        if name not in made:
            folder = MAKERS[name](tmp_path_factory.mktemp(name) / "base")
            made[name] = folder, pack(folder, folder.parent / "base.safetensors")
        return made[name]

    return get


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own cache for unpacked files."""
    place = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("FINEPREF_HOME", str(place))
    return place


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_is_its_folder(world, tmp_path: Path, name: str) -> None:
    """Folder -> file -> folder -> file changes no number, and the pictures are those of plain diffusers."""
    folder, file = world(name)
    found = locate(file, config=str(folder))
    assert equal(weights(found.folder), weights(folder))
    assert torch.equal(picture(load_pipeline(file, config=str(folder))), picture(plain(folder)))
    again = load_file(pack(found.folder, tmp_path / "again.safetensors"))
    assert equal(again, load_file(file))


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "flux"])
def test_diffusers_reads_what_is_written(world, name: str) -> None:
    """Its reader gives the folder's tensors (of CLIP-L in SD3 but the projection, which it never reads)."""
    import diffusers

    folder, file = world(name)
    cls = getattr(diffusers, read_object(folder / "model_index.json")["_class_name"])
    pipe = cls.from_single_file(str(file), config=str(folder), local_files_only=True)
    expected = plain(folder)
    for part, network in expected.components.items():
        if isinstance(network, torch.nn.Module):
            ours, theirs = network.state_dict(), getattr(pipe, part).state_dict()
            if name == "sd3" and part == "text_encoder":
                assert torch.equal(theirs.pop("text_projection.weight"), torch.eye(32))
                ours.pop("text_projection.weight")
            assert equal(theirs, ours), part


def test_flux_is_cut_where_diffusers_cuts_it() -> None:
    """At its true height (diffusers' reader knows no other), one column wide; every row is told by its number."""
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    width = 3072
    names = json.loads(_flux_names())
    shapes = {name: (rows * width // 4, 1) for name, rows in names.items()}
    translate = flux({}, shapes)
    made = pieces(translate, shapes)
    original = {name: torch.arange(piece.shape(shapes)[0]).unsqueeze(1) for name, piece in made.items()}
    ours: dict[str, torch.Tensor] = {}
    for name, piece in made.items():
        ours |= piece.split(original[name], shapes)
        assert torch.equal(piece.join(ours), original[name])
    theirs = convert_flux_transformer_checkpoint_to_diffusers(dict(original))
    assert equal({name: value.contiguous() for name, value in theirs.items()}, ours)


def _flux_names() -> str:
    """Names of one block of each kind -> rows in quarters of the width."""
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        network = FluxTransformer2DModel(
            num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=32,
            pooled_projection_dim=32, guidance_embeds=True, axes_dims_rope=(4, 4, 8),
        )  # fmt: skip
    return json.dumps({name: max(1, 4 * value.shape[0] // 32) for name, value in network.state_dict().items()})


def test_it_is_unpacked_once(world, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = world("sd15")
    first = locate(file, config=str(folder))
    assert "unpacked once into" in (said := capsys.readouterr().err)
    assert "prediction type epsilon, as its header says" in said
    again = locate(shutil.copyfile(file, home / "a copy.safetensors"), config=str(folder))
    assert again.folder == first.folder
    assert capsys.readouterr().err == ""
    assert [path.name for path in (home / "single").iterdir()] == [first.folder.name]


def _spoil(file: Path) -> None:
    """One bit of the last number, as a failing disk leaves it."""
    held = bytearray(file.read_bytes())
    held[-1] ^= 2
    file.write_bytes(held)


SPOILED = {
    "unet/diffusion_pytorch_model.safetensors": _spoil,
    "unet": shutil.rmtree,
    "scheduler/stray.json": lambda file: file.write_text("{}"),
    "finepref.sha256": _spoil,
}


def test_what_was_spoiled_in_the_cache_is_made_again(world, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = world("sd15")
    first = locate(file, config=str(folder)).folder
    for name, spoil in SPOILED.items():
        spoil(first / name)
        capsys.readouterr()
        assert locate(file, config=str(folder)).folder == first
        said = capsys.readouterr().err
        assert f"base.safetensors: unpacked again, since its {name}" in said
        assert "was not as it was made, into" in said
        assert said.count("\n") == 1
        assert equal(weights(first), weights(folder))
    assert not (first / "scheduler/stray.json").exists()
    locate(file, config=str(folder))
    assert capsys.readouterr().err == ""


def test_what_is_left_out_is_told(world, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tensors of published checkpoints that are no weights of a part; an SD2 text encoder has a layer more."""
    from diffusers import DDIMScheduler

    folder, file = world("sd2")
    scheduler = DDIMScheduler.from_config(read_object(folder / "scheduler/scheduler_config.json"))
    schedule, betas = scheduler.alphas_cumprod, scheduler.betas.half()
    text = "cond_stage_model.model."
    layer = {
        name.replace("resblocks.1", "resblocks.2"): value
        for name, value in load_file(file).items()
        if "resblocks.1" in name
    }
    more = {
        "alphas_cumprod": schedule.half(),
        "betas": betas,
        "sqrt_alphas_cumprod": schedule.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - schedule).sqrt().half(),
        "log_one_minus_alphas_cumprod": (1 - schedule).log(),
        "sqrt_recip_alphas_cumprod": schedule.rsqrt().bfloat16(),
        "sqrt_recipm1_alphas_cumprod": (1 / schedule - 1).sqrt(),
        "denoiser.sigmas": (1 / schedule - 1).sqrt().flip(0),
        "model_ema.decay": torch.zeros(()),
        f"{text}logit_scale": torch.zeros(()),
        f"{text}text_projection": torch.eye(32),
    }
    found = locate(change(file, tmp_path / "more.safetensors", more | layer), config=str(folder))
    said = capsys.readouterr().err
    for word in ("8 left out: the noise schedule", "12 left out: the last layer", "1 left out: the trainer's running"):
        assert word in said
    assert equal(weights(found.folder), weights(folder))
    capsys.readouterr()
    folder, file = world("sd15")
    positions = {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)}
    locate(change(file, tmp_path / "positions.safetensors", positions), config=str(folder))
    assert "1 left out: positions 0, 1, 2" in capsys.readouterr().err


VELOCITY = {"v_pred": torch.zeros(0)}


def test_the_prediction_type_is_said_by_marks_option_or_config(world, tmp_path: Path) -> None:
    folder, file = world("sdxl")

    def scheduler(place: Path, **said: str) -> dict:
        return read_object(locate(place, config=str(folder), **said).folder / "scheduler/scheduler_config.json")

    assert scheduler(file)["prediction_type"] == "epsilon"
    assert scheduler(file, prediction_type="epsilon")["prediction_type"] == "epsilon"
    noob = change(file, tmp_path / "noob.safetensors", {**VELOCITY, "ztsnr": torch.zeros(0)})
    with pytest.raises(InputError, match="its tensor v_pred says v_prediction, its header says epsilon"):
        locate(noob, config=str(folder))
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(noob), bare)
    held = scheduler(bare)
    assert (held["prediction_type"], held["rescale_betas_zero_snr"]) == ("v_prediction", True)
    with pytest.raises(InputError, match=r"model\.prediction_type says epsilon, its tensor v_pred says v_prediction"):
        locate(bare, config=str(folder), prediction_type="epsilon")
    save_file(load_file(file), bare)
    assert scheduler(bare, prediction_type="v_prediction")["prediction_type"] == "v_prediction"
    bare.with_suffix(".yaml").write_text("model:\n  target: x\n  params:\n    parameterization: v\n")
    assert scheduler(bare)["prediction_type"] == "v_prediction"
    bare.with_suffix(".yaml").write_text("model:\n  params:\n    parameterization: x0\n")
    with pytest.raises(InputError, match="the prediction type 'x0' is not known"):
        locate(bare, config=str(folder))


def test_an_sd2_file_that_does_not_say_its_prediction_is_asked_about(world, tmp_path: Path) -> None:
    folder, file = world("sd2")
    bare = tmp_path / "bare.safetensors"
    save_file({name: value for name, value in load_file(file).items() if name != "v_pred"}, bare)
    header, config = read_header(bare), read_object(folder / "scheduler/scheduler_config.json")
    with pytest.raises(
        InputError, match=r"whether it predicts noise or velocity; set model\.prediction_type to epsilon"
    ):
        scheduler_of(header, config, given=None, named=False, asked=True)
    for word in ("epsilon", "v_prediction"):
        made, who = scheduler_of(header, config, given=word, named=False, asked=True)
        assert (made["prediction_type"], who) == (word, "model.prediction_type")


LORA = {"lora_unet_mid_block_attentions_0.lora_down.weight": torch.zeros(4, 4)}
NOTHING = {"something.else": torch.zeros(1)}
SCALED = {f"{UNET}out.2.scale_weight": torch.ones(())}


def _cut(file: Path, out: Path) -> Path:
    out.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return out


def _only(file: Path, out: Path, *begins: str) -> Path:
    save_file({name: value for name, value in load_file(file).items() if name.startswith(begins)}, out)
    return out


def _nan(file: Path, out: Path) -> Path:
    name = f"{UNET}out.2.bias"
    return change(file, out, {name: torch.full_like(load_file(file)[name], torch.nan)})


def _nine(file: Path, out: Path) -> Path:
    name = f"{UNET}input_blocks.0.0.weight"
    return change(file, out, {name: torch.zeros(load_file(file)[name].shape[0], 9, 3, 3)})


def _pickle(file: Path, out: Path) -> Path:
    torch.save({"state_dict": {}}, out.with_suffix(".ckpt"))
    return out.with_suffix(".ckpt")


def _saved(tensors):
    return lambda file, out: save_file(tensors, out) or out


REFUSED = {
    "cut": (_cut, "not a whole safetensors file"),
    "pickle": (_pickle, "may run code when it is opened, and is never read; take the .safetensors file"),
    "LoRA": (_saved(LORA), "it is a LoRA, not a base model; give it as model.init_from"),
    "VAE": (lambda *at: _only(*at, "first_stage_model."), "it is a VAE, not a base model; give it as model.vae"),
    "one part": (
        lambda file, out: shutil.copyfile(file.parent / "base/unet/diffusion_pytorch_model.safetensors", out),
        "it is one part of a diffusers pipeline, not a base model; give the whole folder",
    ),
    "something else": (_saved(NOTHING), "no denoiser is in it; its first tensor is 'something.else'"),
    "inpainting": (_nine, "its UNet reads 9 channels: a checkpoint for inpainting"),
    "not finite": (_nan, "out.2.bias holds numbers that are not finite"),
    "no text encoder": (lambda *at: change(*at, without="cond_stage"), "it holds no text_encoder"),
    "half a text encoder": (
        lambda *at: change(*at, without="cond_stage_model.transformer.text_model.final"),
        "2 tensors of the text_encoder of .* lack, the first is 'cond_stage_model.transformer.text_model.final",
    ),
    "scaled": (
        lambda *at: change(*at, SCALED),
        "1 of its tensors have no place in the StableDiffusionPipeline .* the first is 'model.diffusion_model.out.2.s",
    ),
    "integers": (
        lambda *at: change(*at, {f"{UNET}out.2.bias": torch.ones(4, dtype=torch.int8)}),
        "model.diffusion_model.out.2.bias holds I8, and weights are floats; give the float weights",
    ),
    **{
        f"another schedule in {name}": (
            lambda *at, name=name, held=held: change(*at, {name: held}),
            f"its noise schedule .{name}. is not that of the scheduler's config",
        )
        for name, held in {
            "alphas_cumprod": torch.linspace(1, 0, 1000),
            "betas": torch.full((1000,), 0.5),
            "sqrt_alphas_cumprod": torch.linspace(1, 0, 1000),
            "denoiser.sigmas": torch.linspace(0, 14, 500),
        }.items()
    },
    "pure noise, and it predicts noise": (
        lambda *at: change(*at, {"ztsnr": torch.zeros(0)}),
        "its tensor ztsnr says .*, and it predicts noise, as its header says; correct what is wrong, or set model.pred",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_whole_checkpoint_is_one_sentence(world, tmp_path: Path, home: Path, what: str) -> None:
    folder, file = world("sd15")
    make, message = REFUSED[what]
    other = make(file, tmp_path / "other.safetensors")
    named = folder
    if what == "no text encoder":
        named = shutil.copytree(folder, tmp_path / "named")
        (named / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(FineprefError, match=message):
        locate(other, config=str(named))
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_a_file_of_another_family_is_named(world, tmp_path: Path) -> None:
    (folder, file), (other, xl) = world("sd15"), world("sdxl")
    message = (
        r"it is a checkpoint of a StableDiffusionXLPipeline, and .* is a StableDiffusionPipeline; name a diffusers"
    )
    with pytest.raises(InputError, match=message):
        locate(xl, config=str(folder))
    with pytest.raises(InputError, match=r"a checkpoint of a StableDiffusionPipeline, and .* is a StableDiffusionXL"):
        locate(file, config=str(other))
    with pytest.raises(InputError, match="pipeline class 'StableDiffusionPipeline' is not served; served: StableDiff"):
        load_pipeline(file, config=str(folder), family="sdxl")
    wide = tiny.save(_wider(plain(folder)), tmp_path / "wide")
    with pytest.raises(
        InputError, match=r"attn2.to_k.weight is \d+x32, and the unet of .* has \d+x48; name a diffusers"
    ):
        locate(file, config=str(wide))


def _wider(pipe):
    """The pipeline with a UNet that reads prompts 48 wide."""
    from diffusers import UNet2DConditionModel

    pipe.unet = UNet2DConditionModel.from_config({**pipe.unet.config, "cross_attention_dim": 48})
    return pipe


def test_options_that_have_no_effect_are_refused(world, tmp_path: Path) -> None:
    folder, file = world("sd15")
    for base, said, message in (
        (file, {"revision": "main"}, "a revision belongs to a hub name, not to a single file; drop it"),
        (file, {"variant": "fp16"}, "a variant belongs to a diffusers folder or a hub name, not to a single file"),
        (folder, {"config": str(folder)}, "a config belongs to a single file, not to a diffusers folder"),
        (folder, {"prediction_type": "epsilon"}, "a prediction_type belongs to a single file"),
        (tmp_path / "away.safetensors", {}, r"away\.safetensors: no such file; check the path"),
    ):
        with pytest.raises(InputError, match=message):
            locate(base, **said)
    flow, sd3 = world("sd3")
    with pytest.raises(FineprefError, match=r"model\.prediction_type: a flow model has one prediction type; drop it"):
        locate(sd3, config=str(flow), prediction_type="epsilon")


def test_configs_come_from_the_hubs_cache_or_a_sentence_says_how(
    world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    folder, file = world("sd15")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = "holds neither configs nor tokenizers, and those of stable-diffusion-v1-5/stable-diffusion-v1-5 are out"
    with pytest.raises(InputError, match=message) as refused:
        locate(file)
    assert "`hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --include 'model_index.json'" in str(refused.value)
    held = tmp_path / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    small = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(folder, held / "snapshots" / ("0" * 40), ignore=small)
    (held / "refs").mkdir()
    (held / "refs" / "main").write_text("0" * 40)
    assert equal(weights(locate(file).folder), weights(folder))


def test_parts_that_a_file_lacks_come_from_the_named_folder(world, tmp_path: Path, capsys) -> None:
    """As FLUX.1 is published: the transformer alone, without a prefix."""
    folder, file = world("flux")
    bare = {name.removeprefix(UNET): value for name, value in load_file(file).items() if name.startswith(UNET)}
    save_file(bare, tmp_path / "flux.safetensors")
    found = locate(tmp_path / "flux.safetensors", config=str(folder))
    assert equal(weights(found.folder), weights(folder))
    assert f"vae is that of {folder}; text_encoder is that of {folder}" in capsys.readouterr().err


def test_lent_weights_do_not_change_with_the_file_they_came_from(world, tmp_path: Path) -> None:
    folder, file = world("sd15")
    bare = change(file, tmp_path / "bare.safetensors", without="cond_stage")
    lender = shutil.copytree(folder, tmp_path / "lender")
    found = locate(bare, config=str(lender)).folder
    lent = lender / "text_encoder/model.safetensors"
    with open(lent, "r+b") as held:  # in place, as cp writes
        held.write(lent.read_bytes()[:-1] + b"\x11")
    assert equal(weights(found), weights(folder))
    assert locate(bare, config=str(folder)).folder == found
    assert locate(bare, config=str(lender)).folder != found


@pytest.mark.parametrize("layout", ["bare", "prefixed", "diffusers"])
def test_a_vae_in_a_file(world, tmp_path: Path, layout: str) -> None:
    folder, file = world("sd15")
    source, place, begin = locate(folder), tmp_path / "vae.safetensors", "first_stage_model."
    held = {name: value for name, value in load_file(file).items() if name.startswith(begin)}
    own = load_file(folder / "vae/diffusion_pytorch_model.safetensors")
    bare = {name.removeprefix(begin): value for name, value in held.items()}
    save_file({"bare": bare, "prefixed": held, "diffusers": own}[layout], place)
    found = load_vae(source, str(place))
    assert equal(found.state_dict(), own)
    assert found.config.scaling_factor == read_object(folder / "vae/config.json")["scaling_factor"]


def test_what_is_no_vae_of_the_base(world, tmp_path: Path) -> None:
    folder, file = world("sd15")
    source, place = locate(folder), tmp_path / "vae.safetensors"
    save_file(tiny.kl_vae(channels=16, shift=0.1).state_dict(), place)
    with pytest.raises(InputError, match=r"lack, the first is|is 16x|and the vae of .* has"):
        load_vae(source, str(place))
    with pytest.raises(InputError, match=r"is not that of .*, and model\.vae does not take it; give the file as model"):
        load_vae(source, str(_other(file, tmp_path / "whole.safetensors")))
    save_file(NOTHING, place)
    with pytest.raises(
        InputError, match=r"it holds no vae of .*; give model\.vae a file or a folder of the same family"
    ):
        load_vae(source, str(place))


def _other(file: Path, out: Path) -> Path:
    """The file with another UNet."""
    name = f"{UNET}out.2.bias"
    return change(file, out, {name: load_file(file)[name] + 1})


@pytest.mark.parametrize("held", ["whole", "denoiser"])
def test_a_run_starts_from_the_denoiser_of_a_file(world, tmp_path: Path, held: str) -> None:
    """What else the file holds is the base's own, or it is refused; so is another prediction type."""
    folder, file = world("sd15")
    begins = (UNET,) if held == "denoiser" else ("",)
    start = _only(_other(file, tmp_path / "other.safetensors"), tmp_path / "start.safetensors", *begins)
    name = f"{UNET}out.2.bias"
    found = load_adapter(folder, init_from=start, reference=False).network.state_dict()
    expected = plain(folder).unet.state_dict() | {"conv_out.bias": load_file(file)[name] + 1}
    assert equal(found, expected)
    source = locate(folder)
    check_start(source, family_of(source), start, None)
    assert start_sha256(start, "unet", source) != start_sha256(
        _only(file, tmp_path / "own.safetensors", ""), "unet", source
    )
    velocity = change(start, tmp_path / "velocity.safetensors", VELOCITY)
    with pytest.raises(InputError, match="it was trained for v_prediction, the base predicts epsilon"):
        check_start(source, family_of(source), velocity, None)


def test_a_start_with_another_text_encoder_is_a_base(world, tmp_path: Path) -> None:
    folder, file = world("sd15")
    name = "cond_stage_model.transformer.text_model.final_layer_norm.bias"
    start = change(file, tmp_path / "start.safetensors", {name: load_file(file)[name] + 1})
    message = r"its text_encoder is not that of .*, and model\.init_from does not take it; give the file as model\.base"
    with pytest.raises(InputError, match=message):
        load_adapter(folder, init_from=start, reference=False)
