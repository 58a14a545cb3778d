"""What training and caching may ask of a model family. Shapes: N images, C channels, h w latent, L tokens, D width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from finepref.core.images import ImageSize
from finepref.diffusion.path import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the networks of a base cost; operations (FLOP) and bytes are of one image.

    parameters, trained: of the denoiser, LoRA included. castable: weights that autocast runs in half. factored: numbers
    of Adafactor's second moments. latent: (C, h, w). condition: numbers of an image's conditions.
    forward_flop, training_flop: a forward; a forward with its backward, recomputation included.
    training_bytes, forward_bytes: most bytes alive at once beyond weights and gradients, with and without gradient.
    vae_*, text_*: encoding one image and one prompt. decoder_parameters, decoder_bytes: what else a pipeline needs to
    draw one image, weights and most bytes alive at once.
    """

    parameters: int
    trained: int
    castable: int
    factored: int
    latent: tuple[int, ...]
    condition: int
    forward_flop: float
    training_flop: float
    training_bytes: float
    forward_bytes: float
    vae_parameters: int
    vae_flop: float
    decoder_parameters: int
    decoder_bytes: float
    text_parameters: int
    text_flop: float


class Encoder(Protocol):
    """Images and prompts to what the denoiser is fed; used by the cache, then freed."""

    resolution: int

    def fingerprint(self) -> Mapping[str, str]:
        """Hashes of the VAE, text encoders and tokenizers, for cache.json."""
        ...

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [N,3,H,W] -> (mean, std) of the latent posterior, float32 [N,C,h,w], scaled and shifted as trained."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Prompts -> name -> [N,...] tensors (`prompt_embeds` [N,L,D], for SDXL `pooled` [N,D] too)."""
        ...


class Predict(Protocol):
    """The native prediction [N,C,h,w] at x [N,C,h,w], level t [N] (house time: discrete int or flow s in (0,1])."""

    def __call__(self, x: Tensor, t: Tensor, cond: Mapping[str, Tensor], /) -> Tensor: ...


class Adapter(Protocol):
    """A denoiser with a frozen reference, behind one contract.

    policy, reference: the two networks, with the same kernels under the same autocast, so that equal weights give equal
    numbers. Predictions may be in half precision: who takes errors widens them first.
    """

    family: str
    path: Path
    resolution: int
    device: torch.device
    policy: Predict
    reference: Predict

    def condition(self, prompts: Mapping[str, Tensor], sizes: Sequence[ImageSize]) -> dict[str, Tensor]:
        """Cached prompt tensors and image sizes -> the conditions that the networks take, each [N,...]."""
        ...

    def trainable(self) -> list[tuple[str, torch.nn.Parameter]]:
        """The parameters that are trained, by name, in a stable order."""
        ...

    def policy_module(self) -> torch.nn.Module:
        """The network that is trained (to wrap for several processes)."""
        ...

    def reference_module(self) -> torch.nn.Module | None:
        """The frozen copy; None where the reference is the policy without adapters, or there is none."""
        ...

    def train_mode(self, on: bool) -> None:
        """Switch dropout and checkpointing of the policy; the reference never drops anything out."""
        ...

    def save(self, folder: FilePath, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write the trained part where diffusers expects it: `unet/`, `transformer/`, or the LoRA file.

        weights: the whole trained parameters by name, where the network itself holds only shards of them.
        """
        ...

    def pipeline(self) -> Any:
        """A diffusers pipeline around the current policy, for validation samples."""
        ...


def parameter_count(parameters: Sequence[tuple[str, Any]]) -> int:
    """Number of scalars in named parameters."""
    return sum(parameter.numel() for _, parameter in parameters)
