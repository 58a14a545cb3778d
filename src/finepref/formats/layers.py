"""Layers of a run config: YAML files one over the other, every value with the layer, the line and the source it has.

A layer holds sections (`train: {...}`) and parts (`on_sdxl: {train: {...}}`), sections that count on some bases only. A
base layer says in `about.parts` which parts count on it (`[real, sdxl]`). `about` also says what a method is, how a
data set is got, and `like: NAME`, the layer of its kind that lies below. Shipped ones write {base}, {data} in a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finepref.core.errors import ConfigError, nearest
from finepref.core.files import reading
from finepref.core.progress import say
from finepref.formats.yamltext import plain, yaml_node

SHIPPED = Path(__file__).resolve().parents[1] / "configs"
KINDS = ("base", "data", "method", "recipe", "card")
FLOW = "flow"
COMMAND_LINE = "command line"
MOST = 10_000  # settings of a layer
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """One value: node as written, value as YAML has it, the layer, its place for errors, the comment beside it."""

    node: yaml.Node
    value: Any
    layer: str
    place: str
    source: str = ""


Settings = dict[Key, Setting]


class About(BaseModel):
    """What a layer says of itself; notes add up over layers, everything else is that of the last one that says it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parts: tuple[str, ...] = Field((), description="base: the parts of other layers that count on it")
    launch: str = Field("finepref", description="base: how a training is started")
    get: tuple[str, ...] = Field((), description="data: commands that get the data set")
    like: str = Field("", description="the layer of its kind that lies below it")
    bases: tuple[str, ...] = Field((), description="method: parts of the bases that it is for; none: every base")
    source: str = Field("", description="method: paper and equation, `code only` where the formula was read in code")
    deviations: str = Field("", description="method: where it differs from that")
    golden: tuple[str, ...] = Field((), description="method: golden files that hold its numbers")
    recipe: str = Field("", description="method: what must come before, if anything")
    signal: tuple[str, ...] = Field((), description="method: kinds of `finepref signals`; none: the votes alone")
    options: dict[str, float | str] = Field({}, description="method: options of its signal")
    scorer: str = Field("", description="method: the scorer whose rewards its signal reads")
    extremes: tuple[str, ...] = Field((), description="data: scorers that have official extremes on it")
    notes: tuple[str, ...] = Field((), description="what belongs to no value")

    def under(self, upper: About) -> About:
        """The two laid over each other."""
        return self.model_copy(update={name: getattr(upper, name) for name in upper.model_fields_set})


@dataclass(frozen=True, slots=True)
class Layer:
    """One file. parts: name of a part -> its settings; under "" those that always count."""

    name: str
    about: About
    parts: Mapping[str, Settings]

    @property
    def kind(self) -> str:
        """base, method, data, or nothing of these: what the layer gives."""
        if self.about.parts:
            return "base"
        if self.about.source:
            return "method"
        return "data" if ("data", "paths") in self.parts[""] else ""


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers one over the other: every setting that counts, what the layers say of themselves, names by kind."""

    layers: tuple[str, ...] = ()
    settings: Settings = field(default_factory=dict)
    about: About = field(default_factory=About)
    names: Mapping[str, str] = field(default_factory=dict)


def stack(names: Sequence[str | Path], overrides: Sequence[str] = (), *, where: str = COMMAND_LINE) -> Stack:
    """Lay layers over each other, later ones above, then `section.key=value`. where: who says the latter.

    Raises:
        ConfigError: no such layer, not a layer, a method on a base it is not for, two bases or methods.
    """
    found = Stack()
    for path in [path for name in names for path in find(name)]:
        found = _over(found, path)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not all(key.split(".")):
            reason, remedy = f"{override!r} is not of the form section.key=value", "write e.g. train.learning_rate=1e-5"
            remedy = f"write -c {override}" if not equals and _is_layer(override) else remedy
            raise ConfigError(reason, where=where, remedy=remedy)
        if key != key.strip():
            what, remedy = f"{override!r} has blanks around its =", f"write {key.strip()}={text.strip()}"
            raise ConfigError(what, where=where, remedy=remedy)
        place = tuple(key.split("."))
        for old in [old for old in found.settings if old[: len(place)] == place]:  # a section is given as a whole
            del found.settings[old]
        node = yaml_node(text, where=f"{where}, {key}", error=ConfigError)
        for each, setting in _settings(node, where, text.splitlines()):
            _put(found.settings, (*place, *each), replace(setting, place=where))
    _keep_own_vae(found.settings)
    return replace(found, settings={key: _named(key, each, found.names) for key, each in found.settings.items()})


def _keep_own_vae(settings: Settings) -> None:
    """A VAE that a shipped layer names is for the base that is shipped with it; a person's own base keeps its own."""
    base, vae, shipped = settings.get(("model", "base")), settings.get(("model", "vae")), shipped_layers()
    if base and vae and vae.value is not None and vae.layer in shipped and base.layer not in shipped:
        del settings["model", "vae"]
        say(f"the VAE of {base.value} is used, not {vae.value} of {vae.layer} (to use that, set model.vae)")


