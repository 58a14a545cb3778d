"""The head of LAION's aesthetic predictor and of ImageReward: five linear maps with nothing between them."""

from __future__ import annotations

from torch import Tensor, nn

WIDTH = 768
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
