"""A pipeline as one file in the original layout of its family, which diffusers reads and does not write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from finepref.models.layouts import layout_of
from finepref.models.original import pieces
from finepref.models.precision import to_half


def write_checkpoint(pipe: Any, path: Path, *, half: bool, metadata: Mapping[str, str]) -> None:
    """Write the networks of a pipeline under their original names.

    A network that predicts velocity is marked as the sharing sites mark it: an empty tensor `v_pred`, `ztsnr` where the
    schedule goes down to zero, and `modelspec.prediction_type` in the header.

    Args:
        half: float16. metadata: for the header.

    Raises:
        InputError: the pipeline, or one of its networks, has no original layout, or a number that float16 has not.
    """
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    for part in layout_of(type(pipe).__name__, where="format"):
        network = getattr(pipe, part.name)
        if network is None or not part.when(config := _config(network)):
            continue
        held = {key: value for key, value in network.state_dict().items() if key not in dict(part.tied)}
        for place, piece in pieces(part.layout(config, held), held).items():
            made = piece.join(held)
            name = part.prefixes[0] + place
            tensors[name] = (to_half(name, made) if half else made).cpu().contiguous()
        for place, other in part.tied:  # which diffusers leaves empty where it is not written twice
            tensors[part.prefixes[0] + place] = tensors[part.prefixes[0] + other].clone()
    scheduler = pipe.scheduler.config
    about = {"format": "pt", **metadata}
    if scheduler.get("prediction_type") == "v_prediction":
        tensors["v_pred"] = torch.zeros(0)
    if scheduler.get("rescale_betas_zero_snr"):
        tensors["ztsnr"] = torch.zeros(0)
    if "prediction_type" in scheduler:
        about["modelspec.prediction_type"] = "v" if "v_pred" in tensors else "epsilon"
    save_file(tensors, str(path), metadata=about)


def _config(network: Any) -> Mapping[str, Any]:
    """The config of a network of diffusers or transformers."""
    config = network.config
    return config if isinstance(config, Mapping) else config.to_dict()
