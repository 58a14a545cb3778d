"""The preference formats that are understood: which columns each needs, and how its rows become preferences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError
from finepref.data.rows import Row
from finepref.data.schema import ImageRef

Get = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """A preference before it has its id. problem: why the row cannot be used, empty if it can.

    label: P(image_0 preferred) in {1, 0.5, 0}, nan where nobody voted. own_id: the data set's own pair id, if any.
    """

    prompt: str
    image_0: ImageRef
    image_1: ImageRef
    label: float
    model_0: str | None = None
    model_1: str | None = None
    voter: str | None = None
    own_id: str | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Format:
    """name; needs: columns without which it cannot be read (one of each tuple); images: those that hold images.

    signature: columns that tell it from the others. convert: rows of a table -> drafts. own_id: columns with a pair id.
    """

    name: str
    signature: tuple[tuple[str, ...], ...]
    needs: tuple[tuple[str, ...], ...]
    images: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...]
    convert: Callable[[Iterator[Row], Columns], Iterator[Draft]]
    own_id: tuple[str, ...] = ()

    def fields(self) -> tuple[str, ...]:
        """Every column name the format knows."""
        groups = itertools.chain(*self.needs, *self.images, *self.signature, self.own_id, self.optional)
        return tuple(dict.fromkeys(groups))


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a table's fields are. names: field -> column; root: where relative paths start; where: for messages."""

    names: Mapping[str, str]
    root: Path
    where: Path

    def get(self, row: Row, *fields: str) -> Any:
        """The first of `fields` that the table has, None where it has none."""
        for field in fields:
            value = row.get(self.names.get(field, field))
            if value is not None:
                return value
        return None

    def image(self, row: Row, *fields: str, uid: str | None = None) -> ImageRef:
        """An image from bytes, a {bytes, path} record, or a path."""
        value = self.get(row, *fields)
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes | bytearray | memoryview):
            return ImageRef(data=bytes(value), uid=uid)
        if isinstance(value, str) and value:
            return ImageRef(path=self.root / value, uid=uid)
        return ImageRef(uid=uid)

    def text(self, row: Row, *fields: str) -> str | None:
        """A field as text; None where empty."""
        value = self.get(row, *fields)
        return None if value is None or value == "" else str(value)

    def prompt(self, row: Row, *fields: str) -> tuple[str, str]:
        """(prompt, problem)."""
        value = self.get(row, *fields)
        if isinstance(value, list):
            return "", "the prompt is a list"
        if value is None or not str(value).strip():
            return "", "the prompt is empty"
        return str(value), ""

    def number(self, row: Row, field: str, allowed: Sequence[float], index: int) -> float:
        """A number out of `allowed`, nan where the field is empty; anything else is an `InputError` with its place."""
        value = self.get(row, field)
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            return math.nan
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.inf
        if number not in allowed:
            raise InputError(
                f"unknown value {value!r} in column {self.names.get(field, field)!r}",
                where=f"{self.where}: row {index}",
                remedy="use one of " + ", ".join(f"{a:g}" for a in allowed),
            )
        return number


def _pickapic(rows: Iterator[Row], columns: Columns) -> Iterator[Draft]:
    for index, row in enumerate(rows):
        first = columns.number(row, "label_0", (0.0, 0.5, 1.0), index)
        second = columns.number(row, "label_1", (0.0, 0.5, 1.0), index)
        prompt, problem = columns.prompt(row, "caption", "prompt")
        if columns.get(row, "has_label") in (False, "False", "false", 0):
            first = math.nan
        elif not (math.isnan(first) or math.isnan(second)) and first + second != 1.0:
            problem = problem or f"label_0 {first:g} and label_1 {second:g} do not add up to 1"
        yield Draft(
            prompt=prompt,
            image_0=columns.image(row, "jpg_0", uid=columns.text(row, "image_0_uid")),
            image_1=columns.image(row, "jpg_1", uid=columns.text(row, "image_1_uid")),
            label=first,
            model_0=columns.text(row, "model_0"),
            model_1=columns.text(row, "model_1"),
            voter=columns.text(row, "user_id"),
            own_id=columns.text(row, "ranking_id"),
            problem=problem,
        )


