"""What a run folder says of the models that it was made from: its base, how that is read, its VAE and its starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError, cut
from finepref.core.files import read_object
from finepref.core.progress import say
from finepref.core.provenance import hash_config, sha256_file, sha256_folder
from finepref.formats.records import read_yaml
from finepref.formats.run import at_step, read_run
from finepref.models.source import BaseOptions, Source, applicable
from finepref.models.variant import is_read

NAMES = ("base", "init_from", "vae", "config")
"""Keys of the section `model` that name something which is read."""


def run_model_settings(run: str | Path) -> Mapping[str, Any]:
    """The `model` section of a run folder's config.yaml; empty for a folder that another tool made.

    Raises:
        InputError: a name in it is no text, or empty.
    """
    file = Path(at_step(run)) / "config.yaml"
    if not os.path.isfile(file):
        return {}
    section = read_yaml(file, remedy="give the folder of a run").get("model")
    section = section if isinstance(section, Mapping) else {}
    for key in (*NAMES, *BaseOptions.__annotations__):
        value = section.get(key)
        if value is not None and not (isinstance(value, str) and value):
            what = f"model.{key} is {cut(repr(value))}, where a name is wanted"
            raise InputError(what, where=file, remedy="write what it was, or null")
    return section


def say_unless_losers(run: str | Path) -> None:
    """Say that a run, which guidance is to lead away from, was not trained on losers; nothing of other folders."""
    file = Path(at_step(run)) / "config.yaml"
    if not os.path.isfile(file):
        return
    section = read_yaml(file, remedy="give the folder of a run").get("signal")
    if not (isinstance(section, Mapping) and section.get("swap") is True):
        say(f"{run} was not trained on losers (signal.swap), which guidance should lead away from")


def said_of(run: str | Path, base: str | Path) -> BaseOptions:
    """What a run's config says of its base, as far as it is of use where the base lies now."""
    settings = run_model_settings(run)
    return BaseOptions(**{name: settings[name] for name in applicable(base) if name in settings})  # type: ignore[typeddict-item]


def starts(run: str | Path) -> Iterator[str]:
    """What a run started from, what that started from itself, and so on, as their configs name it.

    Raises:
        InputError: a circle.
    """
    seen = [os.path.realpath(at_step(run))]
    while (name := run_model_settings(run).get("init_from")) is not None:
        place = os.path.realpath(at_step(name))
        if place in seen:
            what = f"by its model.init_from it starts from {name}, which starts from it"
            raise InputError(what, where=Path(at_step(run)) / "config.yaml", remedy="write what it started from")
        seen.append(place)
        yield name
        run = name


def inputs_of(settings: Mapping[str, Any]) -> list[Path]:
    """What a run with this section `model` reads, and the runs below it: no output of it may be one of them."""
    start = settings.get("init_from")
    below = [] if start is None else [run_model_settings(run) for run in (start, *starts(start))]
    named = [each[key] for each in (settings, *below) for key in NAMES if each.get(key) is not None]
    return [Path(at_step(name)) for name in named]


def pipeline_sha256(source: Source) -> str:
    """Hash of what a pipeline reads: its index, and of its parts the configs, tokenizers and weights of its variant.

    What the library that wrote a config noted of itself in it, and what lies beside the pipeline, is not in it.
    """
    held: dict[str, Any] = {"index": _said(source.index)}
    for part in filter(source.has, source.index):
        files = sorted(path for path in (source.folder / part).glob("*") if path.is_file())
        names = [path.name for path in files]
        for path in files:
            if is_read(path.name, names, source.variant):
                config = path.name.endswith("config.json")
                held[f"{part}/{path.name}"] = _said(read_object(path)) if config else sha256_file(path)
    return hash_config(held)


def _said(config: Mapping[str, Any]) -> dict[str, Any]:
    noted = ("_diffusers_version", "_name_or_path", "transformers_version")
    return {key: value for key, value in config.items() if key not in noted}


def check_base(run: str | Path, source: Source, *, remedy: str) -> None:
    """Refuse another base than that which a finished run was trained on; one of equal content may lie elsewhere.

    Raises:
        InputError: its content is another.
    """
    record = read_run(run)
    wanted = record.base_content
    if (sha256_folder(source.folder) != record.base_sha256) if wanted is None else (pipeline_sha256(source) != wanted):
        what = f"{source.name} is not the base that it was trained on, or has changed since"
        raise InputError(what, where=run, remedy=remedy)
