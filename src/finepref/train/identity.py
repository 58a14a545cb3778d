"""A config with its data, checked, and what makes it the run that it is: everything but its networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from finepref.core import provenance
from finepref.core.errors import ConfigError
from finepref.core.rows import hashes
from finepref.data.latents import Latents
from finepref.formats.run import RunIdentity
from finepref.train.config import RunConfig
from finepref.train.data import ImageTable, PairTable, image_table, pair_table
from finepref.train.frozen import SHARD
from finepref.train.lists import ListTable, list_table
from finepref.train.log import flat
from finepref.train.method import Method, check_data, images_of_draw, make_method
from finepref.train.opened import BaseRecord
from finepref.train.optim import warms_up
from finepref.train.unseen import HeldOutPairs, hold_out

FREE = (
    *("validation", "log", "train.checkpoint_every", "train.checkpoints_keep", "train.max_skipped"),
    *("train.micro_batch", "train.place_batch", "train.gradient_checkpointing", "train.compile", "train.channels_last"),
    *(
        "train.distributed",
        "train.timeout_minutes",
        "train.reference_cache",
        "cache.batch_size",
        "cache.shard_size",
        "cache.offload",
    ),
)
"""Keys, or sections, that decide what is shown and kept, how fast a run is and how much memory it takes: a run may go
on under others. Sums are then taken in another order, so that numbers are equal up to rounding only."""

PLACES = (
    *("cache.folder", "cache.online", "signal.file", "model.base", "model.revision", "model.family", "model.init_from"),
    *("model.vae", "data.paths", "data.images", "data.format", "data.columns", "data.outcomes", "data.encoding"),
    *("data.split", "data.question", "train.trajectory_cache", "model.config", "model.prediction_type"),
)
"""Keys that say where something lies or how it is read; its content decides, by its hash, not the name."""

STEADY = ("constant", "constant_with_warmup")
"""Values of train.lr_scheduler under which a step does not depend on how many there will be."""


def settings(config: RunConfig) -> dict[str, Any]:
    """Dotted key -> value of what decides the weights after a number of steps."""
    left_out = {*FREE, *PLACES} | ({"train.max_steps"} if config.train.lr_scheduler in STEADY else set())
    left_out |= set() if warms_up(config.train) else {"train.lr_warmup_from_zero"}  # it has no effect
    found = {
        key: value
        for key, value in flat(config.as_dict())
        if not {key, key.partition(".")[0], ".".join(key.split(".")[:2])} & left_out
    }
    return found | {"train.trajectory_cache": config.train.trajectory_cache is not None}  # it is kept in half precision


BEFORE = {"train.lr_warmup_from_zero": False}
"""What a key stood for in runs of the versions before it, where that is not its default."""


def written_settings(config: RunConfig) -> dict[str, Any]:
    """The settings of the config of a run folder that stand in its file: a version before knew no others."""
    return {key: value for key, value in settings(config).items() if config.origin(*key.split(".")) != "default"}


def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`KEY OLD, now NEW` of all settings that differ. One that the old ones lack was `BEFORE`, or its default."""
    usual = settings(RunConfig.model_validate({"model": {"base": ""}})) | BEFORE
    both = {key: (old.get(key, usual.get(key)), new.get(key)) for key in sorted({*old, *new})}
    return [f"{key} {before}, now {now}" for key, (before, now) in both.items() if before != now]


