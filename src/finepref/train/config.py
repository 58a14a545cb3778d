"""Every option of a run, described beside the field, validated when it is read.

A config is layers of YAML (`formats/layers.py`). Unknown keys are errors with the nearest name. The options of a
trajectory, an objective or a guard belong to its row in the table of that axis and are validated by the row.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from finepref.core.device import Precision
from finepref.core.errors import ConfigError, cut, nearest
from finepref.core.options import Options, told
from finepref.formats.layers import COMMAND_LINE, Stack, shipped_layers, stack
from finepref.formats.reading import Reading
from finepref.formats.yamltext import plain
from finepref.models.lora import LoraSettings
from finepref.models.section import ModelSection
from finepref.train.train_section import Count, Positive, TrainSection

LINE: Any = {"width": math.inf, "allow_unicode": True}
DEFINING = (
    *(("objective", "name"), ("trajectory", "name"), ("guard", "name"), ("signal", "swap")),
    *(("train", "reference"), ("train", "levels")),
)
"""Keys without whose values a run is not what its method's name says."""
Valid = TypeVar("Valid", bound=BaseModel)
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Axis(BaseModel):
    """A named row of one axis; its other keys are the row's own options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    def options(self) -> dict[str, Any]:
        """The row's own options, as given."""
        declared = set(type(self).model_fields)
        return {key: value for key, value in self.model_dump().items() if key not in declared}


class DataSection(Options):
    """Which preferences are read, and how images become tensors."""

    paths: list[str] = told([], "files or folders of preferences")
    format: str = told("auto", "auto | pickapic | hpdv2 | hpdv3 | imagereward | chosen_rejected | imagefolder | votes")
    columns: dict[str, str] = told({}, "the format's name of a column: the table's")
    outcomes: dict[str, str] = told({}, "outcome word: left | right | tie | both_bad | none, for words of your own")
    encoding: str | None = told(None, "of text files; null = utf-8")
    split: str | None = told(None, "of a folder that holds several, such as train")
    question: str | None = told(None, "whose votes are read, where several were asked")
    images: str | None = told(None, "folder where image paths start and that they stay in; null = each table's own")
    resolution: Positive = told(512, "pixels; short side resized to it, then centre crop")
    buckets: bool = told(False, "keep pictures that are no squares whole: train at shapes of about resolution squared")
    flip: bool = told(False, "horizontal flip with probability 1/2, drawn for winner and loser separately (official)")
    prompt_dropout: Share = told(0.2, "share of draws with the empty prompt, one draw per pair (official 0.2)")
    desirable_share: Share | None = told(None, "KTO: share of desirable images among draws; null = 0.8")
    validation_share: float = told(
        0.0, "share of the pairs, whole prompts of them, that is not trained on and looked at instead", ge=0.0, le=0.5
    )
    list_size: int | None = told(None, "listwise objectives: images of a list; null = 4", ge=2)

    def reading(self) -> Reading:
        """How the tables are read."""
        return Reading(
            format=self.format, columns=self.columns, outcomes=self.outcomes, encoding=self.encoding, split=self.split,
            question=self.question, images=self.images,
        )  # fmt: skip


class CacheSection(Options):
    """Where latents and text embeddings are kept, and how they are made."""

    folder: str | None = told(None, "cache folder; null = <run folder>/cache")
    online: bool = told(False, "true = nothing is kept: images and prompts are encoded whenever they are drawn")
    mixed_precision: Precision = told("no", "of the VAE and the text encoders")
    posterior: Literal["mode", "mean_std"] = told(
        "mean_std", "mode: one latent; mean_std: drawn at every visit (official)"
    )
    dtype: Literal["float16", "float32", "bfloat16"] = told("float16", "storage type of the shards")
    shard_size: Positive = told(4096, "images a shard")
    batch_size: Positive = told(32, "images (or prompts) encoded at once")
    offload: bool = told(False, "true = the VAE is gone before the text encoders are read: less memory, equal numbers")


class SignalSection(Options):
    """What the offline signal contributes."""

    file: str | None = told(None, "signals.parquet; null = the votes alone (winner, weight 1, margin 0)")
    margin_scale: float = told(1.0, "lambda: the margin that enters the logit is lambda * gap")
    swap: bool = told(False, "train on losers as winners, for a network to be guided away from (Diffusion-NPO)")


class ObjectiveSection(Axis):
    """How errors become a loss; further keys are the objective's own (`finepref methods` lists them)."""

    name: str = told("dpo", "row of the table of objectives")
    loss_space: Literal["native", "epsilon", "x0"] = told("native", "errors of the network's target, the noise, or x0")


class TrajectorySection(Axis):
    """Where a pair is looked at."""

    name: str = told("forward", "row of the table of trajectories")