def _pairs(rows: Iterator[Row], columns: Columns) -> Iterator[Draft]:
    for index, row in enumerate(rows):
        prompt, problem = columns.prompt(row, "prompt")
        yield Draft(
            prompt=prompt,
            image_0=columns.image(row, "image_0"),
            image_1=columns.image(row, "image_1"),
            label=columns.number(row, "label", (0.0, 0.5, 1.0), index),
            model_0=columns.text(row, "model_0"),
            model_1=columns.text(row, "model_1"),
            voter=columns.text(row, "voter"),
            own_id=columns.text(row, "pair_id"),
            problem=problem,
        )


def _chosen(image_0: str, image_1: str, model_0: str, model_1: str, prompts: tuple[str, ...]) -> Any:
    def convert(rows: Iterator[Row], columns: Columns) -> Iterator[Draft]:
        for row in rows:
            prompt, problem = columns.prompt(row, *prompts)
            yield Draft(
                prompt=prompt,
                image_0=columns.image(row, image_0),
                image_1=columns.image(row, image_1),
                label=1.0,
                model_0=columns.text(row, model_0),
                model_1=columns.text(row, model_1),
                voter=columns.text(row, "voter", "user_id"),
                problem=problem,
            )

    return convert


def _votes(rows: Iterator[Row], columns: Columns) -> Iterator[Draft]:
    for index, row in enumerate(rows):
        prompt, problem = columns.prompt(row, "prompt")
        left = columns.text(row, "left", "model_a", "model_0")
        right = columns.text(row, "right", "model_b", "model_1")
        yield Draft(
            prompt=prompt,
            image_0=columns.image(row, "left_image"),
            image_1=columns.image(row, "right_image"),
            label=_outcome(columns, row, left, right, index),
            model_0=left,
            model_1=right,
            voter=columns.text(row, "voter", "user_id", "worker", "annotator"),
            problem=problem,
        )


_SIDES = {"left": 1.0, "right": 0.0, "tie": 0.5, "model_a": 1.0, "model_b": 0.0, "both": 0.5, "neither": 0.5}


def _outcome(columns: Columns, row: Row, left: str | None, right: str | None, index: int) -> float:
    winner = columns.text(row, "winner")
    if winner is None:
        return math.nan
    if left != right and winner in (left, right):
        return 1.0 if winner == left else 0.0
    side = _SIDES.get(winner.strip().lower())
    if side is None:
        raise InputError(
            f"unknown winner {winner!r}",
            where=f"{columns.where}: row {index}",
            remedy="use left, right, tie or one of the two names of the row",
        )
    return side


def _pairwise(items: list[tuple[ImageRef, float]], prompt: str, problem: str) -> Iterator[Draft]:
    """All pairs of ranked images of one prompt; a higher number is better, equal numbers are a tie."""
    for (image_0, a), (image_1, b) in itertools.combinations(items, 2):
        label = math.nan if math.isnan(a) or math.isnan(b) else 0.5 + 0.5 * ((a > b) - (a < b))
        yield Draft(prompt=prompt, image_0=image_0, image_1=image_1, label=label, problem=problem)


def _hpdv2(rows: Iterator[Row], columns: Columns) -> Iterator[Draft]:
    for index, row in enumerate(rows):
        prompt, problem = columns.prompt(row, "prompt")
        files = columns.get(row, "file_path", "image_path") or []
        chosen = columns.get(row, "human_preference")
        values = list(chosen) if chosen is not None else [-float(r) for r in columns.get(row, "rank") or []]
        if len(files) != len(values) or len(files) < 2:
            raise InputError(
                f"{len(files)} images and {len(values)} judgements",
                where=f"{columns.where}: row {index}",
                remedy="a row lists at least two images and one judgement for each",
            )
        items = [(ImageRef(path=columns.root / str(f)), float(v)) for f, v in zip(files, values, strict=True)]
        yield from _pairwise(items, prompt, problem)


