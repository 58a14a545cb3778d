"""Every family on tiny real pipelines: policy == reference, first loss ln 2, saving, reloading in plain diffusers."""

from __future__ import annotations

import functools
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny
from finepref.core.buckets import Bucket
from finepref.core.errors import ConfigError, InputError
from finepref.core.images import ImageSize
from finepref.models.denoiser import Denoiser
from finepref.models.encoder import LatentEncoder
from finepref.models.family import FAMILIES, family_of
from finepref.models.load import load_adapter, load_pipeline
from finepref.models.lora import LoraSettings
from finepref.models.source import locate
from finepref.objectives.core import wide
from finepref.train.config import parse_config
from tiny import TRAINED, perturb, picture

pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
PROMPTS = ["a red circle", ""]
SIZES = [ImageSize(40, 32, 4, 0, Bucket(48, 48)), ImageSize(32, 64, 0, 16, Bucket(48, 48))]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory):
    """name -> folder of that family's tiny pipeline, built at first use."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tiny.BUILDERS[name](tmp_path_factory.mktemp(name) / "base")
        return made[name]

    return get


@functools.cache
def encoded(folder: Path) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Latents of two images and tensors of two prompts, functions of nothing but the family."""
    encoder = LatentEncoder(folder, resolution=32)
    pixels = torch.arange(2 * 3 * 32 * 32, dtype=torch.int64).mul(7).remainder(251).to(torch.uint8).view(2, 3, 32, 32)
    return encoder.encode_images(pixels)[0], encoder.encode_prompts(PROMPTS)


def inputs(folder: Path, adapter: Denoiser) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Latents, levels and conditions."""
    mean, prompts = encoded(folder)
    t = torch.tensor([3, 700]) if adapter.path.discrete else torch.tensor([0.1, 0.9])
    return mean, t, adapter.condition(prompts, SIZES)


@functools.cache
def untrained(folder: Path) -> torch.Tensor:
    """The base's own image."""
    return picture(load_pipeline(folder))


@pytest.mark.parametrize("name", FAMILIES)
def test_policy_equals_reference_bit_for_bit_and_the_first_loss_is_ln_2(base, name: str) -> None:
    """Full and LoRA, full precision and bf16, as one batch of winner and loser: the implicit score is exactly zero."""
    for settings in TRAINED.values():
        for precision in ("no", "bf16"):
            adapter = load_adapter(base(name), lora=settings, mixed_precision=precision)
            assert adapter.family == name
            adapter.train_mode(True)
            x, t, cond = inputs(base(name), adapter)
            policy = wide(adapter.policy(x, t, cond))
            reference = wide(adapter.reference(x, t, cond))
            assert policy.shape == x.shape
            assert torch.equal(policy, reference), (precision, settings)
            assert policy.requires_grad
            assert not reference.requires_grad
            target = torch.ones_like(x)
            errors = [(p - target).square().flatten(1).mean(1) for p in (policy, reference)]
            advantage = errors[1] - errors[0]
            loss = torch.nn.functional.softplus(-2500.0 * (advantage[:1] - advantage[1:])).sum()
            assert loss.item() == pytest.approx(math.log(2.0), abs=1e-7)
            loss.backward()
            gradients = [p.grad for _, p in adapter.trainable() if p.grad is not None]
            assert sum(g.abs().sum().item() for g in gradients) > 0


@pytest.mark.parametrize("kind", TRAINED)
@pytest.mark.parametrize("name", FAMILIES)
def test_saved_part_gives_the_same_image_in_plain_diffusers(base, tmp_path: Path, name: str, kind: str) -> None:
    """Zero difference after reloading, alpha 16 with rank 4 included; the oracle is diffusers' own loading."""
    import diffusers

    adapter = load_adapter(base(name), lora=TRAINED[kind], reference=False)
    perturb(adapter)
    adapter.train_mode(True)
    ours = picture(adapter.pipeline())
    adapter.saving()(tmp_path)
    source = locate(base(name))
    part = family_of(source).part
    pipeline_class = getattr(diffusers, source.index["_class_name"])
    if kind == "full":
        assert sorted(p.name for p in (tmp_path / part).iterdir()) == [
            "config.json",
            "diffusion_pytorch_model.safetensors",
        ]
        network = getattr(diffusers, source.index[part][1]).from_pretrained(tmp_path / part)
        plain = pipeline_class.from_pretrained(base(name), **source.absent(), **{part: network})
    else:
        assert [p.name for p in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]
        plain = pipeline_class.from_pretrained(base(name), **source.absent())
        plain.load_lora_weights(tmp_path)
    plain.set_progress_bar_config(disable=True)
    assert torch.equal(picture(plain), ours)
    assert torch.equal(picture(load_pipeline(base(name), tmp_path)), ours)
    assert not torch.equal(ours, untrained(base(name)))


