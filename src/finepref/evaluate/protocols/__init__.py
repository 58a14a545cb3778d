"""Evaluation protocols by name: prompt sets, seeds, sampling and scorers that belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from finepref.core.errors import InputError, nearest
from finepref.evaluate.sampling import Noise
from finepref.formats.records import as_record

FOLDER = "finepref.evaluate.protocols"
FAMILIES = {"StableDiffusionPipeline": "sd15", "StableDiffusionXLPipeline": "sdxl"}


@dataclass(frozen=True, slots=True)
class Protocol:
    """What a protocol fixes.

    guidance, size: by model family. scorers: specs for `finepref score`. statistic: mean or median, what its tables
    print. scale: factors of its tables. papers: whose tables are made this way. deviations: what is not exactly so.
    """

    name: str
    about: str
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    scheduler: str | None
    steps: int
    guidance: Mapping[str, float]
    size: Mapping[str, tuple[int, int]]
    negative_prompt: str | None
    noise: Noise
    scorers: tuple[str, ...]
    statistic: str
    scale: Mapping[str, float]
    papers: tuple[str, ...]
    deviations: tuple[str, ...]

    def sampling(self, family: str) -> dict[str, Any]:
        """Keyword arguments of `generate` for a model family.

        Raises:
            InputError: the protocol says nothing about this family.
        """
        if family not in self.guidance:
            what = f"protocol {self.name} has no settings for {family or 'this pipeline'}"
            raise InputError(what, where="protocol", remedy="use it with " + " or ".join(self.guidance))
        same = {name: getattr(self, name) for name in ("steps", "scheduler", "negative_prompt", "noise")}
        return {**same, "guidance": self.guidance[family], "size": self.size[family], "protocol": self.name}


def names() -> list[str]:
    """Names of the protocols."""
    return sorted(entry.name[:-5] for entry in resources.files(FOLDER).iterdir() if entry.name.endswith(".yaml"))


def load_protocol(name: str) -> Protocol:
    """A protocol by name.

    Raises:
        InputError: an unknown name.
    """
    if name not in names():
        raise InputError(f"unknown protocol '{name}'", where="protocol", remedy=nearest(name, names()))
    found = yaml.safe_load((resources.files(FOLDER) / f"{name}.yaml").read_text(encoding="utf-8"))
    return as_record(Protocol, {"name": name, **found}, where=f"{name}.yaml", remedy="install finepref again")


def family_of(pipelines: Mapping[str, str]) -> str:
    """The one family of these models (name -> diffusers class or family name).

    Raises:
        InputError: they are of several families, which one protocol run cannot serve.
    """
    families = {name: FAMILIES.get(kind, kind) for name, kind in pipelines.items()}
    if len(set(families.values())) > 1:
        listed = ", ".join(f"{name} is {family or 'unknown'}" for name, family in families.items())
        raise InputError(f"models of several families: {listed}", where="protocol", remedy="run each family alone")
    return next(iter(families.values()), "")


def choose_prompts(protocol: Protocol, given: Sequence[str]) -> list[str]:
    """The prompt sets to load: the protocol's, each from the file given as NAME=FILE, else from the hub.

    Where some sets are given, only those are used. A set that the protocol does not have is an `InputError`.
    """
    for word in given:
        if word.partition("=")[0] not in protocol.prompts:
            remedy = "give " + ", ".join(f"{name}=FILE" for name in protocol.prompts)
            raise InputError(f"'{word}' is no prompt set of {protocol.name}", where="prompts", remedy=remedy)
    return list(given) or list(protocol.prompts)


def choose_scorers(protocol: Protocol, given: Sequence[str]) -> list[str]:
    """The scorers to use: the protocol's, each from local weights where given as NAME@PATH; others come after."""
    local = {word.partition("@")[0]: word for word in given}
    chosen = [local.pop(spec, spec) for spec in protocol.scorers]
    return chosen + list(local.values())
