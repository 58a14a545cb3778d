"""Pairs per second of the library's own optimiser step at full size, with random weights and random cached latents."""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from architectures import RESOLUTION, write_configs

from finepref.core.buckets import Bucket
from finepref.core.files import write_json
from finepref.core.images import ImageSize
from finepref.core.provenance import provenance
from finepref.formats.run import RunIdentity, RunSignals
from finepref.models.denoiser import Denoiser
from finepref.models.family import check_micro_conditioning, family_of
from finepref.models.kernels import use_channels_last, use_checkpointing
from finepref.models.lora import LoraSettings, Switch, attach
from finepref.models.precision import autocast_forward, compute_dtype, freeze_copy, store_half
from finepref.models.source import locate, part_class
from finepref.plan.needs import work_of
from finepref.plan.skeleton import count
from finepref.train import loop
from finepref.train import state as state_of
from finepref.train.batches import Drawing, PairSource
from finepref.train.config import RunConfig, parse_config
from finepref.train.data import PairTable
from finepref.train.method import make_method
from finepref.train.opened import BaseRecord
from finepref.train.processes import World

SMPO = {"name": "renoise", "grid": "official-current", "renoise": "each", "label": "source", "average": True}
# The order in which a GPU is measured: plain first, compiled last (compiling takes minutes).
PLAN: dict[str, list[dict[str, Any]]] = {
    "sd15": [
        *({"micro_batch": size} for size in (1, 4, 8, 16, 32)),
        {"micro_batch": 16, "channels_last": True},
        {"micro_batch": 16, "method": "smpo"},
        {"micro_batch": 16, "lora": 8},
        {"micro_batch": 16, "compile": True},
        {"micro_batch": 16, "compile": True, "channels_last": True},
        {"micro_batch": 16, "lora": 8, "compile": True},
    ],
    "sdxl": [
        *({"micro_batch": size} for size in (1, 2, 4)),
        {"micro_batch": 1, "checkpointing": "selective"},
        {"micro_batch": 4, "channels_last": True},
        {"micro_batch": 4, "method": "smpo"},
        {"micro_batch": 4, "lora": 8},
        {"micro_batch": 4, "compile": True, "channels_last": True},
    ],
    "tiny": [
        {"micro_batch": 1},
        {"micro_batch": 2, "checkpointing": "selective", "channels_last": True},
        {"micro_batch": 2, "method": "smpo"},
        {"micro_batch": 2, "lora": 2},
    ],
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a measurement at full size."""
    group = parser.add_argument_group("with --arch")
    group.add_argument("--plan", action="store_true", help="measure the whole list of variants for this architecture")
    group.add_argument("--method", default="dpo", choices=("dpo", "smpo"))
    group.add_argument("--micro-batch", type=int, default=8)
    group.add_argument("--pairs-per-step", type=int, help="default: 4 micro-batches")
    group.add_argument("--place-batch", type=int, default=64)
    group.add_argument("--steps", type=int, default=5, help="optimiser steps that count, after two that warm up")
    group.add_argument("--lora", type=int, help="rank; without it all weights are trained")
    group.add_argument("--checkpointing", choices=("true", "selective"))
    group.add_argument("--compile", action="store_true")
    group.add_argument("--channels-last", action="store_true")
    group.add_argument("--optimizer", default="adamw", choices=("adamw", "adafactor", "adamw8bit"))
    group.add_argument("--precision", default="bf16", choices=("bf16", "no"))
    group.add_argument("--peak", type=float, help="TFLOP/s that count as 100 %%; default: measured by matrix products")


class RandomCache:
    """Stands in for a latent cache: every image and prompt has random content, made once, float32 on the CPU."""

    def __init__(self, latent: Sequence[int], shapes: dict[str, tuple[int, ...]]) -> None:
        draw = torch.Generator().manual_seed(0)
        self.latent = torch.randn(tuple(latent), generator=draw)
        self.held = {n: torch.randn(s, generator=draw) for n, s in shapes.items() if n not in ("time_ids",)}

    def latents(
        self, images: Sequence[str], flips: Any = None, *, bucket: str | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, list[ImageSize]]:
        """(mean, std, sizes) of images."""
        mean = self.latent.expand(len(images), *self.latent.shape).contiguous()
        return mean, torch.full_like(mean, 0.1), [ImageSize(1024, 1024, 0, 0, Bucket(1024, 1024))] * len(images)

    def prompts(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        """name -> [N,...]."""
        return {name: value.expand(len(prompts), *value.shape).contiguous() for name, value in self.held.items()}


def make_adapter(base: Path, config: RunConfig, device: torch.device) -> tuple[Denoiser, dict[str, tuple[int, ...]]]:
    """The denoiser of an architecture with random weights, made on the device, as `load_adapter` would load it."""
    source, options = locate(base), config.train
    kind = family_of(source)
    cls = part_class(source, kind.part)
    with device:
        policy = cls.from_config(cls.load_config(str(base / kind.part))).requires_grad_(config.lora is None)
    lora = config.lora is not None
    if config.lora is not None:
        attach(policy, LoraSettings(rank=config.lora.rank), kind.lora_targets, seed=0)
    use_checkpointing(policy, options.gradient_checkpointing)
    if options.channels_last:
        use_channels_last(policy, family=kind.name, part=kind.part)
    frozen, dtype = None if lora else freeze_copy(policy), compute_dtype(options.mixed_precision)
    if dtype is not None:
        store_half(policy if frozen is None else frozen, dtype)
    for network in filter(None, (policy, frozen)):
        if dtype is not None:
            autocast_forward(network, device, dtype)
        if options.compile:
            network.compile()
    adapter = Denoiser(
        source=source, kind=kind, network=policy, frozen=frozen, lora=lora, switch=Switch(policy) if lora else None,
        path=kind.path(json.loads((base / "scheduler/scheduler_config.json").read_text())),
        device=device,
        micro_conditioning=check_micro_conditioning(kind, None), vae=None,
    )  # fmt: skip
    return adapter, kind.shapes(policy.config)


def config_of(base: Path, arch: str, options: argparse.Namespace) -> RunConfig:
    """The run config of a measurement."""
    smpo = {**SMPO, "steps": 5 if arch != "sdxl" else 10}
    checkpointing = {None: False, "true": True}.get(options.checkpointing, options.checkpointing)
    return parse_config(
        {
            "model": {"base": str(base)},
            "data": {"resolution": RESOLUTION[arch]},
            "trajectory": smpo if options.method == "smpo" else {"name": "forward"},
            "lora": None if options.lora is None else {"rank": options.lora},
            "train": {
                "micro_batch": options.micro_batch,
                "pairs_per_step": options.pairs_per_step or 4 * options.micro_batch,
                "place_batch": options.place_batch,
                "learning_rate": 1e-8,
                "optimizer": options.optimizer,
                "mixed_precision": options.precision,
                "gradient_checkpointing": checkpointing,
                "compile": options.compile,
                "channels_last": options.channels_last,
            },
        }
    )


def measure(base: Path, arch: str, options: argparse.Namespace, peak: float) -> dict[str, Any]:
    """One variant: seconds of every optimiser step, pairs per second, share of the peak, memory."""
    device = torch.device("cuda", 0) if options.device == "cuda" else torch.device("cpu")
    config = config_of(base, arch, options)
    method = make_method(config)
    lora = None if options.lora is None else LoraSettings(rank=options.lora)
    counts, path = count(
        base, resolution=RESOLUTION[arch], lora=lora, gradient_checkpointing=config.train.gradient_checkpointing
    )
    plain, _ = (counts, path) if not options.checkpointing else count(base, resolution=RESOLUTION[arch], lora=lora)
    useful = work_of(config, method, plain, path, images=0, prompts=0).draw_flop
    adapter, shapes = make_adapter(base, config, device)
    pairs = config.train.pairs_per_step * 64
    ids = tuple(f"pair-{i}" for i in range(pairs))
    table = PairTable(
        pair_id=ids, prompt=ids, winner=ids, loser=ids, bucket=("1024x1024",) * pairs,
        margin=np.zeros(pairs, np.float32), weight=np.ones(pairs, np.float32),
        about=RunSignals(kind="binary", sha256=""),
    )  # fmt: skip
    cache: Any = RandomCache(counts.latent, shapes)
    drawing = Drawing(cache=cache, adapter=adapter, prompt_dropout=0.0, flip=False, seed=0)
    run = state_of.Run(
        config=config, method=method, adapter=adapter,
        source=PairSource(drawing=drawing, table=table, guidance=False),
        world=World(rank=0, size=1, device=device), out=Path("unused"),
        identity=RunIdentity(settings={}, base={}, cache="", signal=""),
        base=BaseRecord(base=str(base), revision=None, family="", base_sha256="", base_content="", init_sha256=None),
        draws=config.train.pairs_per_step, inverts=method.trajectory.uses_network,
    )  # fmt: skip
    state = loop.begin(run, resume=False)
    adapter.train_mode(True)
    seconds = list(_steps(run, state, options.steps, device))
    rate = config.train.pairs_per_step / statistics.median(seconds)
    return {
        "pairs_per_second": rate,
        "tflop_per_pair": useful / 1e12,
        "share_of_peak": rate * useful / 1e12 / peak,
        "step_seconds": {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)},
        "pairs_per_step": config.train.pairs_per_step,
        **_memory(device),
    }


def _steps(run: state_of.Run, state: state_of.State, steps: int, device: torch.device) -> Iterator[float]:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for number in range(steps + 2):
        began = time.perf_counter()
        loop.optimiser_step(run, state, number)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= 2:
            yield time.perf_counter() - began


def _memory(device: torch.device) -> dict[str, float | None]:
    if device.type != "cuda":
        return {"peak_memory_gb": None, "reserved_gb": None}
    return {
        "peak_memory_gb": torch.cuda.max_memory_allocated(device) / 1e9,
        "reserved_gb": torch.cuda.max_memory_reserved(device) / 1e9,
    }


def measured_peak(device: torch.device, precision: str) -> float:
    """TFLOP/s of large square matrix products on this device: what counts as 100 %."""
    size = 8192 if device.type == "cuda" else 512
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    best = float("inf")
    for _ in range(12):
        began = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best / 1e12


def device_name(device: torch.device) -> str:
    """What the maker calls the GPU or the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def throughput(options: argparse.Namespace) -> None:
    """Measure one variant, or the plan of an architecture, and print a line for each; a file is whole after each."""
    device = torch.device("cuda", 0) if options.device == "cuda" else torch.device("cpu")
    name = device_name(device)
    peak = options.peak or measured_peak(device, options.precision)
    results: list[dict[str, Any]] = []
    record = {**provenance(), "device": name, "arch": options.arch, "peak_tflops": peak, "results": results}
    if not options.json:
        print(f"{name}, torch {torch.__version__}, {options.arch}, 100 % = {peak:.4g} TFLOP/s ({options.precision})")
    with tempfile.TemporaryDirectory() as folder:
        base = write_configs(Path(folder), options.arch)
        for variant in PLAN[options.arch] if options.plan else [{}]:
            given = argparse.Namespace(**{**vars(options), **variant})
            what = {k: v for k, v in vars(given).items() if k in VARIANT and v}
            try:
                found: dict[str, Any] = measure(base, options.arch, given, peak)
            except torch.cuda.OutOfMemoryError:
                found = {"out_of_memory": True}
            results.append({**what, **found})
            if options.out is not None:
                write_json(options.out, record)
            if not options.json:
                print(_line(what, found), flush=True)
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    if options.json:
        print(json.dumps(record))


VARIANT = ("method", "micro_batch", "lora", "checkpointing", "compile", "channels_last", "optimizer", "precision")


def _line(what: dict[str, Any], found: dict[str, Any]) -> str:
    name = " ".join(f"{key}={value}" for key, value in what.items())
    if "out_of_memory" in found:
        return f"{name}: out of memory"
    memory = "" if found["peak_memory_gb"] is None else f", {found['peak_memory_gb']:.1f} GB"
    return f"{name}: {found['pairs_per_second']:.3g} pairs/s, {found['share_of_peak']:.1%} of the peak{memory}"
