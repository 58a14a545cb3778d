"""Open a base model: its denoiser for training, its pipeline for sampling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Unpack

import torch

from finepref.core.device import Precision, default_device
from finepref.core.errors import InputError
from finepref.core.files import read_object, reading
from finepref.core.provenance import hash_config, sha256_file, sha256_folder
from finepref.formats.records import read_yaml
from finepref.formats.run import RUN, at_step, is_finished, read_run
from finepref.models import dropout
from finepref.models import lora as low_rank
from finepref.models.denoiser import Denoiser
from finepref.models.family import Family, check_micro_conditioning, family_of
from finepref.models.kernels import Checkpointing, use_channels_last, use_checkpointing
from finepref.models.lora import LoraSettings
from finepref.models.pipeline_parts import check_parts, check_tokenizers
from finepref.models.precision import autocast_forward, compute_dtype, freeze_copy, store_half
from finepref.models.source import (
    INDEX,
    BaseOptions,
    Source,
    assemble,
    load_module,
    load_part,
    load_vae,
    locate,
    locate_part,
    part_class,
    quiet,
)

LORA = "give a LoRA of the same family"


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
    resolution: int | None = None,
    micro_conditioning: str | None = None,
    vae: str | None = None,
    seed: int = 0,
    sharded: bool = False,
    **said: Unpack[BaseOptions],
) -> Denoiser:
    """The denoiser of `base` as trainable policy, with its frozen reference.

    Args:
        init_from: run folder, pipeline, `unet/` or `transformer/` folder, or hub name that both networks start from.
        reference: False where the objective needs none (no copy is kept).
        lora: adapter settings; None trains all weights.
        gradient_checkpointing, channels_last, compile: see `models.kernels`; compile takes whole networks.
        resolution: training side in pixels; None for the base's own. Used by SDXL's micro-conditioning.
        micro_conditioning: SDXL only: `true` (sizes and crops of each image) or `official` ([R,R,0,0,R,R]).
        vae: another VAE, for the pipeline's decoding.
        seed: of the LoRA initialisation and its dropout.
        sharded: leave the networks on the CPU, for whoever shards them over several devices.
        said: of the base, see `models.source.locate`.

    Raises:
        InputError: no such model, or a file that leaves weights at random.
        ConfigError: an option that the family does not have.
    """
    source = locate(base, **said)
    kind = family_of(source, family)
    check_parts(source, kind, vae)
    micro = check_micro_conditioning(kind, micro_conditioning)
    dtype = compute_dtype(mixed_precision)
    policy, start = _load_network(source, kind, init_from)
    if lora is None:
        policy.requires_grad_(True)
        if start is not None:
            _fuse(policy, start, kind.part)
    elif start is not None:
        low_rank.attach_from(policy, start, kind.part, lora, kind.lora_targets)
    else:
        low_rank.attach(policy, lora, kind.lora_targets, seed=seed)
    share = 0.0 if lora is None else lora.dropout
    drawn = dropout.install(policy, share, adapter=low_rank.POLICY, seed=seed)
    use_checkpointing(policy, gradient_checkpointing)
    if channels_last:
        use_channels_last(policy, family=kind.name, part=kind.part)
    place, frozen = torch.device(device), freeze_copy(policy) if reference and lora is None else None
    unchanged = frozen if lora is None else policy
    if dtype is not None and unchanged is not None:
        store_half(unchanged, dtype)
    for network in filter(None, (policy, frozen)):
        if not sharded:
            network.to(place)
        if dtype is not None:
            autocast_forward(network, place, dtype)
        if compile:
            network.compile()
    return Denoiser(
        source=source,
        kind=kind,
        network=policy,
        frozen=frozen,
        switch=low_rank.Switch(policy) if reference and lora is not None else None,
        lora=lora is not None,
        drawn=drawn,
        path=kind.path(read_object(source.folder / "scheduler" / "scheduler_config.json")),
        resolution=resolution or native_resolution(source, policy),
        device=place,
        micro_conditioning=micro,
        vae=vae,
    )


def open_pipeline(path: str, *, device: str | None = None, precision: Precision = "no") -> Any:
    """A plain diffusers pipeline: of a run folder (base + trained part), a diffusers folder, a hub name, or the lab.

    Args:
        precision: no (float32), bf16 or fp16, of all its networks, as diffusers' `torch_dtype`.

    Raises:
        InputError: a folder that is neither a finished run nor a pipeline.
    """
    path = str(at_step(path))
    how: Any = {"device": device or default_device(), "precision": precision}
    if is_finished(path):
        record = read_run(path)
        said = BaseOptions(revision=record.revision) | said_of(path)
        return load_pipeline(record.base, run=path, family=record.family, **how, **said)
    if FilePath(path).is_dir() and not (FilePath(path) / INDEX).is_file():
        what = f"neither a finished run ({RUN}) nor a diffusers pipeline ({INDEX})"
        remedy = "finish the run with `finepref train --resume`, or give a pipeline folder"
        raise InputError(what, where=path, remedy=remedy)
    return load_pipeline(path, **how)


def load_pipeline(
    base: str | FilePath,
    run: str | FilePath | None = None,
    *,
    family: str = "auto",
    device: str | torch.device = "cpu",
    precision: Precision = "no",
    **said: Unpack[BaseOptions],
) -> Any:
    """A plain diffusers pipeline of `base`, with the trained part of a run folder (or hub name) in it.

    Where a run started from another model or decodes with another VAE, its config.yaml says so and is obeyed.

    Raises:
        InputError: no such model, or the run folder holds no trained part of this family.
    """
    source = locate(base, **said)
    kind = family_of(source, family)
    settings = run_model_settings(run) if run is not None else {}
    check_parts(source, kind, settings.get("vae"))
    tokenizers = check_tokenizers(source, kind)
    vae = load_vae(source, settings.get("vae"))
    network, adapter = _load_network(source, kind, run)
    dtype = compute_dtype(precision, where="precision") or torch.float32
    with quiet():
        held = {kind.part: network.to(dtype), "vae": vae.to(dtype), **tokenizers}
    pipe = assemble(source, held, torch_dtype=dtype)
    if adapter is not None:
        with quiet(), reading(adapter / low_rank.FILE, "a LoRA of this network", remedy=LORA):
            pipe.load_lora_weights(str(adapter), weight_name=low_rank.FILE)
    pipe.set_progress_bar_config(disable=True)
    with quiet():  # of float16 on a CPU, which works
        return pipe.to(torch.device(device))


def run_model_settings(run: str | FilePath) -> Mapping[str, Any]:
    """The `model` section of a run folder's config.yaml; empty for a folder that another tool made."""
    file = FilePath(at_step(run)) / "config.yaml"
    if not file.is_file():
        return {}
    section = read_yaml(file, remedy="give the folder of a run").get("model")
    return section if isinstance(section, Mapping) else {}