def find(name: str | Path) -> list[Path]:
    """The files of a layer: one of the user's own, or the shipped ones that the parts of a name stand for.

    Raises:
        ConfigError: there is none, with the nearest name.
    """
    path = Path(name)
    if path.is_file() or path.is_absolute():
        return [path]
    shipped, text = shipped_layers(), path.as_posix().removesuffix(".yaml")
    if text in shipped:
        return [shipped[text]]
    found = {part: [shipped[each] for each in shipped if each.endswith(f"/{part}")] for part in text.split("/")}
    for part, paths in found.items():
        if not paths and path.is_dir():
            return [path]  # which the reader refuses
        if not paths:
            known = dict.fromkeys(each.stem for each in shipped.values())
            whole = ["/".join(each if one == part else one for one in found) for each in known]
            raise ConfigError("no such config file or layer", where=name, remedy=nearest(text, whole))
    return [path for paths in found.values() for path in paths]


def _is_layer(name: str) -> bool:
    try:
        return bool(find(name))
    except ConfigError:
        return False


@cache
def shipped_layers() -> dict[str, Path]:
    """The shipped layers by name: `base/sd15`, `method/arenapo`."""
    return {f"{kind}/{path.stem}": path for kind in KINDS for path in sorted((SHIPPED / kind).glob("*.yaml"))}


def shipped_names(kind: str) -> list[str]:
    """The names of the shipped layers of a kind."""
    return [path.stem for name, path in shipped_layers().items() if name.startswith(f"{kind}/")]


@cache
def shipped_configs() -> tuple[str, ...]:
    """Every `base/data/method` that is for each other; one name stands for a base and the data set of that name.

    Flow models are not among the bases: hardly anything is published on them, their layers are for people's own data.
    """
    bases = [name for name in shipped_names("base") if FLOW not in _parts(name)]
    data_sets, found = shipped_names("data"), []
    for base, data, method in product(bases, data_sets, shipped_names("method")):
        fits = data == base if base in data_sets else data not in bases
        about = about_method(method)
        if fits and _is_for(about, _parts(base)):
            found.append(f"{base}/{method}" if data == base else f"{base}/{data}/{method}")
    return tuple(found)


def about_method(name: str) -> About:
    """What a shipped method says of itself, and the methods below it."""
    return _merged(_chain(shipped_layers()[f"method/{name}"]))


def read_layer(path: Path) -> Layer:
    """One file as a layer; equal texts are parsed once.

    Raises:
        ConfigError: no such file, not YAML, not a mapping, a key twice, an unknown key of `about`.
    """
    with reading(path, "a readable config", missing="name a config file or layer", error=ConfigError):
        text = path.read_text(encoding="utf-8-sig")
    shipped = path.is_relative_to(SHIPPED)
    return _parse(text, path.relative_to(SHIPPED).with_suffix("").as_posix() if shipped else str(path))


def _chain(path: Path) -> list[Layer]:
    """A layer, and below it those that it is like."""
    layer = read_layer(path)
    like, known = layer.about.like, shipped_layers()
    kind = layer.name.partition("/")[0] if layer.name in known else "method"
    if like and f"{kind}/{like}" not in known:
        raise ConfigError(f"no {kind} {like!r}", where=layer.name, remedy=nearest(like, shipped_names(kind)))
    return [*(_chain(known[f"{kind}/{like}"]) if like else []), layer]


def _merged(chain: Sequence[Layer]) -> About:
    return reduce(About.under, (layer.about for layer in chain), About())


def _parts(base: str) -> tuple[str, ...]:
    return read_layer(shipped_layers()[f"base/{base}"]).about.parts


def _is_for(about: About, parts: Sequence[str]) -> bool:
    return not about.bases or bool({*about.bases} & {*parts})


