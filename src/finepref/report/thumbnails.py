"""Pictures of the page: sets of images of one prompt row and seed, within a budget of bytes, and samples of runs."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from finepref.core.errors import InputError
from finepref.core.files import finite
from finepref.core.images import open_rgb_file
from finepref.formats.manifest import ImageRow
from finepref.formats.run import STEP
from finepref.report.inputs import EvaluationFolder, RunFolder, read_samples

BUDGET = 8_000_000
SIDE, TINY = 256, 96
MOST_STEPS, MOST_PROMPTS = 8, 6


@dataclass(slots=True)
class ImageSet:
    """Images of one prompt row and seed: model -> manifest row, model -> data URI, metric -> model -> score."""

    prompt_set: str
    index: int
    seed: int
    prompt: str
    tags: dict[str, str]
    rows: dict[str, ImageRow] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)

    @property
    def tiny(self) -> bool:
        """Whether all images are so small that they are shown pixel by pixel."""
        return all(max(row.size) <= TINY for row in self.rows.values())


def find_items(evaluation: EvaluationFolder) -> list[ImageSet]:
    """Items in the order of seed, prompt set and row, with their scores; of several models those of at least two."""
    found: dict[tuple[str, int, int], ImageSet] = {}
    for row in evaluation.manifest.rows:
        key = (row.prompt_set, row.prompt_index, row.seed)
        found.setdefault(key, ImageSet(*key, row.prompt, dict(row.tags))).rows[row.model] = row
    for sheet in evaluation.sheets:
        for at, (index, seed) in enumerate(zip(sheet.row.tolist(), sheet.seed.tolist(), strict=True)):
            there = found.get((sheet.prompt_set, index, seed))
            if there is not None:
                for metric in evaluation.metrics:
                    lines = {model: line[metric][at] for model, line in sheet.values.items() if metric in line}
                    there.scores[metric] = finite({model: round(float(value), 6) for model, value in lines.items()})
    ordered = sorted(found.values(), key=lambda item: (item.seed, item.prompt_set, item.index))
    return [item for item in ordered if len(item.rows) >= min(2, len(evaluation.models))]


def spread(count: int) -> Iterator[int]:
    """0..count-1 so that every beginning of the sequence is spread evenly (bit-reversed order)."""
    bits = max(1, (count - 1).bit_length())
    for number in range(1 << bits):
        place = int(format(number, f"0{bits}b")[::-1], 2)
        if place < count:
            yield place


def extremes(items: Sequence[ImageSet], metric: str | None, baseline: str | None) -> list[int]:
    """Positions by how far apart a model and the baseline are on a metric, farthest first."""
    gaps = []
    for position, item in enumerate(items):
        line = item.scores.get(metric or "", {})
        base = line.get(baseline or "")
        apart = [abs(value - base) for value in line.values() if value is not None and base is not None]
        gaps.append((max(apart, default=0.0), position))
    return [position for gap, position in sorted(gaps, key=lambda pair: (-pair[0], pair[1])) if gap > 0]


def choose(
    evaluation: EvaluationFolder, items: Sequence[ImageSet], metric: str | None, *, budget: int = BUDGET
) -> list[ImageSet]:
    """Give items their pictures until the budget is spent; half evenly spread, half the largest differences.

    Args:
        evaluation: whose images.
        items: all items.
        metric: whose differences count as large, if there is one.
        budget: bytes of data URIs.

    Returns:
        The items with pictures, in their own order. All of them where the budget allows.
    """
    even, wide = spread(len(items)), iter(extremes(items, metric, evaluation.baseline))
    chosen: set[int] = set()
    spent, turn = 0, 0
    while len(chosen) < len(items):
        sources = (even,) if turn % 2 == 0 else (wide, even)
        position = next(p for source in sources for p in source if p not in chosen)
        turn += 1
        item = items[position]
        root = evaluation.folder
        pictures = {model: data_uri(root / row.path, root=root) for model, row in item.rows.items()}
        size = sum(len(picture) for picture in pictures.values())
        if chosen and spent + size > budget:
            break
        item.pictures = pictures
        spent += size
        chosen.add(position)
    return [items[position] for position in sorted(chosen)]


def gone(evaluation: EvaluationFolder, shown: Sequence[ImageSet]) -> list[str]:
    """What is said of images that are not there, cannot be read, or have none of another model beside them."""
    rows, missing = evaluation.manifest.rows, evaluation.missing
    damaged = Counter(
        model
        for item in shown
        for model, row in item.rows.items()
        if not item.pictures[model] and (evaluation.folder / row.path).is_file()
    )
    sets = Counter((row.prompt_set, row.prompt_index, row.seed) for row in rows)
    alone = Counter(row.model for row in rows if sets[row.key[1:]] == 1 < len(evaluation.models))
    found = (
        ("Images missing", missing, f" of {len(rows):,}"),
        ("Images that cannot be read", damaged, ""),
        ("Images not shown, with none of another model beside them", alone, ""),
    )
    return [
        f"{what}: {count.total():,}{of} ({', '.join(f'{number:,} of {model}' for model, number in count.items())})."
        for what, count, of in found
        if count
    ]


def data_uri(path: Path, *, root: Path | None = None) -> str:
    """A data URI of an image, at most 256 pixels a side; tiny ones as they are; empty where it cannot be read.

    root: the folder that it must lie in, where a manifest names it.
    """
    if not path.is_file():
        return ""
    try:
        small, buffer = open_rgb_file(path, root=root), io.BytesIO()
    except InputError:
        return ""
    kind = "png" if max(small.size) <= TINY else "webp"
    if kind == "png":
        small.save(buffer, format="PNG", optimize=True)
    else:
        small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        small.save(buffer, format="WEBP", quality=82, method=4)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def gallery_data(evaluation: EvaluationFolder, items: Sequence[ImageSet], metric: str | None) -> dict[str, Any]:
    """What the page's script needs to show, sort and filter the items; `metric` is chosen first."""
    return {
        "metric": metric, "models": evaluation.models, "baseline": evaluation.baseline,
        "metrics": [
            {"name": name, "higher": about.higher_is_better, "trained": about.used_in_training}
            for name, about in evaluation.metrics.items()
        ],
        "tiny": all(item.tiny for item in items),
        "items": [
            {
                "set": item.prompt_set, "row": item.index, "seed": item.seed, "prompt": item.prompt, "tags": item.tags,
                "images": {model: picture for model, picture in item.pictures.items() if picture},
                "paths": {model: row.path for model, row in item.rows.items()}, "scores": item.scores,
            }
            for item in items
        ],
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Strip:
    """Pictures of one prompt and seed at some steps of a run: (step, data URI, empty where it is missing)."""

    run: str
    prompt: str
    seed: int
    pictures: tuple[tuple[int, str], ...]

    @property
    def tiny(self) -> bool:
        """Whether the pictures are so small that they are shown pixel by pixel."""
        return all(picture.startswith("data:image/png") for _, picture in self.pictures if picture)


def read_strips(run: RunFolder) -> list[Strip]:
    """The strips of a run's `samples/step-*/` folders up to its step; at most 8 evenly spaced steps and 6 prompts."""
    root = run.folder / "samples"
    matches = [STEP.fullmatch(folder.name) for folder in root.iterdir()] if root.is_dir() else []
    folders = {int(match[1]): root / match[0] for match in matches if match and (root / match[0]).is_dir()}
    steps = evenly(sorted(step for step in folders if run.until is None or step <= run.until), MOST_STEPS)
    drawn = {step: read_samples(folders[step]) for step in steps}
    prompts, seed = drawn[steps[-1]] if steps else ((), 0)
    strips = []
    for prompt in prompts[:MOST_PROMPTS]:
        files = [
            (step, folders[step] / f"{texts.index(prompt):03d}-{seed}.png")
            for step, (texts, own) in drawn.items()
            if own == seed and prompt in texts
        ]
        pictures = tuple((step, data_uri(path, root=root)) for step, path in files)
        strips.append(Strip(run.name, prompt, seed, pictures))
    return strips


def evenly(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the values, evenly spaced, the first and the last among them."""
    count = min(most, len(values))
    return [values[round(k * (len(values) - 1) / max(1, count - 1))] for k in range(count)]