def said_of(run: str | FilePath) -> BaseOptions:
    """What a run's config says of its base, for `models.source.locate`."""
    settings = run_model_settings(run)
    return BaseOptions(**{name: settings[name] for name in BaseOptions.__annotations__ if name in settings})  # type: ignore[typeddict-item]


def full_start(run: str | FilePath, part: str) -> str | None:
    """The full weights that a run's LoRA lies on, as its configs name them; None for those of the base."""
    start = run_model_settings(run).get("init_from")
    while start is not None:
        if _trained(start, part)[1] is not None:
            return str(start)
        start = run_model_settings(start).get("init_from")
    return None


def start_sha256(start: str | FilePath, part: str) -> str:
    """Hash of the weights that `init_from` names: a trained part, or a LoRA and what it lies on.

    Raises:
        InputError: it holds neither.
    """
    folder, place = _trained(start, part)
    if place is not None:
        return sha256_folder(place)
    below = run_model_settings(start).get("init_from")
    file = sha256_file(folder / low_rank.FILE)
    return file if below is None else hash_config({"lora": file, "below": start_sha256(below, part)})


def native_resolution(source: Source, network: Any) -> int:
    """Side in pixels at which the base was trained: latent size of the denoiser times the VAE's reduction."""
    config = read_object(source.folder / "vae" / "config.json")
    names = ("block_out_channels", "encoder_block_out_channels", "dim_mult")
    levels = next((config[name] for name in names if isinstance(config.get(name), list)), ())
    side = getattr(network.config, "sample_size", None) or 128
    return int(side) * 2 ** (len(levels) - 1)


def _load_network(source: Source, kind: Family, start: str | FilePath | None) -> tuple[Any, FilePath | None]:
    """(network with the full weights of `start`, LoRA folder still to be put on it or None).

    A LoRA run lies on the full weights that it started from; one that started from a LoRA went on with that LoRA.
    """
    if start is None:
        return load_part(source, kind.part), None
    folder, place = _trained(start, kind.part)
    if place is not None:
        return load_module(part_class(source, kind.part), place), None
    network, _ = _load_network(source, kind, run_model_settings(start).get("init_from"))
    return network, folder


def _trained(start: str | FilePath, part: str) -> tuple[FilePath, FilePath | None]:
    """(folder of a trained part, where in it the full weights are, None where it holds a LoRA).

    Raises:
        InputError: it holds neither.
    """
    folder = locate_part(at_step(start), patterns=("unet/*", "transformer/*", low_rank.FILE))
    for place in (folder / part, folder):
        if (place / "config.json").is_file():
            return folder, place
    if not (folder / low_rank.FILE).is_file():
        remedy = "give the folder of a finished run of the same family"
        raise InputError(f"holds neither {part}/ nor {low_rank.FILE}", where=start, remedy=remedy)
    return folder, None


def _fuse(network: Any, folder: FilePath, part: str) -> None:
    """Add a LoRA's B A alpha / rank to the weights, for full fine-tuning that starts from a LoRA run."""
    with quiet(), reading(folder / low_rank.FILE, "a LoRA of this network", remedy=LORA):
        network.load_lora_adapter(str(folder), weight_name=low_rank.FILE, prefix=part)
        network.fuse_lora()
        network.unload_lora()
    network.requires_grad_(True)