class GuardSection(Axis):
    """What a gradient may not do."""

    name: str = told("none", "row of the table of guards")


class ValidationSection(Options):
    """What is looked at while the run goes on: images of a few prompts, and pairs that it does not train on."""

    prompts: list[str] = told([], "prompts to sample; none = no samples")
    seeds: list[int] = told([0], "images a prompt, one a seed")
    every: Count = told(0, "optimiser steps; 0 = no samples, and held-out pairs at the start and the end alone")
    pairs: list[str] = told([], "files or folders of held-out pairs; none = those of data.validation_share")
    draws: Positive = told(8, "levels of noise, and noises, at which every held-out pair is looked at")
    steps: Positive = told(25, "sampler steps")
    guidance: float = told(7.5, "classifier-free guidance")


class LogSection(Options):
    """What is written while the run goes on."""

    trackers: list[str] = told([], "tensorboard | wandb | trackio; metrics.jsonl is always written")
    t_buckets: Positive = told(4, "how many ranges of t the statistics are split into")


class RunConfig(Options):
    """One run. `load_config` reads it from layers of YAML."""

    model: ModelSection
    data: DataSection = DataSection()
    cache: CacheSection = CacheSection()
    signal: SignalSection = SignalSection()
    trajectory: TrajectorySection = TrajectorySection()
    objective: ObjectiveSection = ObjectiveSection()
    guard: GuardSection = GuardSection()
    lora: LoraSettings | None = None
    train: TrainSection = TrainSection()
    validation: ValidationSection = ValidationSection()
    log: LogSection = LogSection()
    _origins: dict[tuple[str, ...], str] = PrivateAttr(default_factory=dict)
    _method: str = PrivateAttr("")

    def __eq__(self, other: object) -> bool:
        """Equal values; where they came from does not count."""
        return isinstance(other, RunConfig) and self.as_dict() == other.as_dict()

    def origin(self, *key: str) -> str:
        """The layer that a value came from: its name, `command line`, or `default`."""
        found = (layer for place, layer in self._origins.items() if place[: len(key)] == key[: len(place)])
        return next(found, "default")

    @property
    def method(self) -> str:
        """The name of its method layer, with what else than its own was set; without one its axes, as far as they say
        something.
        """
        axes = (self.trajectory.name, self.objective.name, self.guard.name)
        named = self._method or "+".join(name for name in axes if name not in ("forward", "none"))
        values = self.as_dict()
        own = [(key, values[key[0]][key[1]]) for key in DEFINING if self._method and not self._is_shipped(*key)]
        return ", ".join([named, *(f"{'.'.join(key)}={_short(value)}" for key, value in own)])

    def _is_shipped(self, *key: str) -> bool:
        origins = {layer for place, layer in self._origins.items() if place[: len(key)] == key[: len(place)]}
        return origins <= shipped_layers().keys()

    def as_dict(self) -> dict[str, Any]:
        """The resolved config as plain data, for config.yaml and its hash."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The resolved config with the layer of each value beside it; it can be read again as a layer."""
        lines = []
        for section, values in self.as_dict().items():
            body = {(section, key): value for key, value in values.items()} if values else {(section,): values}
            lines += [f"{section}:"] if values else []
            for key, value in body.items():
                flow = isinstance(value, list | dict)
                text = yaml.safe_dump(value if flow else {key[-1]: value}, default_flow_style=flow, **LINE)
                text = f"{key[-1]}: {text}" if flow else text
                lines.append(f"{'  ' * (len(key) - 1)}{text.rstrip()}  # {self.origin(*key)}")
        return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    """A value as YAML of one line, defaults left out."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {each}" for key, each in value.items() if each is not None) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def load_config(
    layers: str | Path | Sequence[str | Path], overrides: Sequence[str] = (), *, where: str = COMMAND_LINE
) -> RunConfig:
    """Read the layers of a run, later ones over earlier ones, then `section.key=value` (values are YAML).

    where: who says the latter, for errors and origins.

    Raises:
        ConfigError: no such layer, not a mapping, an unknown key, a wrong value, an override without `=`.
    """
    return resolve(stack([layers] if isinstance(layers, str | Path) else layers, overrides, where=where))


def resolve(found: Stack) -> RunConfig:
    """The config that layers make; it knows which layer each value came from."""
    data: dict[str, Any] = {}
    for (*sections, leaf), setting in found.settings.items():
        inner = data
        for part in sections:
            inner = inner.setdefault(part, {})
        inner[leaf] = _meant(setting.node, _members((*sections, leaf)))
    places = {key: setting.place for key, setting in found.settings.items()}
    config = parse_config(data, where=places, whole=", ".join(found.layers) or "config")
    config._origins.update({key: setting.layer for key, setting in found.settings.items()})
    config._method = found.names.get("method", "")
    return config


def parse_config(
    data: Mapping[str, Any], *, where: Mapping[tuple[str, ...], str] | None = None, whole: object = "config"
) -> RunConfig:
    """Validate plain data as a run config; every error names its key, and where that stands (else: whole)."""
    try:
        return RunConfig.model_validate(dict(data))
    except ValidationError as error:
        loc = tuple(str(part) for part in error.errors()[0]["loc"])
        found = next((place for key, place in (where or {}).items() if loc[: len(key)] == key[: len(loc)]), whole)
        raise _sentence(error, found) from None


def validate_options(
    options: type[Valid], given: Mapping[str, Any], *, where: str | Callable[[str], str], above: str = ""
) -> Valid:
    """Validate options of their own against their model; every error names its key.

    where: a place, or key -> its place. above: what stands before the key.
    """
    try:
        return options.model_validate(dict(given))
    except ValidationError as error:
        place = where if isinstance(where, str) else where(str(error.errors()[0]["loc"][0]))
        raise _sentence(error, place, options, above=above) from None


def axis_options(config: RunConfig, axis: str, options: type[BaseModel]) -> BaseModel:
    """The options that the row of an axis is given, each error with the layer that it stands in."""
    section: Axis = getattr(config, axis)
    place = functools.partial(config.origin, axis)
    return validate_options(options, section.options(), where=place, above=f"{axis}.")


def section_of(name: str) -> type[BaseModel]:
    """The model of a section."""
    return next(each for each in _members((name,)) if hasattr(each, "model_fields"))


def _members(place: Sequence[Any], model: type[BaseModel] = RunConfig) -> list[Any]:
    """The types that a key may have; empty where nothing is known of it."""
    found: list[Any] = [model]
    for part in place:
        inner: list[Any] = []
        for each in found:
            if isinstance(each, type) and issubclass(each, BaseModel):
                inner += [each.model_fields[part].annotation] if part in each.model_fields else []
            elif get_origin(each) is dict:
                inner.append(get_args(each)[1])
        found = [member for each in inner for member in _alternatives(each)]
    return found


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [member for each in get_args(annotation) for member in _alternatives(each)]
    return [annotation]


def _meant(node: yaml.Node, members: Sequence[Any]) -> Any:
    """A YAML value as a person means it: one item is a list of one; where words are wanted, `no` and 1e4 are words."""
    value = plain(node)
    items = [_alternatives(get_args(each)[0]) for each in members if get_origin(each) is list]
    if items and isinstance(node, yaml.SequenceNode):
        return [_meant(child, items[0]) for child in node.value]
    if not isinstance(node, yaml.ScalarNode) or value is None or isinstance(value, str):
        return [value] if items and isinstance(value, str) else value
    if items:
        return [_meant(node, items[0])]
    words = any(each is str or get_origin(each) is Literal for each in members)
    return node.value if words and type(value) not in members else value


def _known(model: type[BaseModel], place: Sequence[Any]) -> list[str]:
    return [name for each in _members(place, model) if hasattr(each, "model_fields") for name in each.model_fields]


def _sentence(
    error: ValidationError, where: object, model: type[BaseModel] = RunConfig, *, above: str = ""
) -> ConfigError:
    first = error.errors()[0]
    place, whole = first["loc"], above + ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known = _known(model, place[:-1])
        remedy = nearest(str(place[-1]), known) if known else "it takes no options"
        return ConfigError(f"unknown key {whole!r}", where=where, remedy=remedy)
    if first["type"] == "missing":
        return ConfigError(f"{whole} is missing", where=where, remedy="add it")
    field = _field(model, place)  # without the names of a union's members
    if first["type"] in ("model_type", "dict_type"):
        name = ".".join(map(str, field))
        what = f"{name} is empty" if first["input"] is None else f"{name} = {repr(first['input'])[:60]} is no mapping"
        remedy = f"write `key: value` lines below `{name}:`, or leave it out"
        raise ConfigError(what, where=where, remedy=remedy) from None
    about = [each["msg"] for each in error.errors() if _field(model, each["loc"]) == field]
    reasons = [each.removeprefix("Value error, ") for each in about]
    key = above + ".".join(map(str, field))
    if not key:
        return ConfigError(" or ".join(reasons), where=where, remedy="correct it there")
    return ConfigError(f"{key} = {cut(repr(first['input']))} is not possible", where=where, remedy=" or ".join(reasons))


def _field(model: type[BaseModel], place: Sequence[Any]) -> list[Any]:
    known = [isinstance(part, int) or part in _known(model, place[:at]) for at, part in enumerate(place)]
    return list(place[: known.index(False)] if False in known else place)
