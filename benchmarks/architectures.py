"""The architectures that are measured and planned, as pipeline folders without weights.

`write_configs(folder, name)` is enough for `finepref plan` and for networks of random weights. The UNets are written by
hand from the published configs; `architectures_flow.py` holds the transformers. `tiny` is the pipeline of the CPU
comparison: a UNet of 22.9 M parameters at 16 x 16 x 4, a VAE of about its cost.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from architectures_flow import FLOW, flow_files

SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
UP_CROSS, UP_PLAIN = "CrossAttnUpBlock2D", "UpBlock2D"
UNETS: dict[str, dict[str, Any]] = {
    "sd15": {
        "sample_size": 64,
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": [CROSS, CROSS, CROSS, PLAIN],
        "up_block_types": [UP_PLAIN, UP_CROSS, UP_CROSS, UP_CROSS],
        "layers_per_block": 2,
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
    },
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": [320, 640, 1280],
        "down_block_types": [PLAIN, CROSS, CROSS],
        "up_block_types": [UP_CROSS, UP_CROSS, UP_PLAIN],
        "layers_per_block": 2,
        "attention_head_dim": [5, 10, 20],
        "transformer_layers_per_block": [1, 2, 10],
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "tiny": {
        "sample_size": 16,
        "block_out_channels": [64, 128, 256, 256],
        "down_block_types": [CROSS, CROSS, CROSS, PLAIN],
        "up_block_types": [UP_PLAIN, UP_CROSS, UP_CROSS, UP_CROSS],
        "layers_per_block": 1,
        "attention_head_dim": [2, 4, 8, 8],
        "cross_attention_dim": 64,
    },
}
KL_VAE = {"in_channels": 3, "out_channels": 3, "latent_channels": 4, "act_fn": "silu"}
VAES: dict[str, dict[str, Any]] = {
    "sd15": {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "sample_size": 512},
    "sdxl": {
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "sample_size": 1024,
        "scaling_factor": 0.13025,
        "force_upcast": True,
    },
    "tiny": {"block_out_channels": [24, 48, 64, 120], "layers_per_block": 1, "sample_size": 128, "norm_num_groups": 8},
}
CLIP_L = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}
CLIP_G = {
    **CLIP_L,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
TINY_CLIP = {**CLIP_L, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
RESOLUTION = {"sd15": 512, "sdxl": 1024, "tiny": 128, **dict.fromkeys(FLOW, 1024)}


def write_configs(folder: Path, name: str) -> Path:
    """A pipeline folder that holds configs and nothing else; returns it."""
    for file, content in (flow_files(name) if name in FLOW else unet_files(name)).items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return folder


def unet_files(name: str) -> dict[str, dict[str, Any]]:
    """Relative path -> content of every config file."""
    texts: dict[str, tuple[str, dict[str, Any]]] = {"text_encoder": ("CLIPTextModel", CLIP_L)}
    if name == "sdxl":
        texts["text_encoder_2"] = ("CLIPTextModelWithProjection", CLIP_G)
    if name == "tiny":
        texts["text_encoder"] = ("CLIPTextModel", TINY_CLIP)
    index = {
        "_class_name": "StableDiffusionXLPipeline" if name == "sdxl" else "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        **{part: ["transformers", cls] for part, (cls, _) in texts.items()},
    }
    levels = len(VAES[name]["block_out_channels"])
    vae = {
        **KL_VAE,
        **VAES[name],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }
    return {
        "model_index.json": index,
        "unet/config.json": {"_class_name": "UNet2DConditionModel", **UNETS[name]},
        "vae/config.json": {"_class_name": "AutoencoderKL", **vae},
        "scheduler/scheduler_config.json": SCHEDULER,
        **{f"{part}/config.json": {"architectures": [cls], **config} for part, (cls, config) in texts.items()},
    }
