"""Images for the page: one item per prompt row and seed, small pictures of every model, within a budget of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from finepref.formats.manifest import ImageRow
from finepref.report.inputs import Evaluation

BUDGET = 8_000_000
SIDE = 256
TINY = 96


@dataclass(slots=True)
class Item:
    """Images of one prompt row and seed: model -> manifest row, model -> data URI, metric -> model -> score."""

    prompt_set: str
    index: int
    seed: int
    prompt: str
    tags: dict[str, str]
    rows: dict[str, ImageRow] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)


def find_items(evaluation: Evaluation) -> list[Item]:
    """Items with images of at least two models, in the order of seed, prompt set and row, with their scores."""
    found: dict[tuple[str, int, int], Item] = {}
    for row in evaluation.rows:
        key = (row.prompt_set, row.prompt_index, row.seed)
        item = found.setdefault(key, Item(*key, row.prompt, dict(row.tags)))
        item.rows[row.model] = row
    for sheet in evaluation.scores.sheets:
        for position, (index, seed) in enumerate(zip(sheet.row.tolist(), sheet.seed.tolist(), strict=True)):
            there = found.get((sheet.prompt_set, index, seed))
            if there is not None:
                there.scores = {
                    metric: {
                        model: _number(lines[metric][position])
                        for model, lines in sheet.values.items()
                        if metric in lines
                    }
                    for metric in evaluation.scores.metrics
                }
    ordered = sorted(found.values(), key=lambda item: (item.seed, item.prompt_set, item.index))
    return [item for item in ordered if len(item.rows) > 1]


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def spread(count: int) -> Iterator[int]:
    """0..count-1 so that every beginning of the sequence is spread evenly (bit-reversed order)."""
    bits = max(1, (count - 1).bit_length())
    for number in range(1 << bits):
        place = int(format(number, f"0{bits}b")[::-1], 2)
        if place < count:
            yield place


def extremes(items: Sequence[Item], metric: str, baseline: str) -> list[int]:
    """Positions by how far apart a model and the baseline are on a metric, farthest first."""
    gaps = []
    for position, item in enumerate(items):
        line = item.scores.get(metric, {})
        base = line.get(baseline)
        apart = [abs(value - base) for value in line.values() if value is not None and base is not None]
        gaps.append((max(apart, default=0.0), position))
    return [position for gap, position in sorted(gaps, key=lambda pair: (-pair[0], pair[1])) if gap > 0]


def choose(evaluation: Evaluation, items: Sequence[Item], metric: str, *, budget: int = BUDGET) -> list[Item]:
    """Give items their pictures until the budget is spent; half evenly spread, half the largest differences.

    Args:
        evaluation: whose images.
        items: all items.
        metric: whose differences count as large.
        budget: bytes of data URIs.

    Returns:
        The items with pictures, in their own order. All of them where the budget allows.
    """
    even, wide = spread(len(items)), iter(extremes(items, metric, evaluation.comparison["baseline"]))
    chosen: set[int] = set()
    spent, turn = 0, 0
    while len(chosen) < len(items):
        source = even if turn % 2 == 0 else wide
        turn += 1
        position = next((p for p in source if p not in chosen), None)
        if position is None:
            source, position = even, next((p for p in even if p not in chosen), None)
            if position is None:
                break
        item = items[position]
        pictures = {model: data_uri(evaluation.folder / row.path) for model, row in item.rows.items()}
        size = sum(len(picture) for picture in pictures.values())
        if chosen and spent + size > budget:
            break
        item.pictures = pictures
        spent += size
        chosen.add(position)
    return [items[position] for position in sorted(chosen)]


def data_uri(path: Path) -> str:
    """A data URI of an image, at most 256 pixels a side; tiny ones as they are; empty where it cannot be read."""
    try:
        with Image.open(path) as image:
            image.load()
            buffer = io.BytesIO()
            if max(image.size) <= TINY:
                image.convert("RGB").save(buffer, format="PNG", optimize=True)
                kind = "png"
            else:
                small = image.convert("RGB")
                small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
                small.save(buffer, format="WEBP", quality=82, method=4)
                kind = "webp"
    except (OSError, ValueError):
        return ""
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def gallery_data(evaluation: Evaluation, items: Sequence[Item], metric: str) -> dict[str, Any]:
    """What the page's script needs to show, sort and filter the items; `metric` is chosen first."""
    return {
        "metric": metric,
        "models": list(evaluation.models),
        "baseline": evaluation.comparison["baseline"],
        "metrics": [
            {"name": name, "higher": about["higher_is_better"], "trained": about["used_in_training"]}
            for name, about in evaluation.comparison["metrics"].items()
        ],
        "tiny": all(max(row.size) <= TINY for item in items for row in item.rows.values()),
        "items": [
            {
                "set": item.prompt_set,
                "row": item.index,
                "seed": item.seed,
                "prompt": item.prompt,
                "tags": item.tags,
                "images": {model: picture for model, picture in item.pictures.items() if picture},
                "paths": {model: row.path for model, row in item.rows.items()},
                "scores": item.scores,
            }
            for item in items
        ],
    }
