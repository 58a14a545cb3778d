"""The plan of a run: its networks counted from their configs, its data from their tables."""

from __future__ import annotations

from collections.abc import Sequence

from finepref.diffusion.path import Path
from finepref.models.family import family_of
from finepref.plan.cards import CPU, Gpu, gpu_of
from finepref.plan.data_sizes import data_sizes
from finepref.plan.fit import remedies
from finepref.plan.host import base_files, caching_host, drawing_host, scoring_host, training_host
from finepref.plan.needs import (
    GB,
    GOOD,
    MANY,
    POOR,
    Counts,
    OnGpu,
    Plan,
    cache_of,
    folder_of,
    memory_of,
    needed_gb,
    work_of,
)
from finepref.plan.scoring import scoring
from finepref.plan.skeleton import config_source, count
from finepref.plan.stage_memory import caching, drawing, drawing_flop
from finepref.train.config import RunConfig
from finepref.train.method import check_data, check_path, make_method


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
    sizes = data_sizes(config)
    work = work_of(config, method, counts, path, images=sizes.images, prompts=sizes.prompts, processes=processes)
    memory = memory_of(config, method, counts, processes=processes)
    encoding, drawn, scored = caching(config, counts), drawing(config, counts), scoring()
    files = base_files(source, counts, family=model.family, vae=model.vae)
    on_cpu = needed_gb(memory, gpu_of(CPU))
    stages = {
        "cache": (work.cache_flop, config.cache.mixed_precision != "no"),
        "generate": (MANY * drawing_flop(counts), config.train.mixed_precision != "no"),
        "score": (MANY * scored.image_flop, False),
    }

    def on_gpu(gpu: Gpu) -> OnGpu:
        def hours_of(flop: float, half: bool) -> tuple[float, float] | None:
            rate = gpu.half if half else gpu.full
            return None if rate is None else _hours(flop, rate)

        hours = hours_of(work.run_flop, config.train.mixed_precision != "no")
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
            stages={name: found for name, how in stages.items() if (found := hours_of(*how)) is not None},
        )

    return Plan(
        family=family_of(source, model.family).name,
        counts=counts,
        work=work,
        memory_gb={name: value / GB for name, value in memory.items()},
        cache=cache_of(config, counts, sizes),
        folder=folder_of(config, counts),
        caching=encoding,
        drawing=drawn,
        scoring=scored.memory(),
        host={
            "train": training_host(config, method, counts, files, pairs=sizes.pairs, cpu_gb=on_cpu),
            "cache": caching_host(config, counts, files, encoding),
            "generate": drawing_host(config, counts, files, drawn),
            "score": scoring_host(scored.parameters, scored.memory()),
        },
        files=all(each.here for each in files.values()),
        processes=processes,
        gpus=tuple(map(on_gpu, gpus)),
        cards=tuple(gpus),
    )


def _hours(flop: float, rate: float) -> tuple[float, float]:
    """Hours at `GOOD` and `POOR` share of a peak rate in TFLOP/s."""
    good, poor = (flop / (rate * 1e12 * share) / 3600 for share in (GOOD, POOR))
    return good, poor
