"""What a base's networks cost, without their weights: operations and memory of a call, counted on fake tensors.

Only config files are read, and nothing else is fetched of a hub name. The denoiser runs as it would in training (the
same family call, LoRA, checkpointing and precision) on tensors that have a shape and no content.
Shapes: N images, C channels, h w latent size, L tokens, D width, R resolution in pixels.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from finepref.core.errors import InputError
from finepref.core.files import read_object, reading
from finepref.core.rows import BASES
from finepref.diffusion.path import Path
from finepref.models import lora as low_rank
from finepref.models.family import Cond, Family, Shapes, family_of, text_parts
from finepref.models.kernels import Checkpointing, use_checkpointing
from finepref.models.pipeline_parts import check_parts
from finepref.models.precision import cast_layers, compute_dtype
from finepref.models.quantized import quantizable
from finepref.models.source import (
    INDEX,
    SCHEDULER,
    BaseOptions,
    Source,
    empty_part,
    is_file,
    is_folder,
    locate,
    locate_part,
    part_class,
    quiet,
    vae_class,
    vae_folder,
)
from finepref.models.text_encoders import IDS, TARGETS, TextEncoders, check_trainable, lora_of
from finepref.plan.needs import Counts

NETWORKS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
CONFIGS = (INDEX, "config.json", SCHEDULER, *(f"{part}/config.json" for part in NETWORKS))


def config_source(base: str | FilePath, **said: Unpack[BaseOptions]) -> Source:
    """A pipeline by its config files alone: a folder, a single file, or a hub name, of which no weights are fetched.

    Raises:
        InputError: neither a folder, nor in the hub's cache, nor within reach; a folder without model_index.json.
    """
    if is_folder(base) or is_file(base) or str(base).partition(":")[0] in BASES:
        return locate(base, **said)
    return locate(_config_folder(str(base), said.get("revision")))


def _config_folder(name: str, revision: str | None = None) -> FilePath:
    """A folder as it is; of a hub name what the hub's own cache holds, else a download of the config files."""
    try:
        return locate_part(name, patterns=CONFIGS, revision=revision, cached=True)
    except InputError:
        return locate_part(name, patterns=CONFIGS, revision=revision)


def count(
    base: str | FilePath,
    *,
    family: str = "auto",
    vae: str | None = None,
    lora: low_rank.LoraSettings | None = None,
    gradient_checkpointing: Checkpointing = False,
    mixed_precision: str = "no",
    resolution: int,
) -> tuple[Counts, Path]:
    """(what the networks of a base cost under these options, its noise path).

    Raises:
        InputError: a base or a VAE whose config files are not within reach.
    """
    source = config_source(base)
    kind = family_of(source, family)
    check_parts(source, kind, vae_place(source, vae))
    dtype = compute_dtype(mixed_precision)
    with quiet():
        network = _network(source, kind, lora, gradient_checkpointing)
        shapes, texts = _lengths(source, kind, kind.shapes(network.config))
        call: Callable[[Tensor, Tensor, Cond], Tensor] = functools.partial(kind.call, network)
        if lora is not None and lora.text_encoder:
            network, call = _with_texts(source, kind, lora, network)
        with FakeTensorMode():
            latent, images = _vae(source, kind, vae, resolution)
            _with_fake_tensors(network, dtype if lora is not None else None)
            work = _training(network, call, kind, latent, shapes, dtype)
    trained = [p for p in network.parameters() if p.requires_grad]
    counts = Counts(
        parameters=sum(p.numel() for p in network.parameters()),
        trained=sum(p.numel() for p in trained),
        castable=sum(p.numel() for layer in cast_layers(network) for p in layer.parameters(recurse=False)),
        linear=quantizable(network),
        factored=sum(_factored(tuple(p.shape)) for p in trained),
        latent=latent,
        condition=sum(math.prod(shape) for shape in shapes.values()),
        text_parameters=sum(size for size, _ in texts),
        text_flop=sum(flop for _, flop in texts),
        largest_text=max(size for size, _ in texts),
        **images,
        **work,
    )
    return counts, kind.path(read_object(source.folder / SCHEDULER))


