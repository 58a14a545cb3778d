"""Control maps from pictures: edges by OpenCV's Canny, depth by a depth-estimation model of transformers.

A map is an RGB picture of its source's size H x W, white where an edge is or where the scene is near. A folder of maps
is what `generate --control-images` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finepref.core.device import work_device
from finepref.core.errors import ConfigError, InputError, check_word, nearest
from finepref.core.files import read_object, reading
from finepref.core.images import Unreadable, open_rgb
from finepref.core.outfolders import check_folder, whole_folder
from finepref.core.progress import progress, say
from finepref.core.provenance import fingerprint_of, fingerprinted, sha256_bytes, sha256_folder
from finepref.formats.controlmaps import MAPS, ControlMap, MapsRecord, map_file, read_maps, write_maps
from finepref.formats.folders import CONTROL_MAPS
from finepref.formats.manifest import LINES, ImageRow, read_rows
from finepref.formats.pairrows import ImageRef
from finepref.formats.sources import PICTURES

if TYPE_CHECKING:
    from PIL.Image import Image

KINDS = ("canny", "depth")
LOW, HIGH = 100, 200  # diffusers' ControlNet examples, on 0 to 255
DEPTH_MODEL = "Intel/dpt-hybrid-midas"  # diffusers/controlnet-depth-sdxl-1.0, its example
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
) -> MapsRecord:
    """Write a map of every picture, `00012.png` of prompt row 12, and maps.json. Maps that are there already stay.

    Args:
        images: an evaluation folder, whose rows are those of its manifest; or a folder of pictures, whose rows are
            their numbers where every name is one (`12.jpg`), else their places in the order of names, from 0.
        kind: canny or depth. low, high: Canny's thresholds, 0 to 255. depth_model: folder or hub id.

    Raises:
        InputError: an unknown kind, no pictures or one that cannot be read, several models, sets or seeds and none
            chosen, a depth model that is not loaded. ConfigError: opencv is not installed.
    """
    check_word(kind, KINDS, "kind", where="kind")
    found = _pictures(images, chosen)
    check_folder(out, CONTROL_MAPS, inputs=[images, *([depth_model] if kind == "depth" else [])])
    settings, draw = canny(low, high) if kind == "canny" else depth(depth_model)
    hashes = {row: sha256_bytes(ref.read()) for row, ref in found.items()}
    made = fingerprinted(inputs=(), config={"kind": kind, "settings": settings, "images": hashes})
    if (out / MAPS).is_file():
        record = read_maps(out)
        whole = all((out / each.file).is_file() for each in record.maps)
        if whole and fingerprint_of(record.provenance) == fingerprint_of(made):
            say(f"{out}: these maps are there already")
            return record
    with whole_folder(out, CONTROL_MAPS, inputs=[images], fingerprint=fingerprint_of(made)) as folder:
        maps = []
        for row, ref in progress(found.items(), f"{kind} maps", unit="picture"):
            _write(draw(_decoded(ref)), folder / map_file(row))
            name = ref.path.relative_to(images).as_posix() if ref.path else ""
            maps.append(ControlMap(row=row, file=map_file(row), image=name, image_sha256=hashes[row]))
        record = MapsRecord(kind=kind, settings=settings, maps=tuple(maps), provenance=made)
        write_maps(folder, record)
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


def _decoded(ref: ImageRef) -> Image:
    try:
        return open_rgb(ref.read())
    except Unreadable as error:
        raise InputError(f"not a readable image ({error})", where=ref.path, remedy="save it as PNG") from None


def _write(drawn: NDArray[np.uint8], path: Path) -> None:
    from PIL import Image

    Image.fromarray(drawn).convert("RGB").save(path)