@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_init_from_moves_policy_and_reference(base, tmp_path: Path, name: str) -> None:
    """A run that starts from a full run or from a LoRA: both networks start there, and the result reloads."""
    first = load_adapter(base(name), reference=False)
    perturb(first)
    first.saving()(tmp_path / "full")
    low = load_adapter(base(name), lora=TRAINED["lora"], reference=False)
    perturb(low)
    low.saving()(tmp_path / "lora")
    x, t, cond = inputs(base(name), first)
    with torch.no_grad():
        expected = {"full": first.policy(x, t, cond), "lora": low.policy(x, t, cond)}
    part = next((tmp_path / "full").iterdir())
    straight = load_adapter(base(name), init_from=part, reference=False)
    assert torch.equal(straight.policy(x, t, cond), expected["full"])
    for start, settings in (("full", None), ("full", TRAINED["lora"]), ("lora", TRAINED["lora"]), ("lora", None)):
        adapter = load_adapter(base(name), init_from=tmp_path / start, lora=settings)
        policy, reference = adapter.policy(x, t, cond), adapter.reference(x, t, cond)
        assert torch.equal(policy, reference)
        tolerance = 2e-5 if (start, settings) == ("lora", None) else 0.0  # fused: one product instead of two
        assert (policy - expected[start]).abs().max().item() <= tolerance
        perturb(adapter, 0.02)
        assert torch.equal(adapter.reference(x, t, cond), reference)
        assert not torch.equal(adapter.policy(x, t, cond), policy)
        run = tmp_path / f"{start}-{settings is None}"
        adapter.saving()(run)
        (run / "config.yaml").write_text(f"model: {{base: x, init_from: {tmp_path / start}}}\n")
        assert torch.equal(picture(load_pipeline(base(name), run)), picture(adapter.pipeline()))


def test_lora_start_of_another_rank_is_refused(base, tmp_path: Path) -> None:
    load_adapter(base("sd15"), lora=TRAINED["lora"], reference=False).saving()(tmp_path)
    with pytest.raises(ConfigError, match=r"lora\.rank: the run asks for 8, the LoRA of model\.init_from has 4"):
        load_adapter(base("sd15"), init_from=tmp_path, lora=LoraSettings(rank=8, alpha=16))
    with pytest.raises(ConfigError, match=r"lora\.alpha"):
        load_adapter(base("sd15"), init_from=tmp_path, lora=LoraSettings(rank=4))


def test_lora_starts_from_the_seed_alone(base) -> None:
    one, two, three = (
        dict(load_adapter(base("sd15"), lora=LoraSettings(rank=2), reference=False, seed=s).trainable())
        for s in (0, 0, 1)
    )
    down = [name for name in one if "lora_A" in name]
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one[name], three[name]) for name in down)
    spread = torch.cat([one[name].detach().flatten() for name in down])
    assert spread.std().item() == pytest.approx(0.5, rel=0.1)  # N(0, 1 / rank^2)
    assert all(one[name].abs().sum() == 0 for name in one if "lora_B" in name)


def test_lora_refusals(base) -> None:
    for wrong in ({"rank": 0}, {"alpha": 0.0}, {"alpha": math.nan}, {"targets": []}):
        with pytest.raises(ConfigError, match=r"lora\."):
            parse_config({"model": {"base": ""}, "lora": wrong})
    with pytest.raises(ConfigError, match="no module of the network is called to_nothing; the family's own are to_q"):
        load_adapter(base("sd15"), lora=LoraSettings(targets=["to_nothing"]))


def test_reference_false_keeps_no_copy(base) -> None:
    adapter = load_adapter(base("sd15"), reference=False)
    x, t, cond = inputs(base("sd15"), adapter)
    assert adapter.reference_module() is None
    with pytest.raises(RuntimeError, match="without a reference"):
        adapter.reference(x, t, cond)


