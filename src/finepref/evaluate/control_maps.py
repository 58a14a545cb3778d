"""Control maps from pictures: edges by OpenCV's Canny, depth by a depth-estimation model of transformers.

A map is an RGB picture of its source's size H x W, white where an edge is or where the scene is near. A folder of maps
is what `generate --control-images` reads.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finepref.core.device import work_device
from finepref.core.errors import ConfigError, InputError, check_word, nearest
from finepref.core.files import link, read_object, reading
from finepref.core.images import Unreadable, open_rgb
from finepref.core.outfolders import check_folder, is_made_as, own_folder, remove_marked, whole_folder
from finepref.core.progress import progress, say
from finepref.core.provenance import fingerprinted, hash_config, sha256_bytes, sha256_folder
from finepref.data.readstretches import Made, Readers, begin, joining, leave, readers, share, unit_name
from finepref.formats.controlmaps import MAPS, ControlMap, MapsRecord, map_file, read_maps, write_maps
from finepref.formats.folders import CONTROL_MAPS, MAPS_PARTS
from finepref.formats.manifest import LINES, ImageRow, read_rows
from finepref.formats.pairrows import ImageRef
from finepref.formats.sources import PICTURES
from finepref.formats.tables import version_of

if TYPE_CHECKING:
    from PIL.Image import Image

KINDS = ("canny", "depth")
LOW, HIGH = 100, 200  # diffusers' ControlNet examples, on 0 to 255
DEPTH_MODEL = "Intel/dpt-hybrid-midas"  # diffusers/controlnet-depth-sdxl-1.0, its example
MOST, PARTS = 64, 64  # pictures of a piece of work, and how many pieces a small folder is cut into
DEPTH_FILES = ("config.json", "preprocessor_config.json", "*.safetensors")

Draw = Callable[["Image"], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which images of an evaluation folder: of a model, a prompt set, a seed; None where the folder has one."""

    model: str | None = None
    prompt_set: str | None = None
    seed: int | None = None


def control_maps(
    images: Path,
    out: Path,
    *,
    kind: str,
    chosen: Chosen | None = None,
    low: int = LOW,
    high: int = HIGH,
    depth_model: str = DEPTH_MODEL,
    shard: tuple[int, int] = (0, 1),
) -> MapsRecord | None:
    """Write a map of every picture, `00012.png` of prompt row 12, and maps.json; those of unchanged pictures stay.

    Any number of processes may make the maps of one folder at once: each takes pictures that no other has. What they
    made lies in `<out>.parts` until all maps are there.

    Args:
        images: an evaluation folder, whose rows are those of its manifest; or a folder of pictures, whose rows are
            their numbers where every name is one (`12.jpg`), else their places in the order of names, from 0.
        kind: canny or depth. low, high: Canny's thresholds, 0 to 255. depth_model: folder or hub id.
        shard: (index, count): of count shares of the pictures this one alone. The one that finds all others made
            writes `out`.

    Returns:
        maps.json; None where a share is still to be made.

    Raises:
        InputError: an unknown kind, no pictures or one that cannot be read, several models, sets or seeds and none
            chosen, a depth model that is not loaded, a shard outside 0..count-1. ConfigError: opencv is not installed.
    """
    check_word(kind, KINDS, "kind", where="kind")
    share((), shard)
    found = _pictures(images, chosen)
    place = check_folder(out, CONTROL_MAPS, inputs=[images, *([depth_model] if kind == "depth" else [])])
    settings, draw = canny(low, high) if kind == "canny" else depth(depth_model)
    pictures = {row: version_of(ref.path) for row, ref in found.items() if ref.path is not None}
    stamp = hash_config({"kind": kind, "settings": settings, "pictures": pictures})
    parts = place.with_name(f"{place.name}.parts")
    if is_made_as(place, stamp) and not parts.exists():
        say(f"{out}: these maps are there already")
        return read_maps(out)
    with own_folder(parts, MAPS_PARTS, inputs=[images], part=uuid.uuid4().hex[:12]):
        work = _Work(readers(parts, "maps"), images, found, draw, MapsRecord(kind=kind, settings=settings), stamp)
        with work.hand.at_work(begin=work.begin, leave=lambda: leave(work.hand, stamp)):
            there = is_made_as(place, stamp)  # by those that left before this one began
            record = work.join(out, there=there) if there or work.is_made(shard) else None
    remove_marked(parts)
    return record


