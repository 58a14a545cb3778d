"""Open a base model: its denoiser for training, its pipeline for sampling."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any, Unpack

import torch

from finepref.core.device import Precision, default_device
from finepref.core.errors import ConfigError, InputError
from finepref.core.files import read_object
from finepref.formats.run import RUN, at_start, at_step, is_finished, read_run
from finepref.models import dropout
from finepref.models import lora as low_rank
from finepref.models.denoiser import Denoiser
from finepref.models.family import Family, check_micro_conditioning, family_of, text_parts
from finepref.models.kernels import Checkpointing, use_channels_last, use_checkpointing
from finepref.models.lora import LoraSettings
from finepref.models.lora_file import LoraFile, fuse, put, read_lora
from finepref.models.negative_network import is_guided, open_guided
from finepref.models.pipeline_parts import check_parts, check_tokenizers
from finepref.models.precision import autocast_forward, compute_dtype, freeze_copy, store_half
from finepref.models.quantized import Quantization, check_quantization
from finepref.models.run_folder import run_model_settings, said_of
from finepref.models.source import (
    INDEX,
    SCHEDULER,
    BaseOptions,
    Source,
    assemble,
    load_module,
    load_part,
    load_vae,
    locate,
    part_class,
    pipeline_class,
    quiet,
)
from finepref.models.start import check_below, find_start, full_start
from finepref.models.text_encoders import TARGETS, load_text_encoders, lora_of


def load_adapter(
    base: str | FilePath,
    *,
    family: str = "auto",
    init_from: str | FilePath | None = None,
    reference: bool = True,
    lora: LoraSettings | None = None,
    mixed_precision: str = "no",
    gradient_checkpointing: Checkpointing = False,
    channels_last: bool = False,
    compile: bool = False,
    device: str | torch.device = "cpu",
    micro_conditioning: str | None = None,
    vae: str | None = None,
    quantize: Quantization | None = None,
    seed: int = 0,
    sharded: bool = False,
    moving: bool = False,
    from_base: bool = False,
    **said: Unpack[BaseOptions],
) -> Denoiser:
    """The denoiser of `base` as trainable policy, with its frozen reference.

    Args:
        init_from: what both networks start from: a run, a pipeline, a `unet/` or `transformer/` folder, a LoRA file, or
            a hub name of these.
        reference: False where the objective needs none (no copy is kept).
        lora: adapter settings; None trains all weights.
        gradient_checkpointing, channels_last, compile: see `models.kernels`; compile takes whole networks.
        micro_conditioning: SDXL only: `true` (sizes and crops of each image) or `official` ([H,W,0,0,H,W]).
        vae: another VAE, for the pipeline's decoding.
        quantize: the frozen weights below a LoRA in fewer bits, see `models.quantized`.
        seed: of the LoRA initialisation and its dropout.
        moving: the reference will be changed: it has weights of its own, in full precision.
        from_base: the reference is the base without `init_from`.
        sharded: leave the networks on the CPU, for whoever shards them over several devices.
        said: of the base, see `models.source.locate`.

    Raises:
        InputError: no such model, or a file that leaves weights at random.
        ConfigError: an option that the family does not have; a LoRA on a start's full weights against the base.
    """
    source = locate(base, **said)
    kind = family_of(source, family)
    check_parts(source, kind, vae)
    micro = check_micro_conditioning(kind, micro_conditioning)
    dtype = compute_dtype(mixed_precision)
    check_quantization(quantize, device)
    below = None if quantize is None else (quantize, torch.float32)
    as_saved = dtype is not None and lora is not None and not lora.dora  # whose magnitudes are norms of the weights
    policy, start = _load_network(source, kind, init_from, below, as_saved=as_saved)
    if from_base and lora is not None:
        _check_on_base(init_from, start, kind, source)
    read = lora is not None and lora.text_encoder
    texts = load_text_encoders(source, kind, check_tokenizers(source, kind)) if read else None
    networks = {kind.part: policy, **({} if texts is None else texts.encoders)}
    held = {} if start is None else read_lora(start, networks, pipeline_class(source))
    if lora is None:
        if kind.part in held:
            fuse(policy, held[kind.part])
        policy.requires_grad_(True)
    drawn = None if lora is None else _attach(networks, held, kind, lora, seed=seed, moving=moving)
    if texts is not None:
        texts.freeze_unread()
    use_checkpointing(policy, gradient_checkpointing)
    place = torch.device(device)
    copied = _load_network(source, kind, None, below)[0] if from_base and lora is None else policy
    for network in {policy, copied} if channels_last else ():
        use_channels_last(network, family=kind.name, part=kind.part)
    moved = None if sharded or place.type == "cpu" else place
    frozen = freeze_copy(copied, moved=moved is not None) if reference and lora is None else None
    unchanged = [None if moving else frozen] if lora is None else [*networks.values()]
    _in_half(unchanged, (*networks.values(), frozen), place, dtype, moved, policy, frozen)
    for network in filter(None, () if sharded else (*networks.values(), frozen)):
        network.to(place)
    for network in filter(None, (policy, frozen) if compile else ()):
        network.compile()
    return Denoiser(
        source=source,
        kind=kind,
        network=policy,
        frozen=frozen,
        switch=low_rank.Switch(*networks.values(), bare=from_base) if reference and lora is not None else None,
        lora=lora is not None,
        drawn=drawn,
        texts=texts,
        path=kind.path(read_object(source.folder / SCHEDULER)),
        device=place,
        micro_conditioning=micro,
        vae=vae,
    )


def _in_half(
    stored: Iterable[Any], called: Iterable[Any], place: torch.device, dtype: torch.dtype | None,
    moved: torch.device | None, *widened: Any,
) -> None:  # fmt: skip
    """Keep the weights of some networks in half precision, and compute in it in all that are called; None is none.

    moved: where the weights that are kept go, one by one.
    """
    if dtype is None:
        return
    for network in filter(None, stored):
        store_half(network, dtype, moved)
    for network in filter(None, called):
        autocast_forward(network, place, dtype, widened=network in widened)


def _check_on_base(name: str | FilePath | None, start: FilePath | None, kind: Family, source: Source) -> None:
    """Refuse a LoRA that does not lie on the base's own weights, which are no more at hand."""
    if start is None or name is None or full_start(name, kind.part, source) is not None:
        what = "a LoRA that lies on a start's full weights cannot be compared with the base"
        raise ConfigError(what, where="train.reference.kind", remedy="frozen, or start from a LoRA")


