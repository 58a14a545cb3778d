"""Single-file checkpoints of the tiny pipelines, in the layouts of the sharing sites."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import tiny
from finepref.models.packed import write_checkpoint

UNET = "model.diffusion_model."


def sd2(folder: Path) -> Path:
    """Like SD2: the text encoder is an OpenCLIP, and the network predicts velocity."""
    tiny.sd15(folder, prediction_type="v_prediction")
    file = folder / "text_encoder" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hidden_act": "gelu"}))
    return folder


MAKERS = {
    "sd15": tiny.sd15,
    "sd2": sd2,
    "sdxl": lambda folder: tiny.sdxl(folder, second=48),  # diffusers tells the encoders of SDXL and SD3 by their widths
    "sd3": lambda folder: tiny.sd3(folder, second=48),
    "flux": tiny.flux,
}


def plain(folder: Path) -> Any:
    """A pipeline folder in plain diffusers."""
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pack(folder: Path, file: Path) -> Path:
    """A pipeline folder as one file."""
    write_checkpoint(plain(folder), file, half=False, metadata={})
    return file


def change(
    file: Path, out: Path, more: Mapping[str, torch.Tensor] | None = None, *, without: str = "-", **header: str
) -> Path:
    """A copy of a file with more tensors, without those whose names begin so, and more in its header."""
    with safe_open(file, "pt") as handle:
        about = handle.metadata()
    tensors = {name: value for name, value in load_file(file).items() if not name.startswith(without)}
    save_file({**tensors, **(more or {})}, out, metadata={**(about or {}), **header})
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor below a folder, by part and name."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.rglob("*.safetensors")):
        found |= {f"{file.parent.name}.{name}": value for name, value in load_file(file).items()}
    return found


def equal(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    """Whether two states have the same names, types and numbers."""
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)
