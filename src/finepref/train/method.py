"""From the config's axes to one method: trajectory x objective x guard, with what it needs, or a reason why not."""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import Tensor

from finepref.core.errors import ConfigError
from finepref.core.tensors import PairPrediction, ReferenceNeed
from finepref.diffusion.path import LossSpace
from finepref.diffusion.path import Path as NoisePath
from finepref.diffusion.trajectories import TRAJECTORIES, TrajectoryRow
from finepref.diffusion.trajectory_options import InversionOptions
from finepref.objectives.table import GUARDS, OBJECTIVES, Needs, ObjectiveRow
from finepref.train.config import RunConfig, axis_options
from finepref.train.levels import LevelOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A point of the product of axes, ready for the step.

    inversion: the options of an inverting trajectory, None for others. options: keyword arguments of the objective.
    guard: prediction -> (prediction, statistics [B]), None for none. lowest_t: the lowest discrete level that is drawn.
    share: at how many levels one trajectory of a pair is read. levels: the window that is drawn from, None for the
    whole path. reference: what of the reference objective and guard look at.
    """

    trajectory: TrajectoryRow
    place_options: BaseModel
    inversion: InversionOptions | None
    objective: ObjectiveRow
    options: Mapping[str, Any]
    guard: Callable[[PairPrediction], tuple[PairPrediction, dict[str, Tensor]]] | None
    loss_space: LossSpace
    lowest_t: int
    share: int
    levels: LevelOptions | None
    reference: ReferenceNeed


def draws_per_step(config: RunConfig, method: Method) -> int:
    """Draws of an optimiser step: its pairs, or fewer where several levels of a pair share a trajectory."""
    return config.train.pairs_per_step // method.share


def inverts(config: RunConfig, method: Method) -> bool:
    """Whether a step calls a network to place its pairs."""
    return method.trajectory.uses_network and config.train.trajectory_cache is None


def needs_reference(config: RunConfig, method: Method) -> bool:
    """Whether a step calls the frozen reference at all."""
    places = inverts(config, method) and method.inversion is not None and method.inversion.network == "reference"
    return places or (method.reference != "none" and config.train.reference_cache is None)


def images_of_draw(config: RunConfig, needs: Needs) -> int:
    """Images that a draw brings to the networks: a list's, a pair's two, or one."""
    if needs.listed:
        return config.data.list_size or 4
    return 2 if needs.paired and needs.loser else 1


def make_method(config: RunConfig) -> Method:
    """Validate the axes of a config and their combination.

    Raises:
        ConfigError: an unknown name or option, or a combination that makes no sense, with the reason.
    """
    trajectory = TRAJECTORIES[config.trajectory.name]
    place_options = axis_options(config, "trajectory", trajectory.options)
    inversion = place_options if isinstance(place_options, InversionOptions) else None
    objective = OBJECTIVES[config.objective.name]
    options = axis_options(config, "objective", objective.options)
    guard = GUARDS[config.guard.name]
    guard_options = axis_options(config, "guard", guard.options).model_dump()
    method = Method(
        trajectory=trajectory,
        place_options=place_options,
        inversion=inversion,
        objective=objective,
        options=options.model_dump(),
        guard=None if guard.name == "none" else functools.partial(guard.function, **guard_options),
        loss_space=config.objective.loss_space,
        lowest_t=trajectory.lowest_t(place_options),
        share=1 if inversion is None else inversion.share,
        reference="tensors" if guard.tensors else objective.needs.reference,
        levels=None if config.train.levels.whole else config.train.levels,
    )
    _refuse_nonsense(config, method)
    _check_caches(config, method)
    _check_reference(config, method)
    return method


def check_data(config: RunConfig, method: Method) -> None:
    """Refuse options of pairs where single images are taken, and the reverse."""
    needs, name = method.objective.needs, method.objective.name
    taken = "pairs" if needs.paired else "lists" if needs.listed else "single images"
    for option, value, fits in (
        ("data.desirable_share", config.data.desirable_share, taken == "single images"),
        ("data.list_size", config.data.list_size, taken == "lists"),
        ("signal.swap", config.signal.swap or None, taken == "pairs"),
    ):
        if value is not None and not fits:
            raise ConfigError(f"it has no effect: objective {name} takes {taken}", where=option, remedy="leave it out")
    for option, given, why in (
        (f"objective {name}", needs.listed, "images of a list have one shape"),
        ("train.trajectory_cache", config.train.trajectory_cache is not None, "what it keeps has one shape"),
        ("train.distributed", config.train.distributed == "fsdp2", "sharded networks make equally many calls each"),
    ):
        if config.data.buckets and given:
            what = f"it does not go with {option}: {why}"
            raise ConfigError(what, where="data.buckets", remedy="set data.buckets=false")
    if not needs.paired and config.signal.file is None:
        kind = "--kind posterior --form margin" if needs.listed else "--kind kto"
        what = f"objective {name} needs {'a ranking of images' if needs.listed else 'image labels'}"
        raise ConfigError(what, where="signal.file", remedy=f"make it with `finepref signals {kind}`")


def _refuse_nonsense(config: RunConfig, method: Method) -> None:
    needs, name = method.objective.needs, method.objective.name
    if method.guard is not None and not (needs.paired and needs.loser):
        what = f"objective {name} does not look at losers, so a guard has no effect"
        raise ConfigError(what, where="guard.name", remedy="name: none")
    if not needs.paired and method.trajectory.uses_network:
        what = f"objective {name} takes no pairs; {method.trajectory.name} places pairs"
        raise ConfigError(what, where="trajectory.name", remedy="name: forward")
    if config.train.pairs_per_step % method.share:
        raise ConfigError(
            f"{method.share} levels share a trajectory, which does not divide train.pairs_per_step = "
            f"{config.train.pairs_per_step}",
            where="trajectory.share",
            remedy="a divisor of it",
        )
    if config.lora is not None and config.lora.dora and config.train.mixed_precision != "no":
        what = "half precision rounds its lengths, so that policy and reference differ before the first step"
        raise ConfigError(what, where="lora.dora", remedy="set train.mixed_precision=no, or lora.dora=false")
    if config.cache.online and config.cache.offload:
        what = "it does not go with cache.online: every draw needs the VAE and the text encoders"
        raise ConfigError(what, where="cache.offload", remedy="set one of them to false")
    if config.model.quantize is not None:
        _check_quantized(config)
    if config.signal.margin_scale != 1.0 and (config.signal.file is None or not needs.margin):
        reason = "there is no signal file" if config.signal.file is None else f"objective {name} takes no margin"
        raise ConfigError(f"it has no effect: {reason}", where="signal.margin_scale", remedy="remove it")


def _check_quantized(config: RunConfig) -> None:
    """Refuse what cannot be trained on weights in fewer bits."""
    for wrong, what, remedy in (
        (config.lora is None, "weights in fewer bits cannot be trained", "train a LoRA (lora: {rank: 8}), or null"),
        (config.lora is not None and config.lora.dora, "DoRA measures the weights themselves", "lora.dora: false"),
        (config.train.distributed == "fsdp2", "they are not sharded here", "train.distributed: ddp"),
    ):
        if wrong:
            raise ConfigError(what, where="model.quantize", remedy=remedy)


def _check_reference(config: RunConfig, method: Method) -> None:
    """Refuse another reference than the start where there is none, and what only that can give beforehand."""
    options = config.train
    if options.reference.kind == "frozen":
        return
    if options.reference.kind == "base" and config.model.init_from is None:
        what = "the run starts from the base, which is its frozen reference"
        raise ConfigError(what, where="train.reference.kind", remedy="frozen, or name a model.init_from")
    if not needs_reference(config, method) and options.reference_cache is None and options.trajectory_cache is None:
        what = f"objective {method.objective.name} is compared with no reference"
        raise ConfigError(what, where="train.reference.kind", remedy="frozen")
    for name in ("reference_cache", "trajectory_cache"):
        if getattr(options, name) is not None:
            what = "it holds what the start says, and the reference is another one"
            raise ConfigError(what, where=f"train.{name}", remedy="null, or train.reference.kind: frozen")
    if options.reference.moves and options.distributed == "fsdp2":
        what = "a sharded reference is not moved here"
        raise ConfigError(what, where="train.reference.kind", remedy="frozen, or train.distributed: ddp")


def _check_caches(config: RunConfig, method: Method) -> None:
    """Refuse caches of the reference that this method cannot use, and two caches in one folder."""
    _check_folders(config)
    needs, name = method.objective.needs, method.objective.name
    if config.train.trajectory_cache is not None and (method.inversion is None or method.inversion.network == "policy"):
        reason = f"{method.trajectory.name} calls no network" if method.inversion is None else "the policy inverts"
        what = f"only what the frozen reference inverts can be known beforehand; {reason}"
        raise ConfigError(what, where="train.trajectory_cache", remedy="null, or trajectory.network: reference")
    if config.train.reference_cache is not None:
        if not needs.paired:
            what = f"objective {name} takes no pairs, which the cache holds"
            raise ConfigError(what, where="train.reference_cache", remedy="null")
        if method.reference != "errors":
            reason = "needs no reference" if method.reference == "none" else "needs the reference's whole predictions"
            who = f"guard {config.guard.name}" if needs.reference != method.reference else f"objective {name}"
            raise ConfigError(f"{who} {reason}", where="train.reference_cache", remedy="null")
        if inverts(config, method):
            raise ConfigError(
                f"{method.trajectory.name} places pairs with a network, so the reference is asked at points that no "
                "cache knows",
                where="train.reference_cache",
                remedy="null, or keep the reference's inversions in train.trajectory_cache",
            )
        if method.share > 1:
            what = "it holds one level of a draw, and several share a trajectory"
            raise ConfigError(what, where="train.reference_cache", remedy="null, or trajectory.share: 1")


def _check_folders(config: RunConfig) -> None:
    folders = {
        "cache.folder": config.cache.folder,
        "train.reference_cache": config.train.reference_cache,
        "train.trajectory_cache": config.train.trajectory_cache,
    }
    named = [(key, Path(os.path.realpath(folder))) for key, folder in folders.items() if folder is not None]
    for (other, same), (key, place) in itertools.combinations(named, 2):
        if place == same:
            raise ConfigError(f"{other} is the same folder", where=key, remedy="give each a folder of its own")


def check_path(method: Method, path: NoisePath) -> None:
    """Refuse what a path cannot do.

    Raises:
        ConfigError: an official grid or fresh noise on a flow, a window without a level.
    """
    levels, inversion = method.levels, method.inversion
    if levels is not None and path.alpha_bar is not None:
        count = len(path.alpha_bar)
        if math.ceil(levels.high * count) <= math.ceil(levels.low * count):
            what = f"none of the path's {count} levels lies between {levels.low:g} and {levels.high:g}"
            raise ConfigError(what, where="train.levels", remedy="widen the window")
    if path.discrete or inversion is None:
        return
    if inversion.grid != "exact":
        raise ConfigError("official grids exist for discrete paths only", where="trajectory.grid", remedy="grid: exact")
    if inversion.eta > 0:
        raise ConfigError("eta is a DDPM noise level", where="trajectory.eta", remedy="use eta: 0 with a flow")
