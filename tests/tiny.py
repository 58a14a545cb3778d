"""Tiny pipelines of every family, built by code: real classes, random weights, no download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from finepref.core import rng
from finepref.models.lora import LoraSettings

if TYPE_CHECKING:
    from finepref.models.denoiser import Denoiser

WORDS = ("a", "red", "blue", "green", "circle", "square", "dog", "on", "photo", "of", "small", "large", "the", "and")


def clip_tokenizer(length: int = 77):
    """A CLIP tokenizer whose vocabulary is WORDS and single letters."""
    from transformers import CLIPTokenizer

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *[f"{c}</w>" for c in letters]]
    merges: list[str] = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            pair = f"{parts[-2]} {parts[-1]}"
            if pair not in merges:
                merges.append(pair)
                tokens.append(parts[-2] + parts[-1])
            parts[-2:] = [parts[-2] + parts[-1]]
    vocab = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(
        vocab=vocab,
        merges=[tuple(m.split()) for m in merges],
        model_max_length=length,
        unk_token="<|endoftext|>",
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )


def seeded(seed: int, make):
    """A network with weights from a seed, without touching the global stream."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return make().eval()


def clip_text(tokenizer, *, width: int = 32, projection: bool = False, seed: int = 0):
    """A two-layer CLIP text encoder that fits the tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=width,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    cls = CLIPTextModelWithProjection if projection else CLIPTextModel
    return seeded(seed, lambda: cls(config))


def kl_vae(*, channels: int = 4, seed: int = 1, shift: float | None = None, scale: float = 0.18215):
    """An f4 AutoencoderKL with 32 channels (f4 keeps tests fast; nothing depends on f8)."""
    from diffusers import AutoencoderKL

    return seeded(
        seed,
        lambda: AutoencoderKL(
            block_out_channels=(16, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            latent_channels=channels,
            layers_per_block=1,
            norm_num_groups=8,
            sample_size=32,
            shift_factor=shift,
            scaling_factor=scale,
            use_quant_conv=shift is None,
            use_post_quant_conv=shift is None,
        ),
    )


def sd15(folder: Path, *, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """A StableDiffusionPipeline folder: 32 x 32 images, 8 x 8 x 4 latents, scaled_linear schedule."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    tokenizer = clip_tokenizer()
    unet = seeded(
        seed + 10,
        lambda: UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=32,
            attention_head_dim=4,
            norm_num_groups=8,
        ),
    )
    pipe = StableDiffusionPipeline(
        vae=kl_vae(seed=seed + 1),
        text_encoder=clip_text(tokenizer, seed=seed),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction_type,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return save(pipe, folder)


def save(pipe, folder: Path) -> Path:
    """Save a pipeline and hand back its folder."""
    pipe.save_pretrained(str(folder), safe_serialization=True)
    json.loads((folder / "model_index.json").read_text())
    return folder


def sdxl(folder: Path, *, prediction_type: str = "epsilon", seed: int = 0, second: int = 32) -> Path:
    """A StableDiffusionXLPipeline folder with two text encoders and size conditioning. second: width of the second."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    one, two = clip_tokenizer(), clip_tokenizer()
    unet = seeded(
        seed + 10,
        lambda: UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=32 + second,
            attention_head_dim=(4, 4),
            transformer_layers_per_block=(1, 1),
            norm_num_groups=8,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=second + 6 * 8,
        ),
    )
    pipe = StableDiffusionXLPipeline(
        vae=kl_vae(seed=seed + 1, scale=0.13025),
        text_encoder=clip_text(one, seed=seed),
        tokenizer=one,
        text_encoder_2=clip_text(two, width=second, projection=True, seed=seed + 2),
        tokenizer_2=two,
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type
        ),
        add_watermarker=False,
    )
    return save(pipe, folder)


def t5_tokenizer(length: int = 16):
    """A T5 tokenizer with a unigram vocabulary of WORDS and letters."""
    from transformers import T5Tokenizer

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocab += [(f"▁{word}", -1.0) for word in WORDS if len(word) > 1] + [(letter, -5.0) for letter in letters]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=length)


def t5(tokenizer, *, width: int = 32, seed: int = 0):
    """A two-layer T5 encoder."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=64, num_layers=2, num_heads=4, tie_word_embeddings=True
    )
    return seeded(seed, lambda: T5EncoderModel(config))


