"""What can be trained: the shipped method layers as a table, and the commands of a run in order.

A method is nothing but its axes, published points of signal x trajectory x objective x guard and a few that nobody
published: every row is a layer, no code knows these names.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from finepref.core.errors import ConfigError, nearest
from finepref.core.rows import named_plugins
from finepref.formats.layers import About, Stack, about_method, shipped_configs, shipped_names
from finepref.objectives.table import GUARDS, OBJECTIVES
from finepref.signals.kinds import SIGNALS
from finepref.train.config import DEFINING, RunConfig, load_config

REWARD_WINS = frozenset({"smoothed", "relabel"})
OF_IMAGES = frozenset({"image", "fused", "posterior"})  # from batch ratings, which have no order


@dataclass(frozen=True, slots=True)
class NamedMethod:
    """One method: what its layer says, and its axes, with their options, on the first base that it is for.

    also: what else it sets that makes it what it is (`DEFINING`, `data.list_size`), by key.
    """

    name: str
    about: About
    configs: tuple[str, ...]
    axes: Mapping[str, Mapping[str, Any]]
    also: Mapping[str, Any]

    @property
    def lab_config(self) -> str | None:
        """The config that trains it on the lab world."""
        return next((name for name in self.configs if name.startswith("lab/")), None)

    def needs(self) -> dict[str, Any]:
        """paired; reference none|errors|tensors; labels, reward, arena: whether votes, scores, ratings are needed."""
        needs, kinds = OBJECTIVES[self.axes["objective"]["name"]].needs, {*self.about.signal}
        guard = GUARDS[self.axes["guard"]["name"]]
        return {
            "paired": needs.paired,
            "reference": "tensors" if guard.tensors else needs.reference,
            "labels": not kinds & REWARD_WINS,
            "reward": "rewards" in wanted_by(kinds),
            "arena": "ratings" in wanted_by(kinds),
        }

    @property
    def listed(self) -> bool:
        """Whether it takes lists of a prompt's images."""
        return OBJECTIVES[self.axes["objective"]["name"]].needs.listed

    def as_dict(self) -> dict[str, Any]:
        """Everything a table shows, as plain data."""
        about = self.about
        return {
            "name": self.name,
            "signal": {"kinds": list(about.signal) or ["binary"], **about.options},
            **self.axes,
            **({"also sets": dict(self.also)} if self.also else {}),
            "needs": self.needs(),
            **{key: getattr(about, key) for key in ("source", "deviations", "recipe")},
            "configs": list(self.configs),
            "lab_config": self.lab_config,
            "golden": list(about.golden),
        }


def wanted_by(kinds: Iterable[str]) -> frozenset[str]:
    """What these kinds of signal need or take beside the votes: ratings, rewards."""
    return frozenset(need for kind in kinds for need in (*SIGNALS[kind].needs, *SIGNALS[kind].takes))


@cache
def shipped() -> tuple[NamedMethod, ...]:
    """Every shipped method."""
    return tuple(map(get, shipped_names("method")))


@cache
def get(name: str) -> NamedMethod:
    """The method of that name.

    Raises:
        ConfigError: an unknown name, with the nearest valid one.
    """
    if name not in shipped_names("method"):
        if name in OBJECTIVES:
            remedy = f"train it with objective.name={name}"
            raise ConfigError(f"{name} is an objective, not a method", where="method", remedy=remedy)
        raise ConfigError(f"unknown method {name!r}", where="method", remedy=nearest(name, shipped_names("method")))
    configs = tuple(each for each in shipped_configs() if each.endswith(f"/{name}"))
    config = load_config(next((each for each in configs if not each.startswith("lab/")), configs[0]))
    sections = {"trajectory": config.trajectory, "objective": config.objective, "guard": config.guard}
    axes = {axis: {"name": section.name, **section.options()} for axis, section in sections.items()}
    held = config.as_dict()
    keys = [key for key in (*DEFINING, ("data", "list_size")) if key[1] != "name" and config.origin(*key) != "default"]
    also = {".".join(key): _told(held[key[0]][key[1]]) for key in keys}
    return NamedMethod(name, about_method(name), configs, axes, also)


def _told(value: Any) -> Any:
    """A value without what it leaves open."""
    return {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else value


def commands(found: Stack, config: RunConfig, *, layers: Sequence[str], overrides: Sequence[str] = ()) -> list[str]:
    """The commands of a run in order: data set, arena, rewards, signals, the run it starts from, cache, training."""
    about, file = found.about, config.signal.file
    names = [found.names[kind] for kind in ("base", "data", "method") if kind in found.names]
    alone = names[:1] == names[1:2]  # a base with a data set of its own name
    prefix = "" if alone or "data" not in found.names else f"{found.names['data']}-"
    votes, kinds, words, lines = shlex.join(config.data.paths), {*about.signal}, "", list(about.get)
    images = "" if config.data.images is None else f" --images {shlex.quote(config.data.images)}"
    if file is not None and "ratings" in wanted_by(kinds):
        engine, folder = ("batch", f"{prefix}arena-batch") if kinds & OF_IMAGES else ("online", f"{prefix}arena")
        lines.append(f"finepref arena {votes} --engine {engine} --out {folder}")
        words += f" --arena {folder}"
    if file is not None and "rewards" in wanted_by(kinds):
        scorer = "lab-reward" if alone else about.scorer
        lines.append(f"finepref score {votes}{images} --scorer {scorer} --out {prefix}rewards-{scorer}.parquet")
        words += f" --rewards {prefix}rewards-{scorer}.parquet"
    if file is not None and kinds:
        official = about.scorer in about.extremes
        given = {key: value for key, value in about.options.items() if key != "extremes" or official}
        words += "".join(
            f" --{key} {value if isinstance(value, str) else f'{value:g}'}" for key, value in given.items()
        )
        kind = "".join(f" --kind {kind}" for kind in about.signal)
        lines.append(f"finepref signals {votes}{images}{kind}{words} --out {shlex.quote(file)}")
    start = found.settings.get(("model", "init_from"))
    if start is not None and start.layer.startswith("method/"):
        lines.append(f"{about.launch} train -c {'/'.join(names[:-1])}/sft --out {start.value}")
    plugins = (word for name in named_plugins() for word in ("--plugin", name))
    run = shlex.join([*(word for layer in layers for word in ("-c", layer)), *overrides, *plugins])
    lines.append(f"finepref cache {run}")
    lines.append(f"{about.launch} train {run} --out runs/{'-'.join(names[2 * alone :]) or 'run'}")
    return lines
