"""The composition root: names in configs and on the command line -> objects. It alone knows that there is a lab."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finepref.core.errors import InputError, nearest

if TYPE_CHECKING:
    from finepref.evaluate.scorers.scorer import Scorer

LAB_MODELS = {"lab": "base", "lab:early": "early"}
LAB_PROMPTS = {"lab-train": "train", "lab-eval": "eval"}
LAB_SCORERS = ("lab-reward", "lab-true")


def cache_home() -> Path:
    """Where generated models are kept: $FINEPREF_HOME, else finepref/ in the user's cache folder."""
    given = os.environ.get("FINEPREF_HOME")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finepref"


def resolve_base(name: str) -> str:
    """A model name as a folder or hub name that diffusers can load; `lab` and `lab:early` become folders.

    Raises:
        InputError: an unknown lab model.
    """
    if not (name == "lab" or name.startswith("lab:")):
        return name
    if name not in LAB_MODELS:
        raise InputError(f"unknown lab model {name!r}", remedy=nearest(name, LAB_MODELS))
    from finepref.lab import model

    variant = LAB_MODELS[name]
    folder = cache_home() / f"lab-{variant}-{model.fingerprint(variant)[:12]}"
    return str(model.materialise(folder, variant))


def load_pipeline(path: str, *, device: str | None = None) -> Any:
    """A plain diffusers pipeline: of a run folder (base + trained part), a diffusers folder, a hub name, or the lab."""
    from finepref.core.files import read_json
    from finepref.models import load

    place = device or default_device()
    if (Path(path) / "run.json").is_file():
        record = read_json(Path(path) / "run.json")
        base, revision = resolve_base(record["base"]), record.get("revision")
        return load.load_pipeline(base, run=path, revision=revision, family=record["family"], device=place)
    if Path(path).is_dir() and not (Path(path) / "model_index.json").is_file():
        raise InputError(
            "neither a finished run (run.json) nor a diffusers pipeline (model_index.json)",
            where=path,
            remedy="finish the run with `finepref train --resume`, or give a pipeline folder",
        )
    return load.load_pipeline(resolve_base(path), device=place)


def default_device() -> str:
    """cuda where there is one, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def prompt_set(name: str) -> Sequence[str]:
    """The prompts of a built-in set by name: `lab-train` (votes) or `lab-eval` (held out).

    Raises:
        InputError: an unknown name.
    """
    if name not in LAB_PROMPTS:
        raise InputError(f"unknown prompt set {name!r}", remedy=nearest(name, LAB_PROMPTS))
    from finepref.lab import world

    return world.prompts(LAB_PROMPTS[name])


def make_scorer(name: str, *, device: str | None = None) -> Scorer:
    """A scorer by name.

    Raises:
        InputError: unknown name, or its weights cannot be had.
    """
    if name in LAB_SCORERS:
        from finepref.lab import scorers

        return scorers.lab_reward() if name == "lab-reward" else scorers.lab_true()
    if name.startswith("lab-"):
        raise InputError(f"unknown scorer {name!r}", remedy=nearest(name, LAB_SCORERS))
    from finepref.evaluate.scorers import kinds as table

    return table.make(name, device=device or default_device())
