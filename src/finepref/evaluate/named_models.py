"""From `NAME=PATH` on the command line to models that can be generated with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError
from finepref.core.files import read_json
from finepref.core.provenance import sha256_bytes, sha256_file
from finepref.evaluate.generate import Source, as_source
from finepref.formats.run import is_finished, read_run

NOT_WEIGHTS = ("checkpoints", "samples")


def parse_models(words: Sequence[str]) -> dict[str, str]:
    """`["base=lab", "dpo=runs/dpo"]` -> name -> path; a repeated name or a word without `=` is an `InputError`."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not (name and equals and path):
            raise InputError(f"'{word}' is not NAME=PATH", where="--model", remedy="for example base=lab")
        if name in found:
            raise InputError(f"'{name}' is given twice", where="--model", remedy="give every model its own name")
        found[name] = path
    return found


def parse_integers(text: str, where: str) -> list[int]:
    """`"0,1,2"` -> [0, 1, 2]."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"'{text}' is not a list of integers", where=where, remedy="write 0,1,2") from None


def parse_size(text: str | None) -> tuple[int, int] | None:
    """`"1024x768"` -> (width, height); `"512"` -> (512, 512); None stays None."""
    if text is None:
        return None
    words = text.lower().split("x")
    if len(words) > 2 or not all(word.isdigit() and int(word) > 0 for word in words):
        raise InputError(f"'{text}' is not a size", where="--size", remedy="write WIDTHxHEIGHT, such as 512x512")
    return int(words[0]), int(words[-1])


def sources(words: Sequence[str], load: Callable[[str], Any]) -> dict[str, Source]:
    """The models of `NAME=PATH` words.

    Args:
        words: NAME=PATH each.
        load: path -> diffusers pipeline.

    Returns:
        name -> `Source`. A local folder is hashed where it lies; anything else is loaded once and its weights hashed.
    """
    found = {}
    for name, path in parse_models(words).items():
        folder = Path(path)
        if not folder.is_dir():
            found[name] = replace(as_source(load(path)), origin=path)
            continue
        run = read_run(folder) if is_finished(folder) else None
        base = "" if run is None else f"base {run.base_sha256}\n"
        fingerprint = sha256_bytes((base + folder_fingerprint(folder)).encode())
        known = ((), pipeline_class(folder)) if run is None else (run.signals.rewards, run.family)
        found[name] = Source(functools.partial(load, path), path, fingerprint, *known)
    return found


def pipeline_class(folder: Path) -> str:
    """The diffusers class that a pipeline folder's model_index.json names; empty without one."""
    index = folder / "model_index.json"
    return str(read_json(index).get("_class_name", "")) if index.is_file() else ""


def folder_fingerprint(folder: Path) -> str:
    """Hash of the weight files of a folder and of the configs beside them; checkpoints and samples do not count."""
    lines = []
    for path in sorted(folder.rglob("*.safetensors")) + sorted(folder.rglob("*.bin")):
        if path.relative_to(folder).parts[0] not in NOT_WEIGHTS:
            lines.append(f"{path.relative_to(folder).as_posix()} {sha256_file(path)}")
            config = path.parent / "config.json"
            if config.is_file():
                lines.append(sha256_file(config))
    if not lines:
        remedy = "give a run folder, a diffusers folder, a hub id or lab"
        raise InputError("no weights in it", where=folder, remedy=remedy)
    return "\n".join(lines)
