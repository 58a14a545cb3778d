"""Which device work runs on."""

from __future__ import annotations


def default_device() -> str:
    """cuda where there is one, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