@cache
def _parse(text: str, name: str) -> Layer:
    node = yaml_node(text, where=name, error=ConfigError)
    if not isinstance(node, yaml.MappingNode) or not node.value:
        raise ConfigError("the config is not a mapping of sections", where=name, remedy="start with `model:`")
    parts: dict[str, Settings] = {"": {}}
    for key, setting in _settings(node, name, text.splitlines()):
        inside = key[0].startswith("on_")
        if inside and len(key) == 1:
            reason = f"{key[0]} is not a mapping of sections"
            raise ConfigError(reason, where=setting.place, remedy="write sections below it, or leave it out")
        if key[0] != "about":
            parts.setdefault(key[0][3:] if inside else "", {})[key[1:] if inside else key] = setting
    try:
        about = About.model_validate(plain(node).get("about", {}))
    except ValidationError as error:
        first, word = error.errors()[0], ".".join(map(str, error.errors()[0]["loc"]))
        raise ConfigError(
            f"about.{word}: {first['msg']}", where=name, remedy=nearest(word, About.model_fields)
        ) from None
    return Layer(name, about, parts)


def _settings(node: yaml.Node, layer: str, lines: Sequence[str], key: Key = ()) -> Iterator[tuple[Key, Setting]]:
    """(key, setting) of every leaf: what is no mapping, or an empty one."""
    if not isinstance(node, yaml.MappingNode) or not node.value:
        end = node.end_mark if not isinstance(node, yaml.CollectionNode) or node.flow_style else node.start_mark
        line = 0 if end is None else end.line
        yield key, Setting(node, plain(node), layer, f"{layer}, line {line + 1}", _comment(node, lines))
        return
    yaml.constructor.SafeConstructor().flatten_mapping(node)
    seen: set[str] = set()
    for word, value in node.value:
        name = str(word.value)
        if name in seen:
            raise ConfigError(f"{'.'.join((*key, name))} stands twice", where=layer, remedy="keep one")
        seen.add(name)
        yield from _settings(value, layer, lines, (*key, name))


def _comment(node: yaml.Node, lines: Sequence[str]) -> str:
    """The comment beside a value, and its lines below, which stand deeper than the value's key."""
    end = node.end_mark
    if end is None or end.line >= len(lines):
        return ""
    _, sign, words = lines[end.line][end.column :].partition("#")
    depth = len(lines[end.line]) - len(lines[end.line].lstrip())
    for line in lines[end.line + 1 :]:
        bare = line.lstrip()
        if not sign or not bare.startswith("#") or len(line) - len(bare) <= depth:
            break
        words += " " + bare.lstrip("# ")
    return words.strip()


def _put(settings: Settings, key: Key, setting: Setting) -> None:
    """Set a key; what lies below it, or was no mapping above it, goes."""
    for old in [old for old in settings if old[: len(key)] == key or key[: len(old)] == old]:
        del settings[old]
    settings[key] = setting


def _over(below: Stack, path: Path) -> Stack:
    """A layer, and those that it is like, over a stack."""
    chain = _chain(path)
    layer, name, settings = chain[-1], path.stem, dict(below.settings)
    if layer.kind in ("base", "method") and layer.kind in below.names:
        other = below.names[layer.kind]
        raise ConfigError(f"{other} is a {layer.kind} layer too", where=layer.name, remedy="name one of the two")
    own = _merged(chain)
    about = below.about.under(own)
    known = {"", *about.parts, *(part for base in shipped_names("base") for part in _parts(base))}
    for part in [part for each in chain for part in each.parts if part not in known]:
        raise ConfigError(f"no base has the part 'on_{part}'", where=layer.name, remedy=nearest(part, known - {""}))
    if not about.parts and any(len(each.parts) > 1 for each in chain):
        bases = ", ".join(shipped_names("base"))
        reason = "its values depend on the base, and no base layer stands before it"
        raise ConfigError(reason, where=layer.name, remedy=f"name one before it: {bases}")
    if not _is_for(about, about.parts):
        raise ConfigError(f"it is for {', '.join(about.bases)} only", where=layer.name, remedy="name another method")
    for each in chain:
        for part in ("", *about.parts):
            for key, setting in each.parts.get(part, {}).items():
                _put(settings, key, setting)
    about = about.model_copy(update={"notes": (*below.about.notes, *own.notes)})
    names = {**below.names, layer.kind: name} if layer.kind else below.names
    return Stack((*below.layers, layer.name), settings, about, names)


def _named(key: Key, setting: Setting, names: Mapping[str, str]) -> Setting:
    """A shipped setting with the names of base and data in it."""
    if setting.layer not in shipped_layers() or not isinstance(setting.value, str):
        return setting
    for kind in {*re.findall(r"\{(\w+)\}", setting.value)} - {*names}:
        reason = f"{'.'.join(key)} is called after the {kind} layer, and none is named"
        remedy = f"name one of {', '.join(shipped_names(kind))}, a file of your own, or set {'.'.join(key)}"
        raise ConfigError(reason, where=setting.layer, remedy=remedy)
    text = setting.value.format(**names)
    return replace(setting, value=text, node=yaml.ScalarNode("tag:yaml.org,2002:str", text))
