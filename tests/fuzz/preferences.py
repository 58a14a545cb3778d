"""Preference data sets with pictures, in the dialects that training reads; pairs and labels are drawn first."""

from __future__ import annotations

import functools
import io
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fuzz.damage import any_bytes, misplaced
from fuzz.tables import Saved, save
from fuzz.votes import Ballot, Truth

Draw = random.Random
Pair = tuple[bytes, bytes, float | None]  # left picture, right picture, P(left is better) or no vote


@dataclass
class PreferenceInput:
    """A table and its pictures below the folder of the input, and what is true of them (None: not known)."""

    saved: Saved | None
    pictures: dict[str, bytes]
    truth: list[Pair] | None = None
    void: int = 0
    options: tuple[str, ...] = ()
    plain: bool = False
    about: str = ""
    votes: Truth = field(default_factory=lambda: Truth(known=False))  # the same as votes on models
    spoilt: list[str] = field(default_factory=list)  # pictures of which something else stands in the place

    def write(self, folder: Path, draw: Draw) -> None:
        """Put it into the folder."""
        for name, content in self.pictures.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        if self.saved is not None:
            (folder / self.saved.name).write_bytes(self.saved.content)
        for name in self.spoilt:
            misplaced(draw, folder / name)


@functools.cache
def picture(number: int, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A small picture; every number another one."""
    pixels = np.random.default_rng(number).integers(0, 255, (8, 8 + number % 3, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


@dataclass(frozen=True)
class _Drawn:
    """Row number `k` compares pictures 2k and 2k+1 (their names, or their bytes in a parquet file)."""

    prompt: str
    left: str
    right: str
    share: float | None
    models: tuple[str, str]
    voter: str


Rows = list[dict[str, Any]]


def _files(rows: list[_Drawn], left: str, right: str, *, by_order: bool) -> Rows:
    held = []
    for row in rows:
        turned = by_order and row.share == 0.0
        first, second = (row.right, row.left) if turned else (row.left, row.right)
        models = row.models[::-1] if turned else row.models
        held.append({"prompt": row.prompt, left: first, right: second, "model1": models[0], "model2": models[1]})
    return held


def _chosen(draw: Draw, rows: list[_Drawn]) -> Rows:
    left, right = draw.choice((("chosen_file_name", "rejected_file_name"), ("chosen", "rejected"), ("path1", "path2")))
    return _files(rows, left, right, by_order=True)


def _words(draw: Draw, rows: list[_Drawn]) -> Rows:
    words = draw.choice((("left", "right", "tie"), ("Left", "Right", "Tie"), ("A", "B", "equal"), ("a", "b", "draw")))
    held = _files(rows, "left_image", "right_image", by_order=False)
    for row, drawn in zip(held, rows, strict=True):
        row["left"], row["right"] = row.pop("model1"), row.pop("model2")
        row["winner"] = {1.0: words[0], 0.0: words[1], 0.5: words[2]}[drawn.share or 0.0]
        if drawn.share == 1.0 and draw.random() < 0.1:
            row["winner"] = row["left"]
    return held


def _house(draw: Draw, rows: list[_Drawn]) -> Rows:
    held = _files(rows, "image_0", "image_1", by_order=False)
    return [row | {"label": drawn.share, "voter": drawn.voter} for row, drawn in zip(held, rows, strict=True)]


def _pickapic(draw: Draw, rows: list[_Drawn]) -> Rows:
    held = _files(rows, "image_a", "image_b", by_order=False)
    for number, (row, drawn) in enumerate(zip(held, rows, strict=True)):
        share = drawn.share
        row |= {"label_0": share, "label_1": None if share is None else 1 - share, "ranking_id": number}
        row |= {"caption": row.pop("prompt"), "has_label": share is not None, "user_id": 3}
        row |= {"model_0": row.pop("model1"), "model_1": row.pop("model2"), "jpg_0": row.pop("image_a")}
        row["jpg_1"] = row.pop("image_b")
    return held


def _choice_beside(draw: Draw, rows: list[_Drawn]) -> Rows:
    """Columns that imply an order beside one that says another: the one that says it is right."""
    left, right = draw.choice((("chosen", "rejected"), ("path1", "path2")))
    held = _files(rows, left, right, by_order=False)
    column, words = draw.choice(
        (("choice", (1, 2, 0)), ("preference", ("first", "second", "tie")), ("label", ("left", "right", "tie")))
    )
    for row, drawn in zip(held, rows, strict=True):
        row[column] = {1.0: words[0], 0.0: words[1], 0.5: words[2]}[drawn.share or 0.0]
    return held


DIALECTS: Mapping[str, tuple[Callable[[Draw, list[_Drawn]], Rows], tuple[float | None, ...]]] = {
    "chosen": (_chosen, (1.0, 0.0)),
    "words": (_words, (1.0, 0.0, 0.5)),
    "house": (_house, (1.0, 0.0, 0.5, None)),
    "pickapic": (_pickapic, (1.0, 0.0, 0.5)),
    "choice beside": (_choice_beside, (1.0, 0.0, 0.5)),
}


def preferences(draw: Draw) -> PreferenceInput:
    """A data set in any dialect, with a fault in some rows of every third."""
    plain = draw.random() < 0.3
    name = draw.choice([name for name in DIALECTS if not plain or name != "choice beside"])
    dialect, shares = DIALECTS[name]
    count = draw.choice((1, 2, 5, 5, 12))
    names = [f"{draw.choice(('img', 'pictures/a', 'p'))}{k}.png" for k in range(2 * count)]
    pictures = {file: picture(k) for k, file in enumerate(names)}
    drawn = [
        _Drawn(
            _prompt(draw, plain),
            names[2 * k],
            names[2 * k + 1],
            draw.choice(shares if k else (1.0,)),
            _models(draw),
            "v1",
        )
        for k in range(count)
    ]
    rows = dialect(draw, drawn)
    found = PreferenceInput(None, pictures, about=name)
    found.truth = [(pictures[row.left], pictures[row.right], row.share) for row in drawn]
    found.votes = Truth(rows=len(drawn), void=sum(row.share is None for row in drawn))
    for row in drawn:
        if row.share is not None:
            found.votes.add(Ballot(*row.models, round(2 * row.share) - 1, row.prompt, row.voter))
    if not plain and draw.random() < 0.4:
        found.votes.known = False
        _spoil(draw, found, rows, drawn)
    found.saved = save(draw, rows, list(rows[0]), stem=draw.choice(("v", "metadata")), plain=plain)
    found.plain, found.options = plain and found.saved.plain, found.saved.options
    return found


def _prompt(draw: Draw, plain: bool) -> str:
    texts = ["a cat", "a red circle on a square", "two dogs"]
    return draw.choice(texts if plain else [*texts, 'with "quotes", and commas', "two\nlines", "é 日本 🚀"])


def _models(draw: Draw) -> tuple[str, str]:
    return draw.choice((("old", "new"), ("new", "old"), ("new", "best one")))


def _spoil(draw: Draw, found: PreferenceInput, rows: Rows, drawn: list[_Drawn]) -> None:
    """One row that cannot be used, or one that reaches outside of the folder."""
    at = draw.randrange(len(rows))
    columns = [name for name, value in rows[at].items() if value in (drawn[at].left, drawn[at].right)]
    way = draw.choice(("gone", "broken", "misplaced", "outside", "no prompt", "not a picture", "strange"))
    assert found.truth is not None
    if way in ("gone", "broken", "misplaced"):
        name = draw.choice((drawn[at].left, drawn[at].right))
        found.pictures[name] = b"" if way != "broken" else any_bytes(draw, found.pictures[name])
        if way == "gone":
            del found.pictures[name]
        elif way == "misplaced":
            found.spoilt.append(name)
        found.truth = None
    elif way == "no prompt":
        key = "caption" if "caption" in rows[at] else "prompt"
        rows[at][key] = draw.choice((None, "", "  ", "NaN", "false"))
        found.truth = None
    else:
        outside = (
            "/etc/passwd",
            "../secret.png",
            "/dev/zero",
            "/proc/self/environ",
            "..",
            "",
            "a\x00b.png",
            "x" * 3000,
        )
        strange = ("\u202egnp.exe", "https://example.com/a.png", "C:\\a.png", "img0.png ", "./img0.png")
        rows[at][draw.choice(columns)] = draw.choice(outside if way == "outside" else strange)
        found.truth = None
