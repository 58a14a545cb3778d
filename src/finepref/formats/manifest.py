"""The manifest of an evaluation folder: one line an image, and what the whole folder was made with.

While images are made, each process that makes some lists them in a part of its own; readers put the parts together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError, cut
from finepref.core.files import reading, write_json, write_text
from finepref.core.notebook import records_html
from finepref.formats import records
from finepref.formats.pairrows import ImageRef
from finepref.formats.writerparts import Parts, line_of

LINES = "manifest.jsonl"
RECORD = "manifest.json"
PARTS = "manifest-parts"
VERSION = 1

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

    def image(self, folder: Path) -> ImageRef:
        """The image, which must lie in the folder of the manifest."""
        return ImageRef(path=folder / self.path, root=folder)


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model of the folder: path or hub id, hash of its weights, scorers that its training used, diffusers class.

    seconds: what its images took on `device`.
    """

    origin: str
    fingerprint: str
    rewards: tuple[str, ...] = ()
    pipeline: str = ""
    seconds: float = 0.0
    device: str = ""


@dataclass(frozen=True, slots=True)
class PromptsRecord:
    """A prompt set: `PromptSet.sha256` and the number of its rows."""

    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class SampledWith:
    """Of the settings that images were sampled with, those that a report shows. size: width and height."""

    steps: int
    guidance: float
    scheduler: str | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class FolderRecord:
    """What the folder was made with: models and prompt sets by name, settings and protocols by model/set.

    blocks: by model/set, how many prompts are one unit of work.
    """

    models: Mapping[str, ModelRecord] = field(default_factory=dict)
    sampling: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prompt_sets: Mapping[str, PromptsRecord] = field(default_factory=dict)
    protocols: Mapping[str, str] = field(default_factory=dict)
    blocks: Mapping[str, int] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """An evaluation folder: its images in file order, and what it was made with."""

    rows: tuple[ImageRow, ...]
    about: FolderRecord

    def to_pandas(self) -> Any:
        """The images as a pandas data frame."""
        return records.to_pandas(self.rows)

    def _repr_html_(self) -> str:
        return records_html(self.rows, ("model", "prompt_set", "prompt", "seed", "path"))


def read_manifest(folder: str | Path) -> Manifest:
    """Read `manifest.jsonl` and `manifest.json`."""
    return Manifest(tuple(read_rows(folder)), read_record(folder))


def read_rows(folder: str | Path, *, partial: bool = False) -> list[ImageRow]:
    """Read `manifest.jsonl` and its parts.

    Args:
        folder: the evaluation folder.
        partial: the file may end in the middle of a line (a killed run that will be resumed); that line is left out.

    Returns:
        The rows in file order, those of the parts at the end.

    Raises:
        InputError: no manifest, a broken line, a missing field, an image elsewhere, or the same image listed twice.
    """
    path = Path(folder) / LINES
    if not path.is_file():
        raise InputError("no manifest of images", where=path, remedy="run `finepref generate` into this folder first")
    listed = parts_of(folder).rows()  # first: they may move into the manifest
    with reading(path, "a manifest", remedy="generate the folder again"):
        text = path.read_text(encoding="utf-8")
    rows: dict[Key, ImageRow] = {}
    for place, row in records.parse_lines(ImageRow, text[: text.rfind("\n") + 1] if partial else text, path):
        if row.key in rows:
            raise InputError(f"{row.model}, prompt {row.prompt_index}, seed {row.seed} is listed twice", where=place)
        _check_place(row, place)
        rows[row.key] = row
    rows |= {row.key: row for row in listed}
    if not rows and not partial:
        raise InputError("it lists no image", where=path, remedy="run `finepref generate` into this folder first")
    return list(rows.values())


def parts_of(folder: str | Path) -> Parts[ImageRow]:
    """The parts of a manifest."""
    return Parts(Path(folder) / PARTS, ImageRow, "generate the folder again", _check_place)


def _check_place(row: ImageRow, place: str) -> None:
    """Refuse an image that does not lie below the manifest."""
    if Path(row.path).is_absolute() or ".." in Path(row.path).parts:
        raise InputError(f"{row.path!r} leaves the folder", where=place, remedy="images lie below the manifest")


def write_rows(folder: str | Path, rows: Iterable[ImageRow]) -> None:
    """Write the whole `manifest.jsonl` at once."""
    write_text(Path(folder) / LINES, "".join(map(line_of, rows)))


def read_record(folder: str | Path) -> FolderRecord:
    """`manifest.json`, or an empty record where a folder has images of another origin."""
    path = Path(folder) / RECORD
    if not path.is_file():
        return FolderRecord()
    remedy = "generate the folder again"
    found = records.read_record(path, FolderRecord, version=VERSION, remedy=remedy)
    for slot, settings in found.sampling.items():
        if settings:
            records.as_record(SampledWith, settings, where=f"{path}, sampling of {cut(slot)}", remedy=remedy)
    return found


def write_record(folder: str | Path, record: FolderRecord) -> None:
    """Write `manifest.json`."""
    write_json(Path(folder) / RECORD, {"version": VERSION, **asdict(record)})