@dataclass(frozen=True, slots=True)
class PicturesUnit:
    """The rows of some pictures, as work."""

    name: str
    rows: tuple[int, ...]

    @property
    def keys(self) -> list[str]:
        """Its name."""
        return [self.name]


@dataclass(frozen=True, slots=True)
class _Work:
    """What this process does of a folder of maps. about: what is said of all. stamp: hash of what decides them."""

    hand: Readers
    images: Path
    found: Mapping[int, ImageRef]
    draw: Draw
    about: MapsRecord
    stamp: str

    def begin(self) -> None:
        """Know what others made."""
        names = {unit.name for unit in self.units}
        there = self.hand.parts.place
        begin(self.hand, lambda name: name in names and (there / f"{name}.json").is_file(), only=[self.stamp])

    @property
    def units(self) -> list[PicturesUnit]:
        """All pictures in blocks, the same ones in every process."""
        rows = [*self.found]
        size = min(MOST, max(1, len(rows) // PARTS))
        starts = range(0, len(rows), size)
        return [PicturesUnit(unit_name(self.stamp, at), tuple(rows[at : at + size])) for at in starts]

    def is_made(self, shard: tuple[int, int]) -> bool:
        """Draw what no other process does of a share; whether all maps are drawn then."""
        todo = [unit for unit in share(self.units, shard) if not self.hand.is_made(unit)]
        work = self.hand.work(todo, self._draw)
        for _ in progress(work, f"{self.about.kind} maps", total=len(todo), unit="part"):
            pass
        self.hand.news()
        return all(map(self.hand.is_made, self.units))

    def _draw(self, unit: PicturesUnit) -> list[Made]:
        maps = []
        self.hand.parts.place.mkdir(exist_ok=True)
        for row in unit.rows:
            ref = self.found[row]
            content = ref.read()
            _write(self.draw(_decoded(content, ref)), self._file(unit, row))
            name = ref.path.relative_to(self.images).as_posix() if ref.path else ""
            maps.append(ControlMap(row=row, file=map_file(row), image=name, image_sha256=sha256_bytes(content)))
        write_maps(self.hand.parts.place / f"{unit.name}.json", replace(self.about, maps=tuple(maps)))
        return [Made(unit.name)]

    def _file(self, unit: PicturesUnit, row: int) -> Path:
        return self.hand.parts.place / f"{unit.name}.{map_file(row)}"

    def join(self, out: Path, *, there: bool) -> MapsRecord:
        """Write the folder from all parts, where it is not there and no other process has."""
        with joining(self.hand, self.stamp) as is_first:
            if there or not is_first:
                return read_maps(out)
            lists = [read_maps(self.hand.parts.place, f"{unit.name}.json") for unit in self.units]
            maps = tuple(each for listed in lists for each in listed.maps)
            hashes = {each.row: each.image_sha256 for each in maps}
            config = {"kind": self.about.kind, "settings": self.about.settings, "images": hashes}
            record = replace(self.about, maps=maps, provenance=fingerprinted(inputs=(), config=config))
            with whole_folder(out, CONTROL_MAPS, inputs=[self.images], fingerprint=self.stamp) as folder:
                for unit in self.units:
                    for row in unit.rows:
                        link(self._file(unit, row), folder / map_file(row))
                write_maps(folder / MAPS, record)
        return record


def canny(low: int, high: int) -> tuple[dict[str, Any], Draw]:
    """Edges: 255 on an edge, else 0. Pixels above `high` are edges, and those above `low` that hang on one.

    References: diffusers' ControlNet examples, `cv2.Canny(image, 100, 200)` on the RGB picture.
    """
    if not 0 <= low < high <= 255:
        raise InputError(f"thresholds {low} and {high}", where="kind canny", remedy="use 0 <= low < high <= 255")
    try:
        import cv2
    except ImportError:
        remedy = "pip install 'finepref[control]'"
        raise ConfigError("edges need opencv, which is not installed", where="kind canny", remedy=remedy) from None
    settings = {"low": low, "high": high, "opencv": str(cv2.__version__)}
    return settings, lambda image: np.asarray(cv2.Canny(np.asarray(image), low, high), dtype=np.uint8)


def depth(name: str) -> tuple[dict[str, Any], Draw]:
    """Depth: 255 where a picture is nearest, 0 where it is farthest.

    References: diffusers/controlnet-depth-sdxl-1.0, its example: bicubic to the picture's size, stretched to 0..255.
    """
    import torch
    from transformers import DPTImageProcessorPil

    from finepref.models.classes import load_class
    from finepref.models.source import load_module, locate_part, quiet

    folder = locate_part(name, patterns=DEPTH_FILES)
    file = folder / "config.json"
    config = read_object(file)
    named = config.get("architectures")
    cls = load_class("transformers", named[0] if isinstance(named, list) and named else None, part="depth", where=file)
    if config.get("depth_estimation_type", "relative") != "relative":
        what = "it gives distances, which are dark where a scene is near"
        raise InputError(what, where=file, remedy="use a model of relative depth")
    device = work_device()
    network = load_module(cls, folder).to(device)
    with quiet(), reading(folder, "a whole depth model", remedy="it needs a preprocessor_config.json"):
        processor = DPTImageProcessorPil.from_pretrained(str(folder))

    @torch.no_grad()
    def draw(image: Image) -> NDArray[np.uint8]:
        predicted = network(processor(images=image, return_tensors="pt").pixel_values.to(device))
        (found,) = processor.post_process_depth_estimation(predicted, target_sizes=[(image.height, image.width)])
        near: NDArray[np.float32] = found["predicted_depth"].float().cpu().numpy()
        if not np.isfinite(near).all():
            raise InputError("its depths are not numbers (nan)", where=name, remedy="fetch its weights again")
        span = max(float(near.max() - near.min()), np.finfo(np.float32).tiny)
        return np.asarray((near - near.min()) / span * 255).astype(np.uint8)

    return {"model": name, "model_sha256": sha256_folder(folder)}, draw


def _pictures(folder: Path, chosen: Chosen | None) -> dict[int, ImageRef]:
    """Prompt row -> picture."""
    if not folder.is_dir():
        raise InputError("no such folder", where=folder, remedy="give an evaluation folder, or a folder of pictures")
    if (folder / LINES).is_file():
        return {row.prompt_index: row.image(folder) for row in _of_manifest(folder, chosen or Chosen())}
    if chosen not in (None, Chosen()):
        what = "it has no models, prompt sets or seeds to choose from"
        raise InputError(what, where=folder, remedy="leave the choice out, or give an evaluation folder")
    files = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir())
    others = [path.name for path in files if path.suffix.lower() not in PICTURES]
    files = [path for path in files if path.suffix.lower() in PICTURES]
    if not files:
        raise InputError("no pictures", where=folder, remedy="give an evaluation folder, or a folder of pictures")
    if others:
        say(f"{folder}: no pictures and left out: {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}")
    numbered = all(path.stem.isascii() and path.stem.isdigit() for path in files)
    rows: dict[int, ImageRef] = {}
    for place, path in enumerate(files):
        row = int(path.stem) if numbered else place
        if row in rows:
            raise InputError(f"two pictures of row {row}", where=path, remedy="keep one")
        rows[row] = ImageRef(path=path, root=folder)
    return rows


def _of_manifest(folder: Path, chosen: Chosen) -> list[ImageRow]:
    rows = read_rows(folder)
    choices: tuple[tuple[str, Callable[[ImageRow], str | int], str | int | None], ...] = (
        ("model", lambda row: row.model, chosen.model), ("prompt set", lambda row: row.prompt_set, chosen.prompt_set),
        ("seed", lambda row: row.seed, chosen.seed),
    )  # fmt: skip
    for word, of, wanted in choices:
        known = dict.fromkeys(str(of(row)) for row in rows)
        if wanted is None and len(known) > 1:
            raise InputError(f"it has images of several {word}s", where=folder, remedy=f"name one of {_listed(known)}")
        if wanted is not None and str(wanted) not in known:
            raise InputError(f"it has no images of {word} {wanted}", where=folder, remedy=nearest(str(wanted), known))
        rows = [row for row in rows if wanted in (None, of(row))]
    return rows


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:6]) + (", ..." if len(shown) > 6 else "")


def _decoded(content: bytes, ref: ImageRef) -> Image:
    try:
        return open_rgb(content)
    except Unreadable as error:
        raise InputError(f"not a readable image ({error})", where=ref.path, remedy="save it as PNG") from None


def _write(drawn: NDArray[np.uint8], path: Path) -> None:
    from PIL import Image

    Image.fromarray(drawn).convert("RGB").save(path, "PNG")
