"""Weight files of a variant (`model.fp16.safetensors`) beside others, and in a copy, where they take plain names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ENDS = (".safetensors", ".safetensors.index.json")
TEXTS = (".txt", ".model", ".jinja")  # of a tokenizer, beside its JSON
SMALL = (".json", *TEXTS)  # configs and tokenizers


def is_twin(name: str, names: Sequence[str], variant: str | None) -> bool:
    """Whether a file holds the weights of a folder that the variant's files, which stand beside it, hold too."""
    mark = f".{variant}"
    return variant is not None and name.endswith(ENDS) and mark not in name and any(mark in each for each in names)


def is_read(name: str, names: Sequence[str], variant: str | None) -> bool:
    """Whether a file of a part is one that it is read from, whatever indices say of its shards."""
    stem, weights, _ = name.partition(".safetensors")
    if not weights:
        return name.endswith(SMALL)
    return name.endswith(weights) and not (is_twin(name, names, variant) if variant is not None else "." in stem)


def name_plainly(folder: Path, variant: str | None) -> None:
    """Give the variant's files below a folder, and the shards in their indices, the names without it."""
    mark = f".{variant}"
    for file in sorted(folder.rglob(f"*{mark}[.-]*")) if variant is not None else ():
        if file.suffix == ".json":
            file.write_text(file.read_text(encoding="utf-8").replace(mark, ""), encoding="utf-8")
        file.rename(file.with_name(file.name.replace(mark, "")))