def _training(
    network: nn.Module,
    call: Callable[[Tensor, Tensor, Cond], Tensor],
    kind: Family,
    latent: tuple[int, ...],
    shapes: Shapes,
    dtype: torch.dtype | None,
) -> dict[str, Any]:
    """Operations of one image's forward, and of forward with backward; peak bytes beyond weights and gradients."""
    flow = kind.part == "transformer"
    dtypes = {"prompt_mask": torch.int64}
    cond = {n: torch.zeros(1, *s, dtype=dtypes.get(n, torch.float32)) for n, s in shapes.items()}
    x, t = torch.zeros(1, *latent), torch.zeros(1, dtype=torch.float64 if flow else torch.int64)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    network.train()
    if dtype is not None:
        _normalise_wide(network)
    precision = torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None)
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    known = [*network.parameters(), *network.buffers(), *grads, x, t, *cond.values()]
    with precision, Peak(known) as peak:
        with Flops() as forward:
            prediction = call(x, t, cond)
        with Flops() as backward:
            prediction.float().square().mean().backward()
    with precision, torch.no_grad(), Peak(known) as quick:
        call(x, t, cond)
    return {
        "forward_flop": float(forward.total),
        "training_flop": float(forward.total + backward.total),
        "training_bytes": float(peak.highest),
        "forward_bytes": float(quick.highest),
    }


class Peak(TorchDispatchMode):
    """The most bytes that lived at once in tensors made while it was on; storages of `known` tensors do not count."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.now = self.highest = 0
        self._alive = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self._add(value.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self._alive.add(key)
        self.now += size
        self.highest = max(self.highest, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


class Flops(TorchDispatchMode):
    """Counts additions and multiplications of matrix products, convolutions and attention, as a GPU would do them.

    The formulas are torch's; its own counter hooks into modules, which keeps activations alive that `Peak` would count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = _FORMULAS.get(func.overloadpacket) or flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def _attention(query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> int:
    """Two matrix products: n heads times 4 L S D."""
    return 4 * query.numel() * key.shape[2]


def _attention_backward(grad: Tensor, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> int:
    """Five matrix products: the forward's first again, and four gradients."""
    return 10 * query.numel() * key.shape[2]


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> int:
    """Gradients of input and weight, as many as are wanted, each of the forward's work; torch's own ignores groups."""
    transposed, wanted = args[4], args[-1]
    positions = (x if transposed else grad)[0, 0].numel()
    return 2 * len(x) * positions * weight.numel() * (wanted[0] + wanted[1])


_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    torch.ops.aten.convolution_backward: _convolution_backward,
}