def _attach(
    networks: Mapping[str, Any],
    held: Mapping[str, LoraFile],
    kind: Family,
    lora: LoraSettings,
    *,
    seed: int,
    moving: bool,
) -> dropout.DrawnFor | None:
    """Give every network its trained adapter, that of the start where it has one; whose dropout a call draws."""
    named = {}
    for part, network in networks.items():
        before, targets = ("", kind.lora_targets) if part == kind.part else (f"{part}.", TARGETS)
        if part in held:
            if part == next(iter(held)):  # the others go on as they are in the file
                low_rank.check_asked(network, held[part], lora_of(part, kind, lora))
            low_rank.attach_from(network, held[part])
        else:
            low_rank.attach(network, lora_of(part, kind, lora), targets, seed=seed, before=before)
            if moving:
                low_rank.attach_copy(network)
        named[before] = network
    return dropout.install(named, lora.dropout, adapter=low_rank.POLICY, seed=seed)


def open_pipeline(
    path: str, *, device: str | None = None, precision: Precision = "no", quantize: Quantization | None = None
) -> Any:
    """A plain diffusers pipeline: of a run folder (base + trained part), a diffusers folder, a hub name, or the lab.

    `RUN@0` is what a finished run started from: its base with the run's own VAE and `model.init_from`.

    Args:
        precision: no (float32), bf16 or fp16, of all its networks, as diffusers' `torch_dtype`.
        quantize: the denoiser's linear weights in fewer bits, see `models.quantized`.

    Raises:
        InputError: a folder that is neither a finished run nor a pipeline.
    """
    run = at_start(path)
    path = str(at_step(path)) if run is None else run
    how: Any = {"device": device or default_device(), "precision": precision, "quantize": quantize}
    how["untrained"] = run is not None
    if is_finished(path):
        record = read_run(path)
        said = BaseOptions(revision=record.revision) | said_of(path, record.base)
        return load_pipeline(record.base, run=path, family=record.family, **how, **said)
    if os.path.isdir(path) and not (FilePath(path) / INDEX).is_file():
        what = f"neither a finished run ({RUN}) nor a diffusers pipeline ({INDEX})"
        remedy = "finish the run with `finepref train --resume`, or give a pipeline folder"
        if any(os.path.exists(FilePath(path) / name) for name in (low_rank.FILE, "unet", "transformer")):
            what, remedy = "it is an export of the trained part alone", "give the run, or its export of --format merged"
        raise InputError(what, where=path, remedy=remedy)
    source = locate(path)
    if is_guided(source.index):
        if quantize is not None:
            what = "a guided pipeline, whose two networks are not quantised here"
            raise InputError(what, where=path, remedy="leave quantize out")
        dtype = compute_dtype(precision, where="precision") or torch.float32
        return open_guided(source, device=how["device"], dtype=dtype)
    return load_pipeline(path, **how)


