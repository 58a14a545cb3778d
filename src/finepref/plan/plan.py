"""The plan of a run: its networks counted from their configs, its data from their tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from finepref.diffusion.path import Path
from finepref.formats.cache import is_complete, read_cache
from finepref.formats.sources import count_rows
from finepref.models.family import family_of
from finepref.models.lora import LoraSettings
from finepref.models.protocol import Counts
from finepref.plan.fit import make_plan
from finepref.plan.needs import Gpu, Plan
from finepref.plan.skeleton import config_source, count
from finepref.train.config import RunConfig
from finepref.train.identity import check_data
from finepref.train.method import check_path, make_method
from finepref.train.opened import cache_folder


def plan_run(config: RunConfig, *, gpus: Sequence[Gpu], processes: int) -> Plan:
    """What a run will need: its networks counted from their configs, its data from their tables.

    Raises:
        InputError: config files out of reach. ConfigError: a combination that makes no sense.
    """

    method = make_method(config)
    check_data(config, method)
    source = config_source(config.model.base, revision=config.model.revision)

    @lru_cache
    def counted(lora: str, checkpointing: bool | Literal["selective"], precision: str) -> tuple[Counts, Path]:
        given = json.loads(lora)
        return count(
            source.folder,
            family=config.model.family,
            vae=config.model.vae,
            lora=None if given is None else LoraSettings(**given),
            gradient_checkpointing=checkpointing,
            mixed_precision=precision,
            resolution=config.data.resolution,
        )

    def under(changed: RunConfig) -> tuple[Counts, Path]:
        lora = None if changed.lora is None else changed.lora.model_dump()
        return counted(json.dumps(lora), changed.train.gradient_checkpointing, changed.train.mixed_precision)

    path = under(config)[1]
    check_path(method, path)
    return make_plan(
        config,
        method,
        family=family_of(source, config.model.family).name,
        path=path,
        count=lambda changed: under(changed)[0],
        sizes=data_sizes(config),
        processes=processes,
        gpus=gpus,
    )


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
