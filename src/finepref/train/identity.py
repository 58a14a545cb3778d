"""A config with its data, checked, and what makes it the run that it is: everything but its networks."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from finepref.core import provenance
from finepref.core.errors import ConfigError
from finepref.core.rows import hashes
from finepref.data.latents import Latents
from finepref.train.config import RunConfig
from finepref.train.data import ImageTable, PairTable, image_table, pair_table
from finepref.train.frozen import SHARD
from finepref.train.method import Method, make_method
from finepref.train.opened import BaseRecord

# What may differ between a checkpoint and the run that goes on from it.
FREE = {
    ("validation",),
    ("log",),
    ("train", "checkpoint_every"),
    ("train", "checkpoints_keep"),
    ("train", "max_skipped"),
}


def free(key: str) -> bool:
    """Whether a dotted key of a config may differ between a checkpoint and the run that goes on from it."""
    parts = tuple(key.split("."))
    return any(parts[: len(place)] == place for place in FREE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Method and data of a config.

    identity: hash of everything that decides the weights. reference, trajectories: of everything that decides a
    reference error, and the reference's inversion of a draw.
    """

    config: RunConfig
    method: Method
    cache: Latents
    table: PairTable | ImageTable
    base: BaseRecord
    identity: str
    reference: str = ""
    trajectories: str = ""

    @property
    def rows(self) -> tuple[str, ...]:
        """The ids that are drawn from."""
        return self.table.pair_id if isinstance(self.table, PairTable) else self.table.image_id


def prepare(config: RunConfig, *, cache: Latents, base: BaseRecord) -> Prepared:
    """Check a config against its data.

    Raises:
        ConfigError: a combination that makes no sense. InputError: files that do not fit.
    """
    method = make_method(config)
    check_data(config, method)
    table = _table(config, method, cache)
    check_signal(method, table, where=config.signal.file)
    held = cache.identity()
    known: dict[str, str] = {}
    if isinstance(table, PairTable):
        known["trajectories"] = trajectory_identity(config, method, base=base, cache=held, table=table)
        known["reference"] = reference_identity(config, base=base, cache=held, table=table)
        if method.inversion is not None:
            known["reference"] = provenance.hash_config(known)
    return Prepared(
        config=config,
        method=method,
        cache=cache,
        table=table,
        base=base,
        identity=run_identity(config, base=base, cache=held, signal=table.about.sha256),
        **known,
    )


def run_identity(config: RunConfig, *, base: BaseRecord, cache: str, signal: str) -> str:
    """Hash of everything that decides the weights: config (no paths, logging, checkpoints), base, cache, signal."""
    settings = config.as_dict()
    for place in FREE:
        section = settings
        for part in place[:-1]:
            section = section[part]
        section.pop(place[-1])
    for name in ("reference_cache", "trajectory_cache"):
        settings["train"][name] = settings["train"][name] is not None
    settings["cache"].pop("folder")
    settings["signal"].pop("file")
    settings["data"].pop("paths")
    settings["data"].pop("images")
    settings["model"].pop("base")
    settings["model"].pop("init_from")
    weights = {name: value for name, value in asdict(base).items() if name.endswith("_sha256")}
    code = hashes(objective=config.objective.name, guard=config.guard.name, trajectory=config.trajectory.name)
    known = {"config": settings, "base": weights, "cache": cache, "signal": signal}
    return provenance.hash_config(known | ({"code": code} if code else {}))


def reference_identity(config: RunConfig, *, base: BaseRecord, cache: str, table: PairTable) -> str:
    """Hash of everything that decides a reference error: reference, data, draws. How many steps there are is not in it.

    Neither are margins and weights: a grid over them shares one reference cache.
    """
    plan = {
        "base": base.base_sha256,
        "init": base.init_sha256,
        "micro_conditioning": config.model.micro_conditioning,
        "resolution": config.data.resolution,
        "cache": cache,
        "pairs": table.pair_id,
        "winners": table.winner,
        "seed": config.train.seed,
        "flip": config.data.flip,
        "prompt_dropout": config.data.prompt_dropout,
        "stratified_t": config.train.stratified_t and config.train.pairs_per_step,
        "mixed_precision": config.train.mixed_precision,
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


def check_data(config: RunConfig, method: Method) -> None:
    """Refuse options of pairs where single images are taken, and the reverse."""
    if method.objective.needs.paired:
        if config.data.desirable_share is not None:
            what = f"objective {method.objective.name} takes pairs"
            raise ConfigError(what, where="data.desirable_share", remedy="null")
    elif config.signal.file is None:
        remedy = "make them with `finepref signals --kind kto`"
        raise ConfigError(f"objective {method.objective.name} needs image labels", where="signal.file", remedy=remedy)


def check_signal(method: Method, table: PairTable | ImageTable, *, where: object) -> None:
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


def _table(config: RunConfig, method: Method, cache: Latents) -> PairTable | ImageTable:
    if not method.objective.needs.paired:
        assert config.signal.file is not None
        return image_table(cache, signals=config.signal.file)
    return pair_table(
        cache,
        signals=config.signal.file,
        votes=config.data.paths,
        reading=config.data.reading(),
        scale=config.signal.margin_scale,
    )
