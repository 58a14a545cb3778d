"""The plan of a run: its networks counted from their configs, its data from their tables."""

from __future__ import annotations

from collections.abc import Sequence

from finepref.diffusion.path import Path
from finepref.formats.cache import is_complete, read_cache
from finepref.formats.sources import count_rows
from finepref.models.family import family_of
from finepref.plan.cards import Gpu
from finepref.plan.fit import remedies
from finepref.plan.needs import GB, GOOD, POOR, Counts, OnGpu, Plan, cache_of, folder_of, memory_of, needed_gb, work_of
from finepref.plan.skeleton import config_source, count
from finepref.plan.stage_memory import caching, drawing
from finepref.train.config import RunConfig
from finepref.train.method import check_data, check_path, make_method
from finepref.train.opened import cache_folder


def plan_run(config: RunConfig, *, gpus: Sequence[Gpu], processes: int) -> Plan:
    """What a run will need: its networks counted from their configs, its data from their tables.

    Args:
        processes: how many GPUs share the run.

    Raises:
        InputError: config files out of reach. ConfigError: a combination that makes no sense.
    """
    method = make_method(config)
    check_data(config, method)
    model = config.model
    source = config_source(model.base, **model.said())
    known: dict[str, tuple[Counts, Path]] = {}

    def under(changed: RunConfig) -> tuple[Counts, Path]:
        options = changed.train.model_dump(include={"gradient_checkpointing", "mixed_precision"})
        key = repr((changed.lora, options))
        if key not in known:
            named, side = model.model_dump(include={"family", "vae"}), config.data.resolution
            known[key] = count(source.folder, lora=changed.lora, resolution=side, **named, **options)
        return known[key]

    counts, path = under(config)
    check_path(method, path)
    images, prompts, pairs = data_sizes(config)
    work = work_of(config, method, counts, path, images=images, prompts=prompts, processes=processes)
    memory = memory_of(config, method, counts, processes=processes)

    def on_gpu(gpu: Gpu) -> OnGpu:
        rate = gpu.full if config.train.mixed_precision == "no" else gpu.half
        hours = None if rate is None else _hours(work.run_flop, rate)
        needed = needed_gb(memory, gpu)
        fits = needed <= gpu.memory_gb
        return OnGpu(
            gpu=gpu.name,
            memory_gb=gpu.memory_gb,
            needed_gb=needed,
            fits=fits,
            remedies=() if fits else remedies(gpu, config, method, lambda it: under(it)[0], processes=processes),
            hours=hours,
            days=None if hours is None else (hours[0] / processes / 24, hours[1] / processes / 24),
        )

    return Plan(
        family=family_of(source, model.family).name,
        counts=counts,
        work=work,
        memory_gb={name: value / GB for name, value in memory.items()},
        cache=cache_of(config, counts, images=images, prompts=prompts, pairs=pairs),
        folder=folder_of(config, counts),
        caching=caching(config, counts),
        drawing=drawing(config, counts),
        processes=processes,
        gpus=tuple(map(on_gpu, gpus)),
        cards=tuple(gpus),
    )


def _hours(flop: float, rate: float) -> tuple[float, float]:
    """Hours at `GOOD` and `POOR` share of a peak rate in TFLOP/s."""
    good, poor = (flop / (rate * 1e12 * share) / 3600 for share in (GOOD, POOR))
    return good, poor


def data_sizes(config: RunConfig) -> tuple[int, int, int]:
    """(images, prompts, pairs) of a run at most: what its cache holds, else rows of the data, else its draws."""
    folder = cache_folder(config)
    if config.cache.folder is not None and is_complete(folder):
        held = read_cache(folder).summary
        return held.images, held.prompts, held.pairs
    draws = config.train.max_steps * config.train.pairs_per_step
    rows = count_rows(config.data.paths) if config.data.paths else None
    pairs = draws if rows is None else rows
    return 2 * pairs, pairs, pairs
