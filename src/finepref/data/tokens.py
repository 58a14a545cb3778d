"""A cache whose prompts come as token ids: what a run draws that trains the text encoders too.

Shapes: N prompts, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from finepref.core.errors import ConfigError, InputError
from finepref.core.images import ImageSize
from finepref.data.latents import EMPTY_PROMPT, Latents
from finepref.formats.cachetables import Pairs
from finepref.formats.preferences import Preferences
from finepref.formats.prompts import prompt_sha256
from finepref.formats.reading import Reading


@dataclass(frozen=True, slots=True)
class TokenLatents:
    """`held` in all but its prompts. texts: content hash -> prompt; tokens: prompts -> name -> ids [N,L]."""

    held: Latents
    texts: Mapping[str, str]
    tokens: Callable[[Sequence[str]], dict[str, Tensor]]

    @property
    def pairs(self) -> Pairs:
        """The pairs by id."""
        return self.held.pairs

    @property
    def labels(self) -> NDArray[np.float64] | None:
        """As in `Latents`."""
        return self.held.labels

    def identity(self) -> str:
        """Hash of everything that shapes the numbers, and of the pairs."""
        return self.held.identity()

    def calls(self) -> dict[str, int | None]:
        """What the encoders were called for to make it; what a step encodes again is not counted."""
        return self.held.calls()

    def device_seconds(self) -> float | None:
        """What encoding took before the training."""
        return self.held.device_seconds()

    def latents(
        self, images: Sequence[str], flips: Sequence[bool] | None = None, *, bucket: str | None = None
    ) -> tuple[Tensor, Tensor | None, list[ImageSize]]:
        """As in `Latents`."""
        return self.held.latents(images, flips, bucket=bucket)

    def prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Name -> token ids [N,L] by prompt hash."""
        return self.tokens([self.texts[sha] for sha in prompts])


def prompt_texts(paths: Sequence[str | Path], *, reading: Reading, wanted: Sequence[str]) -> dict[str, str]:
    """Content hash -> prompt of those that a run draws, the empty one among them; images are not looked at.

    Raises:
        ConfigError: the config names no data. InputError: the data lack a prompt of the cache.
    """
    if not paths:
        what = "the text encoders are trained on the prompts themselves, which a cache does not hold"
        raise ConfigError(what, where="data.paths", remedy="name the data that the cache was made of")
    found = {EMPTY_PROMPT: ""}
    for pair in Preferences(data=list(paths), reading=reading, images=False, quarantine=[]):
        found[prompt_sha256(pair.prompt)] = pair.prompt
    missing = sum(sha not in found for sha in {*wanted})
    if missing:
        what = f"they lack {missing} of {len({*wanted})} prompts of the cache"
        raise InputError(what, where="data.paths", remedy="name all data that it was made of")
    return found