def sd3(folder: Path, *, with_t5: bool = True, seed: int = 0, second: int = 32) -> Path:
    """A StableDiffusion3Pipeline folder, with or without the third text encoder. second: width of the second."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    one, two, three = clip_tokenizer(), clip_tokenizer(), t5_tokenizer() if with_t5 else None
    transformer = seeded(
        seed + 10,
        lambda: SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=32 + second,
            caption_projection_dim=32,
            pooled_projection_dim=32 + second,
            out_channels=16,
            pos_embed_max_size=16,
            dual_attention_layers=(),
        ),
    )
    pipe = StableDiffusion3Pipeline(
        vae=kl_vae(channels=16, seed=seed + 1, shift=0.0609, scale=1.5305),
        text_encoder=clip_text(one, projection=True, seed=seed),
        tokenizer=one,
        text_encoder_2=clip_text(two, width=second, projection=True, seed=seed + 2),
        tokenizer_2=two,
        text_encoder_3=t5(three, width=32 + second, seed=seed + 3) if with_t5 else None,
        tokenizer_3=three,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    return save(pipe, folder)


def flux(folder: Path, *, guidance: bool = True, seed: int = 0) -> Path:
    """A FluxPipeline folder."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    one, two = clip_tokenizer(), t5_tokenizer()
    transformer = seeded(
        seed + 10,
        lambda: FluxTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=guidance,
            axes_dims_rope=(4, 4, 8),
        ),
    )
    pipe = FluxPipeline(
        vae=kl_vae(channels=16, seed=seed + 1, shift=0.1159, scale=0.3611),
        text_encoder=clip_text(one, seed=seed),
        tokenizer=one,
        text_encoder_2=t5(two, seed=seed + 3),
        tokenizer_2=two,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )
    return save(pipe, folder)


def sana(folder: Path, *, seed: int = 0) -> Path:
    """A SanaPipeline folder: f4 deep-compression autoencoder, linear attention, a tiny Gemma."""
    from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaPipeline, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    tokenizer = GemmaTokenizer(vocab={t: i for i, t in enumerate([*specials, *letters, "▁"])}, merges=[])
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
    )
    transformer = seeded(
        seed + 10,
        lambda: SanaTransformer2DModel(
            sample_size=8,
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=16,
            num_cross_attention_heads=2,
            cross_attention_head_dim=16,
            cross_attention_dim=32,
            caption_channels=32,
        ),
    )
    vae = seeded(
        seed + 1,
        lambda: AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock",) * 3,
            decoder_block_types=("ResBlock",) * 3,
            encoder_block_out_channels=(8, 8, 8),
            decoder_block_out_channels=(8, 8, 8),
            encoder_qkv_multiscales=((), (), ()),
            decoder_qkv_multiscales=((), (), ()),
            encoder_layers_per_block=(1, 1, 1),
            decoder_layers_per_block=(1, 1, 1),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
            scaling_factor=0.41407,
        ),
    )
    text = seeded(seed, lambda: Gemma2Model(config))
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return save(SanaPipeline(tokenizer, text, vae, transformer, scheduler), folder)


