"""What every scorer is: a name, a fingerprint, and a function from images and prompts to numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


class Scorer(Protocol):
    """Scores images for their prompts. A score depends on its own image and prompt only (batch-size invariant).

    name: stable short name, e.g. "pickscore", "lab-reward".
    fingerprint: hash of weights, preprocessing and code version; scores with different fingerprints are not compared.
    higher_is_better: direction of the score.
    """

    @property
    def name(self) -> str:
        """Stable short name."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that shapes the number."""

    @property
    def higher_is_better(self) -> bool:
        """Direction of the score."""

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> np.ndarray:
        """Images (any mode and size) and their prompts -> float64 [n]."""
