"""One LoRA in the layouts that people's files have, made by peft and diffusers from a tiny pipeline.

The kohya, old and ComfyUI names are those that sd-scripts, diffusers up to 0.21 and ComfyUI write.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from finepref.core import rng

RANK, ALPHA = 4, 8.0
TEXT = ("q_proj", "v_proj", "fc1")
Tensors = dict[str, torch.Tensor]


def adapter(
    network: Any, targets: tuple[str, ...], seed: int = 0, *, rank: int = RANK, alpha: float = ALPHA
) -> Tensors:
    """Random LoRA weights of a network by peft's names; the network is left as it was."""
    network.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets)), adapter_name="made")
    names = get_peft_model_state_dict(network, adapter_name="made")
    made = {
        name: 0.3 * torch.randn(value.shape, generator=rng.torch_generator(seed, name)) for name, value in names.items()
    }
    if hasattr(network, "unload_lora"):
        network.unload_lora()
    else:
        network.delete_adapter("made")
    return made


def config(targets: tuple[str, ...]) -> dict[str, Any]:
    """What diffusers writes into a file's metadata."""
    return {"r": RANK, "lora_alpha": ALPHA, "target_modules": list(targets)}


def under(prefix: str, tensors: Tensors) -> Tensors:
    """The names of a network as those of a part of a pipeline."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def kohya(tensors: Tensors, prefix: str, alpha: float | None = ALPHA) -> Tensors:
    """`lora_unet_..._to_q.lora_down.weight` with an alpha per module."""
    made = {}
    for name, value in tensors.items():
        module, end = name.rsplit(".lora_", 1)
        stem = f"{prefix}_{module.replace('.', '_')}"
        made[f"{stem}.lora_{'down' if end[0] == 'A' else 'up'}.weight"] = value
        if alpha is not None:
            made[f"{stem}.alpha"] = torch.tensor(alpha)
    return made


def processors(tensors: Tensors) -> Tensors:
    """`unet....attn1.processor.to_q_lora.down.weight`; the layout has no alpha."""
    made = {}
    for name, value in tensors.items():
        module, end = name.rsplit(".lora_", 1)
        place, layer = re.fullmatch(r"(.*\.attn\d)\.(to_q|to_k|to_v|to_out)(?:\.0)?", module).groups()
        made[f"unet.{place}.processor.{layer}_lora.{'down' if end[0] == 'A' else 'up'}.weight"] = value
    return made


def original(module: str, layers: int = 1) -> str:
    """A module of a UNet by the name it has in the original code (sgm), where `layers` is layers_per_block."""
    block, index, *rest = re.match(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?attentions\.(\d+)\.(.*)", module).groups()
    place, tail = int(rest[0]), rest[1]
    names = {
        "down": f"input_blocks.{1 + int(index or 0) * (layers + 1) + place}",
        "mid": "middle_block",
        "up": f"output_blocks.{int(index or 0) * (layers + 1) + place}",
    }
    return f"{names[block]}.1.{tail}"


def renamed(tensors: Tensors, rename: Any) -> Tensors:
    """Weights with every module under another name."""
    made = {}
    for name, value in tensors.items():
        module, end = name.rsplit(".lora_", 1)
        made[f"{rename(module)}.lora_{end}"] = value
    return made


def comfy(tensors: Tensors, prefix: str = "diffusion_model") -> Tensors:
    """`diffusion_model.MODULE.lora_down.weight` with alpha, as ComfyUI saves."""
    made = {}
    for name, value in tensors.items():
        module, end = name.rsplit(".lora_", 1)
        made[f"{prefix}.{module}.lora_{'down' if end[0] == 'A' else 'up'}.weight"] = value
        made[f"{prefix}.{module}.alpha"] = torch.tensor(ALPHA)
    return made


def fused_qkv(tensors: Tensors) -> Tensors:
    """A FLUX LoRA of the double blocks by the original names, q, k and v as one product of three times the rank."""
    made, names = {}, {"attn.to_out.0": "img_attn.proj", "attn.to_add_out": "txt_attn.proj"}
    blocks = {
        name.rsplit(".lora_", 1)[0].split(".attn.")[0] for name in tensors if name.startswith("transformer_blocks")
    }
    for block in sorted(blocks):
        place = block.replace("transformer_blocks", "double_blocks")
        for ours, theirs in names.items():
            for side in "AB":
                made[f"{place}.{theirs}.lora_{side}.weight"] = tensors[f"{block}.{ours}.lora_{side}.weight"]
        for group, layers in (
            ("img_attn", ("to_q", "to_k", "to_v")),
            ("txt_attn", ("add_q_proj", "add_k_proj", "add_v_proj")),
        ):
            down, up = ([tensors[f"{block}.attn.{layer}.lora_{side}.weight"] for layer in layers] for side in "AB")
            made[f"{place}.{group}.qkv.lora_A.weight"] = torch.cat(down)
            made[f"{place}.{group}.qkv.lora_B.weight"] = torch.block_diag(*up)
    return made


def write(file: Path, tensors: Tensors, **metadata: str) -> Path:
    """A safetensors file of them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.contiguous().clone() for name, value in tensors.items()},
        file,
        metadata={"format": "pt", **metadata},
    )
    return file
