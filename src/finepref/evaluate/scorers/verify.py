"""Does a scorer with the real weights give the numbers that were published for it? One command per scorer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import RandomState

from finepref.core.errors import InputError
from finepref.core.files import read_json
from finepref.core.images import open_rgb_file
from finepref.core.progress import progress
from finepref.evaluate.scorers.families import load_network
from finepref.evaluate.scorers.hub_files import UrlFile, fetch, published
from finepref.evaluate.scorers.preprocess import VARIANTS
from finepref.evaluate.scorers.scorer import Scorer
from finepref.evaluate.scorers.scorer_rows import Spec, make, parse, weights_path
from finepref.formats.records import read_csv

NUMBERS = published()["numbers"]
HEAD_SCORES, HEAD_TOLERANCE = NUMBERS["head"]["scores"], NUMBERS["head"]["tolerance"]
README_PROMPT, README_IMAGES = NUMBERS["readme"]["prompt"], NUMBERS["readme"]["images"]
HPS_IMAGE = UrlFile(*(NUMBERS["hps_demo"][name] for name in ("url", "sha256", "name")))
HPS_PROMPT, HPS_SCORE = NUMBERS["hps_demo"]["prompt"], NUMBERS["hps_demo"]["score"]
HPS_STYLES, HPS_BENCHMARK = NUMBERS["hps_benchmark"]["styles"], NUMBERS["hps_benchmark"]["means"]
PICKSCORE_RANGE = NUMBERS["pickscore_range"]
DEFAULT_TOLERANCE = 2e-6


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: what, the number found, the number wanted, how far apart they may be (nan: for information)."""

    what: str
    found: float
    wanted: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether it is close enough; a check for information always is."""
        return bool(np.isnan(self.tolerance)) or abs(self.found - self.wanted) <= self.tolerance


def _head(chosen: Spec) -> Iterator[Check]:
    rows = RandomState(0).standard_normal((6, 768))  # not a draw: the vectors that the numbers belong to
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    with torch.inference_mode():
        found = load_network(chosen.kind, weights_path(chosen), "cpu")(
            torch.from_numpy(rows.astype(np.float32))
        ).tolist()
    for number, (value, wanted) in enumerate(zip(found, HEAD_SCORES, strict=True)):
        yield Check(f"head on seeded vector {number}", value, wanted, HEAD_TOLERANCE)


def _readme(scorer: Scorer) -> Iterator[Check]:
    address = NUMBERS["readme"]["url"]
    files = [UrlFile(address + name, sha, f"imagereward-{name}") for name, (sha, _) in README_IMAGES.items()]
    images = [open_rgb_file(fetch(file, scorer=scorer.name)) for file in files]
    found = scorer.score(images, [README_PROMPT] * len(images)).tolist()
    for (name, (_, wanted)), value in zip(README_IMAGES.items(), found, strict=True):
        yield Check(f"README image {name}", value, wanted, NUMBERS["readme"]["tolerance"])
    yield Check("README ranking 1, 2, 3, 4", float(found == sorted(found, reverse=True)), 1.0, 0.0)


def _demo(chosen: Spec, device: str | None) -> Iterator[Check]:
    image = open_rgb_file(fetch(HPS_IMAGE, scorer=chosen.kind.name))
    own = chosen.preprocess or chosen.kind.preprocess
    place = f"@{chosen.path}" if chosen.path is not None else ""
    for variant in (own, *(v for v in VARIANTS if v != own)):
        scorer = make(f"{chosen.kind.name}:{variant}{place}", device=device)
        value = float(scorer.score([image], [HPS_PROMPT])[0])
        what = f"demo_image.jpg, {HPS_PROMPT!r}, {variant}"
        yield Check(what, value, HPS_SCORE, NUMBERS["hps_demo"]["tolerance"] if variant == own else math.nan)


def benchmark(scorer: Scorer, images: Path, prompts: Path, *, variant: str) -> Iterator[Check]:
    """HPSv2's benchmark over published images: means of each style and of all, times 100.

    Args:
        scorer: hpsv2.1 with the preprocess `variant`.
        images: folder with anime/, concept-art/, paintings/, photo/ of 00000.jpg to 00799.jpg.
        prompts: folder with anime.json, ... (lists of prompts).
        variant: preprocess, which decides the published numbers to compare with.
    """
    values: dict[str, list[float]] = {}
    for style in HPS_STYLES:
        texts = read_json(prompts / f"{style}.json")
        files = [images / style / f"{index:05d}.jpg" for index in range(len(texts))]
        values[style] = []
        for start in progress(range(0, len(files), 16), style, unit="batch"):
            loaded = [open_rgb_file(file) for file in files[start : start + 16]]
            values[style] += scorer.score(loaded, texts[start : start + 16]).tolist()
    values["all four"] = [value for own in values.values() for value in own]
    wanted = HPS_BENCHMARK.get(variant, (math.nan,) * len(values))
    tolerance = NUMBERS["hps_benchmark"]["tolerance"] if variant in HPS_BENCHMARK else math.nan
    for (style, own), mean in zip(values.items(), wanted, strict=True):
        yield Check(f"SDXL Base 0.9, {style}", 100 * float(np.mean(own)), mean, tolerance)


def read_expected(path: Path) -> tuple[list[Path], list[str], list[float]]:
    """Rows of a csv `image,prompt[,value]`; images are relative to the csv; without values they are nan."""
    rows = read_csv(path, ("image", "prompt"))
    try:
        values = [float(row["value"]) if row.get("value") else math.nan for row in rows]
    except ValueError as error:
        raise InputError(str(error), where=path) from None
    return [path.parent / row["image"] for row in rows], [row["prompt"] for row in rows], values


def compare(scorer: Scorer, path: Path, *, tolerance: float) -> Iterator[Check]:
    """The scorer against a csv of images, prompts and the values that the original package gave for them.

    Rows without a value are checked against the known range of PickScore cosines, or shown for information.
    """
    files, prompts, values = read_expected(path)
    found = scorer.score([open_rgb_file(file) for file in files], prompts)
    low, high = PICKSCORE_RANGE
    for file, value, wanted in zip(files, found.tolist(), values, strict=True):
        if not np.isnan(wanted):
            yield Check(file.name, value, wanted, tolerance)
        elif scorer.name.startswith("pickscore"):
            yield Check(f"{file.name}, in the known range", value, (low + high) / 2, (high - low) / 2)
        else:
            yield Check(file.name, value, math.nan, math.nan)


def verify(
    spec: str,
    *,
    device: str | None = None,
    expected: Path | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    images: Path | None = None,
    prompts: Path | None = None,
) -> list[Check]:
    """Every check there is for a scorer: published numbers, a csv of reference values, HPSv2's benchmark images.

    Args:
        spec: NAME[:PREPROCESS][@PATH].
        device: torch device; None: the accelerator that torch sees, else cpu.
        expected: csv `image,prompt,value` from the original package.
        tolerance: for `expected`.
        images: HPSv2's published SDXL Base 0.9 images (hpsv2.1 only), with `prompts`.
        prompts: HPSv2's benchmark prompts.

    Raises:
        InputError: there is nothing to check this scorer against, or something cannot be had.
    """
    chosen = parse(spec)
    name = chosen.kind.name
    checks: list[Check] = []
    if (images is None) != (prompts is None) or (images is not None and name != "hpsv2.1"):
        raise InputError("--images and --prompts go together, and with hpsv2.1 alone", where=spec)
    if images is not None and prompts is not None:
        variant = chosen.preprocess or chosen.kind.preprocess
        checks += benchmark(make(spec, device=device), images, prompts, variant=variant)
    elif name == "aesthetic":
        checks += _head(chosen)
    elif name == "imagereward":
        checks += _readme(make(spec, device=device))
    elif name == "hpsv2.1":
        checks += _demo(chosen, device)
    if expected is not None:
        checks += compare(make(spec, device=device), expected, tolerance=tolerance)
    if not checks:
        remedy = "add --expected FILE.csv with values of the original package (docs/scorers.md says how)"
        raise InputError(f"no number of {name} was published for a known image", where=spec, remedy=remedy)
    return checks