def differences(old: RunIdentity, new: RunIdentity) -> list[str]:
    """What makes a run another one, in words; empty where it is the same."""
    parts = (
        ("base or start", True, old.lies_as(new)), ("data set or cache", old.cache, new.cache),
        ("signal", old.signal, new.signal), ("code of own rows", old.code, new.code),
    )  # fmt: skip
    return changed(old.settings, new.settings) + [f"another {what}" for what, before, now in parts if before != now]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Method and data of a config.

    held_out: pairs that are looked at and not trained on. identity: everything that decides the weights. reference,
    trajectories: hash of everything that decides a reference error, and the reference's inversion of a draw.
    """

    config: RunConfig
    method: Method
    cache: Latents
    table: PairTable | ImageTable | ListTable
    held_out: HeldOutPairs | None
    base: BaseRecord
    identity: RunIdentity
    reference: str = ""
    trajectories: str = ""


def prepare(config: RunConfig, *, cache: Latents, base: BaseRecord) -> Prepared:
    """Check a config against its data.

    Raises:
        ConfigError: a combination that makes no sense. InputError: files that do not fit.
    """
    method = make_method(config)
    check_data(config, method)
    held_out = hold_out(config, cache)
    table = _table(config, method, cache, frozenset() if held_out is None else held_out.ids)
    check_signal(method, table, where=config.signal.file)
    held = cache.identity()
    known: dict[str, str] = {}
    cached = config.train.reference_cache is not None or config.train.trajectory_cache is not None
    if cached and isinstance(table, PairTable):
        known["trajectories"] = trajectory_identity(config, method, base=base, cache=held, table=table)
        known["reference"] = reference_identity(config, base=base, cache=held, table=table)
        if method.inversion is not None:
            known["reference"] = provenance.hash_config(known)
    return Prepared(
        config=config,
        method=method,
        cache=cache,
        table=table,
        held_out=held_out,
        base=base,
        identity=run_identity(config, base=base, cache=held, signal=table.about.sha256),
        **known,
    )


def run_identity(config: RunConfig, *, base: BaseRecord, cache: str, signal: str) -> RunIdentity:
    """Everything that decides the weights: settings (no paths, logging, checkpoints), base, cache, signal."""
    weights = {name: value for name, value in asdict(base).items() if name.endswith(("_sha256", "_content"))}
    code = hashes(objective=config.objective.name, guard=config.guard.name, trajectory=config.trajectory.name)
    return RunIdentity(settings=settings(config), base=weights, cache=cache, signal=signal, code=code)


def reference_identity(config: RunConfig, *, base: BaseRecord, cache: str, table: PairTable) -> str:
    """Hash of everything that decides a reference error: reference, data, draws. How many steps there are is not in it.

    Neither are margins and weights: a grid over them shares one reference cache.
    """
    plan = {
        "base": base.base_sha256,
        "init": base.init_sha256,
        "micro_conditioning": config.model.micro_conditioning,
        **({} if config.model.variant is None else {"variant": config.model.variant}),  # the base's hash is of all
        "resolution": config.data.resolution,
        "cache": cache,
        "pairs": iter(table.pair_id),
        "winners": iter(table.winner),
        "seed": config.train.seed,
        "flip": config.data.flip,
        "prompt_dropout": config.data.prompt_dropout,
        "stratified_t": config.train.stratified_t and config.train.pairs_per_step,
        "mixed_precision": config.train.mixed_precision,
        **({} if config.train.levels.whole else {"levels": config.train.levels.model_dump()}),
        **({"prompts": "encoded in the step"} if config.lora is not None and config.lora.text_encoder else {}),
    }
    return provenance.hash_config(plan)


def trajectory_identity(config: RunConfig, method: Method, *, base: BaseRecord, cache: str, table: PairTable) -> str:
    """Hash of everything that decides the reference's inversion of a draw, and how it is stored."""
    plan = {
        "drawn": reference_identity(config, base=base, cache=cache, table=table),
        "trajectory": [method.trajectory.name, method.place_options.model_dump()],
        **hashes(trajectory=method.trajectory.name),
        "dtype": config.cache.dtype,
        "shard": SHARD,
    }
    return provenance.hash_config(plan)


def check_signal(method: Method, table: PairTable | ImageTable | ListTable, *, where: object) -> None:
    """Refuse margins and weights that the objective would not look at.

    Raises:
        ConfigError: the signal sets one that has no effect.
    """
    if not isinstance(table, PairTable):
        return
    needs, name = method.objective.needs, method.objective.name
    for part, wanted, acts in (
        ("margins", needs.margin, bool(table.margin.any())),
        ("weights", needs.weight, bool((table.weight != 1).any())),
    ):
        if acts and not wanted:
            what = f"objective {name} does not look at the {part} of this signal"
            raise ConfigError(what, where=where, remedy="name a signal of kind binary or relabel, or another objective")


def _table(
    config: RunConfig, method: Method, cache: Latents, without: frozenset[str]
) -> PairTable | ImageTable | ListTable:
    needs = method.objective.needs
    if needs.listed:
        assert config.signal.file is not None
        size = images_of_draw(config, needs)
        return list_table(cache, signals=config.signal.file, size=size, without=without)
    if not needs.paired:
        assert config.signal.file is not None
        return image_table(cache, signals=config.signal.file, without=without)
    return pair_table(
        cache,
        signals=config.signal.file,
        votes=config.data.paths,
        reading=config.data.reading(),
        scale=config.signal.margin_scale,
        swap=config.signal.swap,
        without=without,
    )
