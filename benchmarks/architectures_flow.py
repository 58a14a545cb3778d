"""The flow-matching architectures, as config files.

Transformers: the defaults of their diffusers classes are FLUX, SANA 1.6B, Qwen-Image and Z-Image (FLUX.1-dev adds the
guidance label); SD3.5-medium by diffusers' scripts/convert_sd3_to_diffusers.py and its published config.json; FLUX.2
klein 4B by `Klein4BParams` of black-forest-labs/flux2, src/flux2/model.py. Autoencoders: the same script and
FLUX.1-dev's vae/config.json, which is Z-Image's too; scripts/convert_dcae_to_diffusers.py (dc-ae-f32c32-sana-1.0); the
defaults of AutoencoderKLFlux2. Text encoders: CLIP-L, CLIP-G, T5-XXL (v1.1), Gemma-2-2B, Qwen2.5-VL-7B and Qwen3-4B by
their published config.json.
"""

from __future__ import annotations

from typing import Any

CLIP = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
CLIP_G = {
    "vocab_size": 49408,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
T5 = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
GEMMA = {
    "vocab_size": 256000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
}
QWEN_TEXT = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}
QWEN3_4B = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
QWEN_VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
KL_VAE = {
    "latent_channels": 16,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
DC_LEVELS = {
    "block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
    "block_out_channels": [128, 256, 512, 512, 1024, 1024],
    "qkv_multiscales": [[], [], [], [5], [5], [5]],
}
DC_VAE = {
    "latent_channels": 32,
    "attention_head_dim": 32,
    **{f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in DC_LEVELS.items()},
    "encoder_layers_per_block": [2, 2, 2, 3, 3, 3],
    "decoder_layers_per_block": [3] * 6,
    "downsample_block_type": "conv",
    "upsample_block_type": "interpolate",
    "scaling_factor": 0.41407,
}
SD35_MEDIUM = {
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 384,
    "dual_attention_layers": list(range(13)),
    "qk_norm": "rms_norm",
}
KLEIN_4B = {
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}
# name -> pipeline, transformer, VAE, and the text encoders in their order.
FLOW: dict[
    str, tuple[str, tuple[str, dict[str, Any]], tuple[str, dict[str, Any]], list[tuple[str, dict[str, Any]]]]
] = {
    "sd3": (
        "StableDiffusion3Pipeline",
        ("SD3Transformer2DModel", SD35_MEDIUM),
        ("AutoencoderKL", {**KL_VAE, "scaling_factor": 1.5305, "shift_factor": 0.0609}),
        [("CLIPTextModelWithProjection", CLIP), ("CLIPTextModelWithProjection", CLIP_G), ("T5EncoderModel", T5)],
    ),
    "flux": (
        "FluxPipeline",
        ("FluxTransformer2DModel", {"guidance_embeds": True}),
        ("AutoencoderKL", {**KL_VAE, "scaling_factor": 0.3611, "shift_factor": 0.1159}),
        [("CLIPTextModel", CLIP), ("T5EncoderModel", T5)],
    ),
    "sana": ("SanaPipeline", ("SanaTransformer2DModel", {}), ("AutoencoderDC", DC_VAE), [("Gemma2Model", GEMMA)]),
    "qwen_image": (
        "QwenImagePipeline",
        ("QwenImageTransformer2DModel", {}),
        ("AutoencoderKLQwenImage", {}),
        [("Qwen2_5_VLForConditionalGeneration", {"text_config": QWEN_TEXT, "vision_config": QWEN_VISION})],
    ),
    "z_image": (
        "ZImagePipeline",
        ("ZImageTransformer2DModel", {}),
        ("AutoencoderKL", {**KL_VAE, "scaling_factor": 0.3611, "shift_factor": 0.1159}),
        [("Qwen3Model", QWEN3_4B)],
    ),
    "flux2_klein": (
        "Flux2KleinPipeline",
        ("Flux2Transformer2DModel", KLEIN_4B),
        ("AutoencoderKLFlux2", {}),
        [("Qwen3ForCausalLM", QWEN3_4B)],
    ),
}


def flow_files(name: str) -> dict[str, dict[str, Any]]:
    """Relative path -> content of every config file."""
    pipeline, transformer, vae, encoders = FLOW[name]
    texts = {"text_encoder" if i == 0 else f"text_encoder_{i + 1}": pair for i, pair in enumerate(encoders)}
    networks = {"transformer": transformer, "vae": vae}
    return {
        "model_index.json": {
            "_class_name": pipeline,
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            **{part: ["diffusers", cls] for part, (cls, _) in networks.items()},
            **{part: ["transformers", cls] for part, (cls, _) in texts.items()},
        },
        "scheduler/scheduler_config.json": {"_class_name": "FlowMatchEulerDiscreteScheduler"},
        **{f"{part}/config.json": {"_class_name": cls, **config} for part, (cls, config) in networks.items()},
        **{f"{part}/config.json": {"architectures": [cls], **config} for part, (cls, config) in texts.items()},
    }