def _normalise_wide(network: nn.Module) -> None:
    """Autocast on a GPU normalises in float32; autocast on a CPU, which counts here, would not."""

    def widened(layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (given[0].float(), *given[1:])

    for layer in network.modules():
        if isinstance(layer, nn.GroupNorm | nn.LayerNorm):
            layer.register_forward_pre_hook(widened)


def _network(source: Source, kind: Family, lora: low_rank.LoraSettings | None, checkpointing: Checkpointing) -> Any:
    """The denoiser as `load_adapter` makes it, its tensors on the meta device."""
    network = empty_part(source, kind.part).requires_grad_(lora is None)
    if lora is not None:
        with torch.device("meta"):
            low_rank.attach(network, lora, kind.lora_targets, seed=0)
    use_checkpointing(network, checkpointing)
    return network


def _with_texts(
    source: Source, kind: Family, lora: low_rank.LoraSettings, network: nn.Module
) -> tuple[nn.Module, Callable[[Tensor, Tensor, Cond], Tensor]]:
    """(all networks that are trained, how they are called, each prompt encoded from token ids)."""
    check_trainable(source, kind)
    encoders = {name: empty_part(source, name).requires_grad_(False) for name in text_parts(kind, source)}
    texts = TextEncoders(kind, encoders, {})
    for part, encoder in encoders.items():
        with torch.device("meta"):
            low_rank.attach(encoder, lora_of(part, kind, lora), TARGETS, seed=0)
    texts.freeze_unread()

    def call(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        lengths = {name: int(encoder.config.max_position_embeddings) for name, encoder in encoders.items()}
        ids = {f"{name}{IDS}": torch.zeros(len(x), each, dtype=torch.int64) for name, each in lengths.items()}
        return kind.call(network, x, t, texts.embedded({**cond, **ids}))

    return nn.ModuleList([network, *encoders.values()]), call


def _with_fake_tensors(network: nn.Module, frozen_dtype: torch.dtype | None) -> None:
    """Give a network of the meta device fake tensors of the CPU instead, where kernels are chosen as on a device.

    frozen_dtype: how linear and convolution weights are stored that are not trained; None leaves them as they are.
    """
    halved = set(cast_layers(network)) if frozen_dtype is not None else set()
    for module in network.modules():
        for key, value in list(module._parameters.items()):
            if value is not None:
                dtype = frozen_dtype if module in halved and not value.requires_grad else value.dtype
                module._parameters[key] = nn.Parameter(torch.empty(value.shape, dtype=dtype), value.requires_grad)
        for held in (module._buffers, vars(module)):
            for key, tensor in list(held.items()):
                if isinstance(tensor, Tensor):
                    held[key] = torch.empty(tensor.shape, dtype=tensor.dtype)


def vae_place(source: Source, override: str | None) -> FilePath:
    """Where the VAE's config.json lies; of a hub name nothing but configs is fetched."""
    here = override is None or is_file(override)
    return vae_folder(source, override if here else _config_folder(str(override)))


def _vae(source: Source, kind: Family, override: str | None, resolution: int) -> tuple[tuple[int, ...], dict[str, Any]]:
    """(latent shape, what encoding one image and decoding one latent cost)."""
    folder = vae_place(source, override)
    config, cls = read_object(folder / "config.json"), vae_class(source, folder)
    with reading(folder / "config.json", f"a config of {cls.__name__}"):
        vae = cls.from_config(config).eval()
    pixels, weights = torch.zeros(1, 3, resolution, resolution), [*vae.parameters(), *vae.buffers()]
    with torch.no_grad(), Peak([*weights, pixels]) as encoding, Flops() as work:
        mean, _ = kind.moments(vae, pixels)
    latent = kind.decodable(mean)
    with torch.no_grad(), Peak([*weights, latent]) as peak, Flops() as drawn:
        vae.decode(latent, return_dict=False)
    encoder = sum(p.numel() for name, p in vae.named_parameters() if not name.startswith(("decoder", "post_quant")))
    return tuple(mean.shape[1:]), {
        "vae_parameters": encoder,
        "vae_flop": float(work.total),
        "encoder_bytes": float(encoding.highest),
        "decoder_parameters": sum(p.numel() for p in vae.parameters()) - encoder,
        "decoder_bytes": float(peak.highest),
        "decoder_flop": float(drawn.total),
    }


def _lengths(source: Source, kind: Family, shapes: Shapes) -> tuple[Shapes, list[tuple[int, float]]]:
    """The shapes of conditions, at the prompts' own length where it is that of CLIP, and each encoder's `_text`."""
    texts, lengths = [], set[int]()
    for part in text_parts(kind, source):
        cls, file = part_class(source, part), source.folder / part / "config.json"
        with torch.device("meta"), reading(file, f"a config of {cls.__name__}"):
            encoder = cls(cls.config_class.from_dict(read_object(file)))
        length = int(encoder.config.max_position_embeddings) if "CLIP" in cls.__name__ else None
        texts.append(_text(encoder, length or int(kind.settings.get("tokens", 77))))
        lengths.add(length or 0)
    if len(lengths) == 1 and 0 not in lengths:  # every prompt is padded to what CLIP reads
        shapes = {**shapes, "prompt_embeds": (*lengths, *shapes["prompt_embeds"][1:])}
    return shapes, texts


def _text(encoder: nn.Module, tokens: int) -> tuple[int, float]:
    """(parameters, operations of encoding one prompt: 2 x parameters x tokens, embeddings left out)."""
    parameters = sum(p.numel() for p in encoder.parameters())
    embedded = sum(p.numel() for m in encoder.modules() if isinstance(m, nn.Embedding) for p in m.parameters())
    return parameters, 2.0 * (parameters - embedded) * tokens


def _factored(shape: tuple[int, ...]) -> int:
    """Numbers that Adafactor keeps for a weight: row and column means of the last two dimensions."""
    size = math.prod(shape)
    return size // shape[-1] + size // shape[-2] if len(shape) > 1 else size