def load_pipeline(
    base: str | FilePath,
    run: str | FilePath | None = None,
    *,
    family: str = "auto",
    device: str | torch.device = "cpu",
    precision: Precision = "no",
    quantize: Quantization | None = None,
    untrained: bool = False,
    **said: Unpack[BaseOptions],
) -> Any:
    """A plain diffusers pipeline of `base`, with the trained part of a run folder (or hub name) in it.

    Where a run started from another model or decodes with another VAE, its config.yaml says so and is obeyed. A base
    that is not that of the run, by its content, is refused.

    Args:
        precision, quantize: see `open_pipeline`.
        untrained: as the run was before its first step.

    Raises:
        InputError: no such model, or the run folder holds no trained part of this family.
    """
    source = locate(base, **said)
    kind = family_of(source, family)
    settings = run_model_settings(run) if run is not None else {}
    if run is not None:
        check_below(at_step(run), kind.part, source, start=untrained)
    check_parts(source, kind, settings.get("vae"))
    tokenizers = check_tokenizers(source, kind)
    vae = load_vae(source, settings.get("vae"))
    dtype = compute_dtype(precision, where="precision") or torch.float32
    check_quantization(quantize, device, where="quantize")
    below = (quantize, dtype)
    network, adapter = _load_network(source, kind, settings.get("init_from") if untrained else run, below)
    with quiet():
        held = {kind.part: network if quantize else network.to(dtype), "vae": vae.to(dtype), **tokenizers}
    pipe = assemble(source, held, torch_dtype=dtype)
    if adapter is not None:
        names = text_parts(kind, source) if kind.embed is not None else []
        networks = {kind.part: network, **{name: getattr(pipe, name) for name in names}}
        for part, held_by_file in read_lora(adapter, networks, pipeline_class(source)).items():
            put(networks[part], held_by_file, low_rank.POLICY)
    pipe.set_progress_bar_config(disable=True)
    with quiet():  # of float16 on a CPU, which works
        return pipe.to(torch.device(device))


def _load_network(
    source: Source,
    kind: Family,
    start: str | FilePath | None,
    quantized: tuple[str | None, torch.dtype] | None,
    *,
    as_saved: bool = False,
) -> tuple[Any, FilePath | None]:
    """(network with the full weights of `start`, LoRA file still to be put on it or None).

    quantized: the kind, and the type that weights are taken back to at each call or, without a kind, have; None for
    float32 weights. as_saved: see `load_module`.

    A LoRA run lies on the full weights that it started from; one that started from a LoRA went on with that LoRA.
    """
    found = None if start is None else find_start(start, kind.part, source)
    below = found if found is None or found.lora is None else full_start(found.name, kind.part, source)
    how: Any = {"as_saved": as_saved}
    how |= {} if quantized is None else dict(zip(("quantize", "dtype"), quantized, strict=True))
    if below is None or below.weights is None:
        network = load_part(source, kind.part, **how)
    else:
        network = load_module(part_class(source, kind.part), below.weights, **how)
    return network, None if found is None else found.lora
