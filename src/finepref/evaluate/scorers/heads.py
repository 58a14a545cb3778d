"""The head of LAION's aesthetic predictor and of ImageReward: five linear maps with nothing between them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from finepref.core.errors import InputError
from finepref.evaluate.scorers.weights import build, read_state

HIDDEN = (1024, 128, 64, 16, 1)
INDICES = (0, 2, 4, 6, 7)  # places of the linear maps in the official nn.Sequential; the rest were dropouts


class LinearHead(nn.Module):
    """x [N, D] -> [N]: Linear(D, 1024), (1024, 128), (128, 64), (64, 16), (16, 1) without activations."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (width, *HIDDEN)
        self.layers = nn.ModuleDict(
            {str(i): nn.Linear(a, b) for i, a, b in zip(INDICES, sizes[:-1], sizes[1:], strict=True)}
        )

    def forward(self, x: Tensor) -> Tensor:
        """Score of each row [N]."""
        for index in INDICES:
            x = self.layers[str(index)](x)
        return x[:, 0]


def build_head(state: Mapping[str, Tensor], *, width: int, where: object, device: str | torch.device) -> LinearHead:
    """The head with the names of the official file (`layers.0.weight`, ...), float32, in evaluation mode.

    Raises:
        InputError: the weights are not of this head.
    """
    return build(lambda: LinearHead(width), state, where=where, device=device)


def load_head(path: Path, *, width: int = 768, device: str | torch.device = "cpu") -> LinearHead:
    """LAION's aesthetic head from its official `.pth` or from a converted safetensors file or folder."""
    if not path.exists():
        raise InputError("no such file", where=path, remedy="give the head's file")
    return build_head(read_state(path), width=width, where=path, device=device)
