"""The data of K-Sort Eval: prompts with four images ranked by people, and the leaderboard their models stand on."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finepref.core.errors import InputError, cut
from finepref.core.files import read_object, reading

RIVALS = 4
SCORE = re.compile(r"\(\s*([-\d.]+)\s*/\s*([-\d.]+)\s*\)")
ALIASES = {"LCM": "LCM-v1.5", "Dreamshaper-xl-turbo": "Dreamshaper-xl"}

Rating = tuple[float, float]
"""mu, sigma."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A prompt, images of four rated models, and the place people gave each (0 is best)."""

    name: str
    prompt: str
    images: tuple[Path, ...]
    models: tuple[str, ...]
    human_rank: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Instances, mean rating of each one's models [n], overlap with the others [n], and the human leaderboard."""

    instances: tuple[Instance, ...]
    capability: np.ndarray
    overlap: np.ndarray
    leaderboard: dict[str, Rating]

    @property
    def mean_sigma(self) -> float:
        """Mean sigma of the leaderboard, which the final score subtracts three times."""
        return float(np.mean([sigma for _, sigma in self.leaderboard.values()]))


def read_leaderboard(path: Path) -> dict[str, Rating]:
    """Model -> (mu, sigma) from the published leaderboard, whose score column reads `score (mu/sigma)`."""
    found: dict[str, Rating] = {}
    rows = read_object(path).get("sorted_score_list")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError("no list of rows `sorted_score_list`", where=path, remedy="download the data again")
    for row in rows:
        model = next((value for name, value in row.items() if "Model" in name), None)
        score = next((SCORE.search(str(value)) for name, value in row.items() if "Score" in name), None)
        if model is None or score is None:
            raise InputError(f"a row without model or (mu/sigma): {cut(str(row))}", where=path)
        with reading(path, "a leaderboard", remedy="download the data again"):
            found[str(model)] = (float(score[1]), float(score[2]))
    return found


def _read_instance(folder: Path) -> Instance:
    with reading(folder / "result.json", "an instance of K-Sort Eval", remedy="download the data again"):
        record = read_object(folder / "result.json")
        names = [str(name).split("_")[1] if "_" in str(name) else str(name) for name in record["models_name"]]
        prompt = record["prompt"][0] if isinstance(record["prompt"], list) else record["prompt"]
        ranks = tuple(int(rank) for rank in record["img_rank"])
    images = tuple(folder / f"{number}.jpg" for number in range(RIVALS))
    missing = [path for path in images if not path.is_file()]
    if missing or len(names) != RIVALS or len(ranks) != RIVALS:
        raise InputError(f"needs {RIVALS} images, models and ranks", where=missing[0] if missing else folder)
    return Instance(folder.name, str(prompt), images, tuple(ALIASES.get(n, n) for n in names), ranks)


def _array(path: Path) -> np.ndarray:
    with reading(path, "a plain array", remedy="download the data again", missing="download the data again"):
        return np.asarray(np.load(path, allow_pickle=False))


def load_benchmark(folder: Path) -> Benchmark:
    """The data set ksort/K-Sort-Eval from its folder (`Image/`, `Image_meta/`). No pickle is read.

    Raises:
        InputError: a file is missing or not of the data set's form.
    """
    meta = folder / "Image_meta"
    folders = _array(meta / "subfolders.npy").ravel()
    if folders.dtype.kind != "U" or (folders.view(np.uint32) > sys.maxunicode).any():
        raise InputError("no list of names", where=meta / "subfolders.npy", remedy="download the data again")
    names = folders.tolist()
    capability, overlap = _array(meta / "avg_capacitys.npy"), _array(meta / "total_overlaps.npy")
    if not len(names) == len(capability) == overlap.size or len(names) == 0 or capability.dtype.kind not in "iuf":
        raise InputError(f"{len(names)} instances, {len(capability)} capabilities, {len(overlap)} overlaps", where=meta)
    return Benchmark(
        instances=tuple(_read_instance(folder / "Image" / name) for name in names),
        capability=capability.reshape(len(names), -1).mean(axis=1),
        overlap=overlap.reshape(len(names)).astype(np.float64),
        leaderboard=read_leaderboard(meta / "Arena-Leaderboard-Image.json"),
    )