def _imagereward(rows: Iterator[Row], columns: Columns) -> Iterator[Draft]:
    closed: set[str] = set()
    for group, members in itertools.groupby(rows, key=lambda row: str(columns.get(row, "prompt_id"))):
        if group in closed:
            raise InputError(
                f"prompt_id {group!r} comes back after other prompts",
                where=columns.where,
                remedy="sort the table by prompt_id",
            )
        closed.add(group)
        items, prompt, problem = [], "", ""
        for row in members:
            prompt, problem = columns.prompt(row, "prompt")
            rank = columns.get(row, "rank")
            items.append((columns.image(row, "image", "image_path"), math.nan if rank is None else -float(rank)))
        yield from _pairwise(items, prompt, problem)


_PROMPTS = ("prompt", "caption", "text")
_CHOSEN_MODELS = ("chosen_model", "rejected_model")

FORMATS: tuple[Format, ...] = (
    Format(
        name="pairs",
        signature=(("image_0",), ("image_1",), ("label",)),
        needs=(("prompt",), ("label",)),
        images=(("image_0",), ("image_1",)),
        optional=("model_0", "model_1", "voter"),
        convert=_pairs,
        own_id=("pair_id",),
    ),
    Format(
        name="pickapic",
        signature=(("caption", "prompt"), ("label_0",), ("jpg_0", "jpg_1", "image_0_uid", "best_image_uid")),
        needs=(("caption", "prompt"), ("label_0",)),
        images=(("jpg_0",), ("jpg_1",)),
        optional=("label_1", "has_label", "model_0", "model_1", "user_id", "image_0_uid", "image_1_uid"),
        convert=_pickapic,
        own_id=("ranking_id",),
    ),
    Format(
        name="imagefolder",
        signature=(("chosen_file_name", "rejected_file_name"),),
        needs=(_PROMPTS,),
        images=(("chosen_file_name",), ("rejected_file_name",)),
        optional=(*_CHOSEN_MODELS, "voter", "user_id"),
        convert=_chosen("chosen_file_name", "rejected_file_name", *_CHOSEN_MODELS, _PROMPTS),
    ),
    Format(
        name="chosen_rejected",
        signature=(("chosen", "rejected"),),
        needs=(_PROMPTS,),
        images=(("chosen",), ("rejected",)),
        optional=(*_CHOSEN_MODELS, "voter", "user_id"),
        convert=_chosen("chosen", "rejected", *_CHOSEN_MODELS, _PROMPTS),
    ),
    Format(
        name="hpdv3",
        signature=(("path1",), ("path2",)),
        needs=(("prompt",),),
        images=(("path1",), ("path2",)),
        optional=("model1", "model2"),
        convert=_chosen("path1", "path2", "model1", "model2", ("prompt",)),
    ),
    Format(
        name="hpdv2",
        signature=(("prompt",), ("file_path", "image_path"), ("human_preference", "raw_annotations")),
        needs=(("prompt",), ("human_preference", "rank")),
        images=(("file_path", "image_path"),),
        optional=(),
        convert=_hpdv2,
    ),
    Format(
        name="imagereward",
        signature=(("prompt_id",), ("rank",), ("image", "image_path")),
        needs=(("prompt",), ("prompt_id",), ("rank",)),
        images=(("image", "image_path"),),
        optional=(),
        convert=_imagereward,
    ),
    Format(
        name="votes",
        signature=(("left", "model_a", "model_0"), ("right", "model_b", "model_1"), ("winner",)),
        needs=(("left", "model_a", "model_0"), ("right", "model_b", "model_1"), ("winner",), ("prompt",)),
        images=(("left_image",), ("right_image",)),
        optional=("voter", "user_id", "worker", "annotator"),
        convert=_votes,
    ),
)
BY_NAME = {each.name: each for each in FORMATS}