def qwen_image(folder: Path, *, seed: int = 0) -> Path:
    """A QwenImagePipeline folder with a tiny Qwen2.5-VL."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )
    from tokenizers import pre_tokenizers
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(vocab={t: i for i, t in enumerate(["<|endoftext|>", *letters])}, merges=[])
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_theta": 1e6,
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
            "vocab_size": len(tokenizer),
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 32,
        },
        vision_token_id=1,
        image_token_id=1,
        video_token_id=1,
        vision_start_token_id=1,
        vision_end_token_id=1,
    )
    transformer = seeded(
        seed + 10,
        lambda: QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(4, 4, 8),
        ),
    )
    vae = seeded(
        seed + 1,
        lambda: AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.1, -0.2, 0.3, 0.0],
            latents_std=[1.5, 2.0, 0.5, 1.0],
        ),
    )
    text = seeded(seed, lambda: Qwen2_5_VLForConditionalGeneration(config))
    pipe = QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        transformer=transformer,
    )
    return save(pipe, folder)


def qwen3(cls: type, *, layers: int, seed: int) -> tuple[Any, Any]:
    """A byte-level tokenizer with a chat template, and a Qwen3 of width 32 that fits it."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer, Qwen3Config

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(vocab={t: i for i, t in enumerate(["<|endoftext|>", *letters])}, merges=[])
    tokenizer.chat_template = "{% for message in messages %}user: {{ message['content'] }} {% endfor %}"
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        tie_word_embeddings=True,
    )
    return tokenizer, seeded(seed, lambda: cls(config))


def z_image(folder: Path, *, seed: int = 0) -> Path:
    """A ZImagePipeline folder."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Model

    tokenizer, text = qwen3(Qwen3Model, layers=2, seed=seed)
    transformer = seeded(
        seed + 10,
        lambda: ZImageTransformer2DModel(
            in_channels=16,
            dim=32,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=32,
            axes_dims=[4, 6, 6],
            axes_lens=[1024, 16, 16],
        ),
    )
    pipe = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=kl_vae(channels=16, seed=seed + 1, shift=0.1159, scale=0.3611),
        text_encoder=text,
        tokenizer=tokenizer,
        transformer=transformer,
    )
    return save(pipe, folder)


def flux2_klein(folder: Path, *, seed: int = 0) -> Path:
    """A Flux2KleinPipeline folder, its VAE's batch norm with statistics that are not 0 and 1."""
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen3ForCausalLM

    tokenizer, text = qwen3(Qwen3ForCausalLM, layers=28, seed=seed)
    transformer = seeded(
        seed + 10,
        lambda: Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=96,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
    )
    vae = seeded(
        seed + 1,
        lambda: AutoencoderKLFlux2(
            latent_channels=4,
            block_out_channels=(16, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            norm_num_groups=8,
            sample_size=32,
        ),
    )
    vae.bn.running_mean.copy_(torch.linspace(-0.5, 0.5, 16))
    vae.bn.running_var.copy_(torch.linspace(0.3, 2.0, 16))
    pipe = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        transformer=transformer,
    )
    return save(pipe, folder)


BUILDERS = {
    "sd15": sd15, "sdxl": sdxl, "sd3": sd3, "flux": flux, "sana": sana, "qwen_image": qwen_image, "z_image": z_image,
    "flux2_klein": flux2_klein,
}  # fmt: skip
TRAINED = {"full": None, "lora": LoraSettings(rank=4, alpha=16)}


def perturb(adapter: Denoiser, scale: float = 0.05) -> None:
    """Stand in for training: noise on every trained weight."""
    for name, parameter in adapter.trainable():
        noise = torch.randn(parameter.shape, generator=rng.torch_generator(0, "perturb", name))
        parameter.data.add_(noise, alpha=scale)


def picture(pipe: Any) -> torch.Tensor:
    """One image at a fixed seed, two steps."""
    small = {"height": 32, "width": 32, "num_inference_steps": 2, "output_type": "pt"}
    call = {"use_resolution_binning": False} if type(pipe).__name__ == "SanaPipeline" else {}
    image: torch.Tensor = pipe(
        prompt="a red circle", generator=torch.Generator().manual_seed(0), **small, **call
    ).images
    return image
