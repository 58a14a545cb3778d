"""The manifest of an evaluation folder: one line an image, and what the whole folder was made with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError
from finepref.core.files import read_json, write_json, write_text

LINES = "manifest.jsonl"
RECORD = "manifest.json"

Key = tuple[str, str, int, int]


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One generated image: whose it is, of which prompt row and seed, how it was sampled, and its hash.

    path: relative to the folder, with forward slashes. size: (width, height) in pixels.
    """

    model: str
    prompt_set: str
    prompt_index: int
    prompt: str
    prompt_sha256: str
    seed: int
    path: str
    image_sha256: str
    sampler: str
    steps: int
    guidance: float
    size: tuple[int, int]
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Model, prompt set, prompt row and seed: what makes two images comparable or the same."""
        return (self.model, self.prompt_set, self.prompt_index, self.seed)


def read_rows(folder: str | Path, *, partial: bool = False) -> list[ImageRow]:
    """Read `manifest.jsonl`.

    Args:
        folder: the evaluation folder.
        partial: the file may end in the middle of a line (a killed run that will be resumed); that line is left out.

    Returns:
        The rows in file order.

    Raises:
        InputError: no manifest, a broken line, a missing field, or the same image listed twice.
    """
    path = Path(folder) / LINES
    if not path.is_file():
        raise InputError("no manifest of images", where=path, remedy="run `finepref generate` into this folder first")
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    if partial and not text.endswith("\n"):
        lines = lines[:-1]
    rows: dict[Key, ImageRow] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _parse(line, f"{path}, line {number}")
        if row.key in rows:
            raise InputError(
                f"{row.model}, prompt {row.prompt_index}, seed {row.seed} is listed twice",
                where=f"{path}, line {number}",
            )
        rows[row.key] = row
    return list(rows.values())


def _parse(line: str, where: str) -> ImageRow:
    try:
        record = json.loads(line)
        record["size"] = tuple(record["size"])
        record.setdefault("prompt_set", "prompts")
        return ImageRow(**record)
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise InputError(f"not a manifest line ({error})", where=where, remedy="generate the folder again") from None


def _line(row: ImageRow) -> str:
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


def append_rows(folder: str | Path, rows: Sequence[ImageRow]) -> None:
    """Append finished images and fsync, so that a killed run loses at most the batch it was in."""
    path = Path(folder) / LINES
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as handle:
        handle.writelines(_line(row) for row in rows)
        handle.flush()
        os.fsync(handle.fileno())


def write_rows(folder: str | Path, rows: Iterable[ImageRow]) -> None:
    """Write the whole `manifest.jsonl` at once."""
    write_text(Path(folder) / LINES, "".join(_line(row) for row in rows))


def read_record(folder: str | Path) -> dict[str, Any]:
    """`manifest.json`, or an empty record where a folder has images of another origin."""
    path = Path(folder) / RECORD
    return read_json(path) if path.is_file() else {}


def write_record(folder: str | Path, record: Mapping[str, Any]) -> None:
    """Write `manifest.json`."""
    write_json(Path(folder) / RECORD, record)