def test_frozen_weights_are_stored_in_half_and_trained_ones_in_full(base) -> None:
    full = load_adapter(base("sd15"), mixed_precision="bf16")
    assert {p.dtype for _, p in full.trainable()} == {torch.float32}
    reference = full.reference_module()
    assert reference is not None
    kinds = {type(m).__name__: p.dtype for m in reference.modules() for p in m.parameters(recurse=False)}
    assert kinds["Linear"] == kinds["Conv2d"] == torch.bfloat16
    assert kinds["GroupNorm"] == kinds["LayerNorm"] == torch.float32
    low = load_adapter(base("sd15"), mixed_precision="bf16", lora=LoraSettings(rank=2))
    for name, parameter in low.policy_module().named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
        if "lora_" in name:
            assert parameter.dtype == torch.float32
    with pytest.raises(InputError, match="unknown precision 'bf61'; did you mean 'bf16'"):
        load_adapter(base("sd15"), mixed_precision="bf61")


def test_gradient_checkpointing_changes_nothing_but_memory(base) -> None:
    gradients = []
    for on in (False, True):
        adapter = load_adapter(base("sdxl"), gradient_checkpointing=on)
        adapter.train_mode(True)
        x, t, cond = inputs(base("sdxl"), adapter)
        adapter.policy(x, t, cond).square().mean().backward()
        gradients.append([p.grad for _, p in adapter.trainable()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=1e-4, atol=1e-7)


def test_a_prediction_does_not_depend_on_its_neighbours(base) -> None:
    for name in FAMILIES:
        adapter = load_adapter(base(name), reference=False)
        x, t, cond = inputs(base(name), adapter)
        both = adapter.policy(x, t, cond)
        for row in (0, 1):
            one = {key: value[row : row + 1] for key, value in cond.items()}
            alone = adapter.policy(x[row : row + 1], t[row : row + 1], one)
            torch.testing.assert_close(both[row : row + 1], alone, rtol=1e-4, atol=2e-5)


def test_v_prediction_is_read_from_the_scheduler(tmp_path: Path) -> None:
    folder = tiny.sd15(tmp_path / "v", prediction_type="v_prediction")
    assert load_adapter(folder, reference=False).path.parametrisation == "v_prediction"


def test_sdxl_size_conditions(base) -> None:
    """True sizes and crops by default; the published scripts' constants as an option; neither anywhere else."""
    adapter = load_adapter(base("sdxl"), reference=False)
    _, prompts = encoded(base("sdxl"))
    expected = [[40, 32, 4, 0, 48, 48], [32, 64, 0, 16, 48, 48]]
    assert adapter.condition(prompts, SIZES)["time_ids"].tolist() == expected
    official = load_adapter(base("sdxl"), reference=False, micro_conditioning="official")
    assert official.condition(prompts, SIZES)["time_ids"].tolist() == [[48, 48, 0, 0, 48, 48]] * 2
    with pytest.raises(ConfigError, match="sd15 has no 'official'; drop the option"):
        load_adapter(base("sd15"), micro_conditioning="official")
    with pytest.raises(ConfigError, match="sdxl has no 'offical'; did you mean 'official'"):
        load_adapter(base("sdxl"), micro_conditioning="offical")


def test_flow_velocity_and_time_follow_the_sampler(base) -> None:
    """One Euler step of diffusers' own flow scheduler equals x + (s' - s) u with our velocity and our s."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    for name in FAMILIES[2:]:
        adapter = load_adapter(base(name), reference=False)
        pipe = adapter.pipeline()
        x, prompts = encoded(base(name))
        seen: dict[str, Any] = {}
        scheduler = pipe.scheduler
        step = scheduler.step

        def spy(velocity, t, sample, *args, _step=step, _seen=seen, _scheduler=scheduler, **kwargs):
            index = _scheduler.step_index or 0
            _seen.setdefault("first", (velocity, sample, _scheduler.sigmas[index].item()))
            return _step(velocity, t, sample, *args, **kwargs)

        scheduler.step = spy
        assert isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
        call = {"use_resolution_binning": False} if name == "sana" else {}
        guidance = {"guidance_scale": {"z_image": 0.0}.get(name, 1.0)} if name not in ("flux", "qwen_image") else {}
        pipe(
            prompt="a red circle", height=32, width=32, num_inference_steps=2, output_type="latent", **guidance, **call
        )
        velocity, sample, s = seen["first"]
        if name == "flux2_klein":
            velocity, sample = (each.transpose(1, 2).reshape(-1, *x.shape[1:]) for each in (velocity, sample))
        elif sample.ndim == 3:
            from finepref.models.flux import unpack

            velocity, sample = (unpack(each, *x.shape[-2:]) for each in (velocity, sample))
        first = {key: value[:1] for key, value in prompts.items()}
        ours = adapter.policy(sample, torch.tensor([s]), adapter.condition(first, SIZES[:1]))
        torch.testing.assert_close(ours, velocity.float(), rtol=1e-4, atol=1e-5)


def test_latents_are_what_the_pipeline_decodes(base) -> None:
    """Decoding the latent as each pipeline does gives the VAE's own reconstruction of the pixels."""
    pixels = torch.arange(3 * 32 * 32, dtype=torch.int64).mul(13).remainder(256).to(torch.uint8).view(1, 3, 32, 32)
    for name in FAMILIES:
        encoder = LatentEncoder(base(name), resolution=32)
        mean, std = encoder.encode_images(pixels)
        assert bool((std >= 0).all())
        vae, x = encoder.vae, pixels.float() / 127.5 - 1
        with torch.no_grad():
            if name == "sana":
                z, raw = mean / vae.config.scaling_factor, vae.encode(x).latent
            elif name == "qwen_image":
                shape = (1, -1, 1, 1)
                z = mean * torch.tensor(vae.config.latents_std).view(shape)
                z = z + torch.tensor(vae.config.latents_mean).view(shape)
                raw = vae.encode(x.unsqueeze(2)).latent_dist.mode().squeeze(2)
            elif name == "flux2_klein":
                z, raw = mean, load_pipeline(base(name))._encode_vae_image(x, None)
            else:
                z = mean / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
                raw = vae.encode(x).latent_dist.mode()
        torch.testing.assert_close(z, raw, rtol=1e-4, atol=1e-5)


def test_prompts_are_encoded_as_the_pipeline_encodes_them(base) -> None:
    """What the pipeline hands to its denoiser; the empty prompt goes through the text encoders (SDXL: not zeros)."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    one = StableDiffusionPipeline.from_pretrained(base("sd15"), safety_checker=None, feature_extractor=None)
    two = StableDiffusionXLPipeline.from_pretrained(base("sdxl"), add_watermarker=False)
    _, found = encoded(base("sd15"))
    _, both = encoded(base("sdxl"))
    for row, prompt in enumerate(PROMPTS):
        ids = one.tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids
        with torch.no_grad():
            last = one.text_encoder(ids)[0]
            states = [each(ids, output_hidden_states=True) for each in (two.text_encoder, two.text_encoder_2)]
        torch.testing.assert_close(found["prompt_embeds"][row : row + 1], last, rtol=1e-4, atol=1e-5)
        joined = torch.cat([state.hidden_states[-2] for state in states], dim=-1)
        torch.testing.assert_close(both["prompt_embeds"][row : row + 1], joined, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(both["pooled"][row : row + 1], states[1].text_embeds, rtol=1e-4, atol=1e-5)
    assert both["pooled"][1].abs().sum() > 0


def test_sd3_without_t5(tmp_path: Path) -> None:
    folder = tiny.sd3(tmp_path / "sd3", with_t5=False)
    found = LatentEncoder(folder, resolution=32).encode_prompts(PROMPTS)
    assert found["prompt_embeds"].shape == (2, 77 + 256, 64)
    assert found["prompt_embeds"][:, 77:].abs().sum() == 0
    adapter = load_adapter(folder)
    x, t, cond = inputs(folder, adapter)
    assert torch.equal(adapter.policy(x, t, cond), adapter.reference(x, t, cond))
    assert picture(adapter.pipeline()).shape == (1, 3, 32, 32)


def test_flux_without_guidance_embedding(tmp_path: Path) -> None:
    folder = tiny.flux(tmp_path / "flux", guidance=False)
    adapter = load_adapter(folder, reference=False)
    x, t, cond = inputs(folder, adapter)
    assert adapter.policy(x, t, cond).shape == x.shape


def test_vae_override(base, tmp_path: Path) -> None:
    """Another VAE changes latents and fingerprint, and the run's pipeline decodes with it."""
    other = tiny.kl_vae(seed=77, scale=0.5)
    other.save_pretrained(tmp_path / "vae")
    pixels = torch.full((1, 3, 32, 32), 200, dtype=torch.uint8)
    own = LatentEncoder(base("sd15"), resolution=32)
    changed = LatentEncoder(base("sd15"), resolution=32, vae=str(tmp_path / "vae"))
    assert own.fingerprint()["vae"] != changed.fingerprint()["vae"]
    assert own.fingerprint()["text_encoder"] == changed.fingerprint()["text_encoder"]
    with torch.no_grad():
        expected = other.encode(pixels.float() / 127.5 - 1).latent_dist.mode() * 0.5
    torch.testing.assert_close(changed.encode_images(pixels)[0], expected, rtol=1e-4, atol=1e-5)
    adapter = load_adapter(base("sd15"), reference=False, vae=str(tmp_path / "vae"))
    assert adapter.pipeline().vae.config.scaling_factor == 0.5
    adapter.saving()(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(f"model: {{base: x, vae: {tmp_path / 'vae'}}}\n")
    assert torch.equal(picture(load_pipeline(base("sd15"), tmp_path / "run")), picture(adapter.pipeline()))


def test_encoder_refusals(base) -> None:
    with pytest.raises(ConfigError, match="resolution 36 is not a multiple of 8; use 32"):
        LatentEncoder(base("sd15"), resolution=36)
    with pytest.raises(ConfigError, match="resolution 24 is not a multiple of 16; use 32"):
        LatentEncoder(base("sd3"), resolution=24)
    with pytest.raises(ConfigError, match="unknown family 'sd'"):
        LatentEncoder(base("sd15"), family="sd", resolution=32)
    with pytest.raises(
        InputError, match="pipeline class 'StableDiffusionPipeline' is not served; served: FluxPipeline"
    ):
        LatentEncoder(base("sd15"), family="flux", resolution=32)


def test_a_tokenizer_that_does_not_know_its_length_is_refused(base, tmp_path: Path) -> None:
    """Without the entry transformers says 1e30, which overflowed deep inside the pipeline."""
    folder = shutil.copytree(base("sdxl"), tmp_path / "sdxl")
    file = folder / "tokenizer_2" / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    assert settings.pop("model_max_length") == 77
    for length, said in ((None, r"1e\+30"), (78, "78")):
        file.write_text(json.dumps(settings | ({} if length is None else {"model_max_length": length})))
        message = (
            rf'tokenizer_2: the tokenizer makes prompts of {said} tokens, its text encoder takes 77; write "model_m'
        )
        with pytest.raises(InputError, match=message):
            LatentEncoder(folder, resolution=32).encode_prompts(PROMPTS)


def test_sdxl_images_carry_no_watermark(base, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if invisible_watermark were installed, where diffusers marks every SDXL image unless it is told not to."""
    from diffusers import StableDiffusionXLPipeline
    from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl as module

    from finepref.evaluate.sampling import Sampling, prepare

    class Marker:
        def apply_watermark(self, image: torch.Tensor) -> torch.Tensor:
            return image * 0

    monkeypatch.setattr(module, "is_invisible_watermark_available", lambda: True)
    monkeypatch.setattr(module, "StableDiffusionXLWatermarker", Marker, raising=False)
    marked = StableDiffusionXLPipeline.from_pretrained(base("sdxl"))
    assert isinstance(marked.watermark, Marker)
    assert load_pipeline(base("sdxl")).watermark is None
    assert load_adapter(base("sdxl"), reference=False).pipeline().watermark is None
    assert prepare(marked, Sampling(steps=1, guidance=1.0)).pipeline.watermark is None


def test_model_refusals(base, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model folder"):
        locate(tmp_path / "absent")
    with pytest.raises(InputError, match=r"the folder has no model_index\.json"):
        locate(tmp_path)
    with pytest.raises(InputError, match="a revision belongs to a hub name"):
        locate(base("sd15"), revision="main")
    with pytest.raises(InputError, match="neither a folder here nor a model the hub hands out"):
        locate("nobody/nothing")
    with pytest.raises(InputError, match=r"holds neither unet/ nor pytorch_lora_weights\.safetensors"):
        load_pipeline(base("sd15"), tmp_path)


@pytest.mark.parametrize("name", ["merges.txt", "spiece.model", "chat_template.jinja"])
def test_a_tokenizers_text_files_count(base, tmp_path: Path, name: str) -> None:
    """They decide which tokens a prompt is, as its JSON does."""
    folder = shutil.copytree(base("sd15"), tmp_path / "copy")
    told = [LatentEncoder(base("sd15"), resolution=32).fingerprint()]
    for text in ("a", "b"):
        (folder / "tokenizer" / name).write_text(text)
        told.append(LatentEncoder(folder, resolution=32).fingerprint())
    assert len({found["tokenizer text"] for found in told}) == 3
    assert len({found["vae"] for found in told}) == 1
