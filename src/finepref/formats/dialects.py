"""The ways in which people write preferences down: one table, from which columns (votes) and rows (pairs) are read.

Roles of a row that is a comparison:
    left, right             names of the two models
    winner                  the outcome; a dialect without it lists the winner on the left
    left_image, right_image the two pictures: bytes, a {bytes, path} record, or a file
    left_uid, right_uid     the data set's own names of the pictures
    other_label             a second label, which must be one minus `winner`
    has_label               false where nobody voted
Roles of a row that is one item of a ranking (K-wise; all pairs of a group are compared):
    group, rank             which ranking, and the place in it: low is best, equal is a tie
    model, image            the item
Of both: prompt, voter, id (name of a vote), pair_id (stable id of a pair, for training).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from finepref.core.errors import InputError, check_word, nearest
from finepref.core.rows import RowTable
from finepref.formats.outcomes import LEFT, RIGHT, Vocabulary
from finepref.formats.tables import Row, Table, is_missing

Names = tuple[str, ...]

MODEL_LEFT: Names = ("left", "model_0", "model_a", "model1", "chosen_model", "model_chosen")
MODEL_RIGHT: Names = ("right", "model_1", "model_b", "model2", "rejected_model", "model_rejected")
WINNER: Names = ("winner", "outcome")
VOTER: Names = ("voter", "user_id", "worker", "annotator")
COMMON: dict[str, Names] = {"prompt": ("prompt", "caption", "text"), "voter": VOTER, "id": ("vote_id", "ranking_id")}
PAIR: dict[str, Names] = {**COMMON, "left": MODEL_LEFT, "right": MODEL_RIGHT}
IMAGES: dict[str, Names] = {
    "left_image": ("left_image", "path1", "image_a", "chosen_file_name", "chosen_image"),
    "right_image": ("right_image", "path2", "image_b", "rejected_file_name", "rejected_image"),
    "left_uid": ("image_0_uid",),
    "right_uid": ("image_1_uid",),
}
ITEM: dict[str, Names] = {"rank": ("rank",), "model": ("model",), "image": ("image", "image_path")}
PICTURES = ("left_image", "right_image", "image")


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way of writing preferences down.

    name: as in `--format`. roles: role -> the columns that may play it; the first one that is there does.
    signature: columns that tell this dialect from others, one of each group must be there; unless: none of these may.
    words: its outcome words beside the common ones, in small letters, to LEFT, TIE or RIGHT. shares: the outcome may be
    a number, the left side's share 1, 0.5 or 0. null_is_no_vote: a row without an outcome says that nobody voted; else
    it lost one. hashed_voters: the voter columns that are part of a hashed pair_id.
    flatten: turns a row that lists several items into rows of one item each; then `roles` names the columns of those.
    """

    name: str
    roles: Mapping[str, Names]
    signature: tuple[Names, ...]
    unless: Names = ()
    words: Mapping[str, int] = field(default_factory=dict)
    shares: bool = False
    null_is_no_vote: bool = False
    hashed_voters: Names = VOTER
    flatten: Callable[[Row], Iterator[Row]] | None = None

    @property
    def kwise(self) -> bool:
        """Whether a row is one item of a ranking."""
        return "rank" in self.roles

    @property
    def vocabulary(self) -> Vocabulary:
        """What its outcomes are read with."""
        return Vocabulary(self.words, self.shares)

    @property
    def fields(self) -> Names:
        """Every role and column name that the dialect knows."""
        groups = (*self.roles.values(), *self.signature)
        return tuple(dict.fromkeys([*self.roles, *(name for group in groups for name in group)]))

    def columns(self, role: str, named: Mapping[str, str]) -> list[str]:
        """The columns that may play a role, best first; `named` (role or column name -> column) goes first."""
        return [named[role]] if role in named else [named.get(name, name) for name in self.roles.get(role, ())]

    def lacks(self, present: Collection[str], named: Mapping[str, str]) -> list[Names]:
        """The groups of the signature of which a table has no column."""
        said = {name for role, names in self.roles.items() if role in named for name in names}
        return [
            group for group in self.signature if not any(n in said or named.get(n, n) in present for n in group)
        ]  # fmt: skip

    def cast(
        self, named: Mapping[str, str], *, first: Names, present: Collection[str] | None = None
    ) -> dict[str, list[str]]:
        """Role -> the columns that may play it, each in one role only: the roles in `first` choose first.

        present: the columns that are there; then every role has the best of them, or none. None: all that may be there.
        """
        taken: set[str] = set()
        found: dict[str, list[str]] = {}
        for role in (*(r for r in first if r in self.roles), *(r for r in self.roles if r not in first)):
            columns = [column for column in self.columns(role, named) if column not in taken]
            found[role] = columns if present is None else [column for column in columns if column in present][:1]
            taken.update(found[role])
        return found


def _hpdv2(row: Row) -> Iterator[Row]:
    """A row lists the images of a prompt with one judgement for each: 1 or 0, or a rank."""
    files = row.get("file_path") or row.get("image_path") or []
    chosen = row.get("human_preference")
    ranks = (row.get("rank") or []) if chosen is None else [-float(value) for value in chosen]
    if len(files) != len(ranks) or len(files) < 2:
        remedy = "a row lists at least two images and one judgement for each"
        raise InputError(f"{len(files)} images and {len(ranks)} judgements", remedy=remedy)
    for image, rank in zip(files, ranks, strict=True):
        yield {"prompt": row.get("prompt"), "image": image, "rank": rank}


_IMPLIED = (*WINNER, "label_0")  # columns that say more than the order of two columns
_OF_CHOSEN = ("voter", "user_id")
_SHARES: dict[str, Any] = {"words": {"true": LEFT, "false": RIGHT}, "shares": True, "null_is_no_vote": True}

_ROWS: tuple[Dialect, ...] = (
    Dialect("kwise", {**COMMON, **ITEM, "group": ("group",)}, (("group",), ("rank",), ("model",))),
    Dialect(  # the house format, which `finepref data convert` and `pair` write
        "pairs",
        {
            **PAIR, "winner": ("label",), "left_image": ("image_0",), "right_image": ("image_1",),
            "pair_id": ("pair_id",), "id": ("pair_id", "vote_id"),
        },
        (("image_0",), ("image_1",), ("label",)), hashed_voters=("voter",), **_SHARES,
    ),
    Dialect(
        "pickapic",
        {
            **PAIR, **IMAGES, "prompt": ("caption", "prompt"), "pair_id": ("ranking_id",),
            "winner": ("label_0",), "other_label": ("label_1",), "has_label": ("has_label",),
            "left_image": ("jpg_0", *IMAGES["left_image"]), "right_image": ("jpg_1", *IMAGES["right_image"]),
        },
        (("label_0",), ("jpg_0", "jpg_1", "image_0_uid", "best_image_uid", *MODEL_LEFT)),
        unless=WINNER, hashed_voters=("user_id",), **_SHARES,
    ),
    Dialect(
        "imagefolder", {**PAIR, "left_image": ("chosen_file_name",), "right_image": ("rejected_file_name",)},
        (("chosen_file_name",), ("rejected_file_name",)), unless=_IMPLIED, hashed_voters=_OF_CHOSEN,
    ),
    Dialect(  # where no column names a model, `chosen` and `rejected` do, if the votes are rated
        "chosen_rejected",
        {
            **PAIR, "left": (*MODEL_LEFT, "chosen"), "right": (*MODEL_RIGHT, "rejected"),
            "left_image": ("chosen", "chosen_image"), "right_image": ("rejected", "rejected_image"),
        },
        (
            ("chosen", "chosen_model", "model_chosen", "chosen_image"),
            ("rejected", "rejected_model", "model_rejected", "rejected_image"),
        ),
        unless=_IMPLIED, hashed_voters=_OF_CHOSEN,
    ),
    Dialect(
        "hpdv3", {**PAIR, "left_image": ("path1",), "right_image": ("path2",)}, (("path1",), ("path2",)),
        unless=_IMPLIED, hashed_voters=_OF_CHOSEN,
    ),
    Dialect(
        "hpdv2", {"prompt": ("prompt",), "group": ("group",), "rank": ("rank",), "image": ("image",)},
        (("prompt",), ("file_path", "image_path"), ("human_preference", "raw_annotations")), flatten=_hpdv2,
    ),
    Dialect(
        "imagereward", {**COMMON, **ITEM, "group": ("prompt_id",)},
        (("prompt_id",), ("rank",), ("image", "image_path", "model")),
        unless=("left", "right", "winner", "model_0"), hashed_voters=(),
    ),
    Dialect(
        "winner_loser", {**PAIR, **IMAGES, "left": ("winner",), "right": ("loser",)}, (("winner",), ("loser",)),
        unless=(*MODEL_LEFT, *MODEL_RIGHT),
    ),
    # our own votes and those of the annotation page
    Dialect("votes", {**PAIR, **IMAGES, "winner": WINNER}, (MODEL_LEFT, MODEL_RIGHT, WINNER), shares=True),
)  # fmt: skip
DIALECTS = RowTable("dialect", Dialect, _ROWS, what="format", where="data.format")


def find_dialect(
    present: Collection[str], named: Mapping[str, str], *, where: object, format: str = "auto"
) -> Dialect:  # fmt: skip
    """The dialect of a table with these columns.

    Args:
        present: columns. named: role or column name of the dialect -> the table's column, as the user said.
        format: a name of `DIALECTS`, or auto: the first one whose signature is there.

    Raises:
        InputError: no dialect fits, a named column or field is missing.
    """
    for column in named.values():
        if column not in present:
            raise missing(column, where, present)
    check_word(format, ("auto", *DIALECTS), "format", where="data.format")
    free = {*present}.difference(named.values())
    lacking = {each.name: each.lacks(present, named) for each in DIALECTS.values() if not free & {*each.unless}}
    fitting = [name for name, groups in lacking.items() if not groups] if format == "auto" else [format]
    for name in fitting:
        if named.keys() <= {*DIALECTS[name].fields}:
            return DIALECTS[name]
    if fitting:
        fields = DIALECTS[fitting[0]].fields
        unknown = next(name for name in named if name not in fields)
        what = f"format {fitting[0]} has no field {unknown!r}"
        raise InputError(what, where="columns", remedy=nearest(unknown, fields))
    near = [groups[0] for name, groups in lacking.items() if len(groups) == 1 < len(DIALECTS[name].signature)]
    if near:
        raise missing(near[-1][0], where, present)
    what = "no known preference format has these columns"
    raise InputError(what, where=where, remedy=f"name the format and its columns; it has {', '.join(sorted(present))}")


def missing(column: str, where: object, present: Collection[str]) -> InputError:
    """The refusal of a table without a column that is needed."""
    close = nearest(column, present)
    remedy = f"{close if close.endswith('?') else 'name the column that plays its part;'} it has "
    remedy += ", ".join(sorted(present))
    return InputError(f"column {column!r} is missing", where=where, remedy=remedy)


def flat(table: Table, dialect: Dialect, named: Mapping[str, str]) -> Table:
    """The table with one item a row, where the dialect's rows list several; `group` says which came from one row."""
    flatten = dialect.flatten
    if flatten is None:
        return table

    def read(columns: Sequence[str] | None) -> Iterator[Row]:
        for index, row in enumerate(table.rows(None)):
            try:
                for item in flatten({**row, **{name: row.get(column) for name, column in named.items()}}):
                    yield {"group": str(index), **item}
            except InputError as error:
                raise InputError(error.what, where=f"{table.path}: row {index}", remedy=error.remedy) from None

    columns = tuple(dict.fromkeys(itertools.chain(*dialect.roles.values())))
    return replace(table, columns=columns, rows=read, read_batches=None, nameless=())


@dataclass(frozen=True, slots=True)
class Layout:
    """schema: name of the dialect. columns: role -> column, without models where a file names images only."""

    schema: str
    columns: Mapping[str, str]

    @property
    def dialect(self) -> Dialect:
        """The row of the table of dialects."""
        return DIALECTS[self.schema]

    @property
    def wanted(self) -> list[str]:
        """The columns to read, each once."""
        return list(dict.fromkeys(self.columns.values()))


def layout_of(table: Table, named: Mapping[str, str]) -> tuple[Table, Layout]:
    """The table (of one item a row) and which of its columns play which role; `named` goes first.

    Raises:
        InputError: no dialect fits, a named column is missing or holds no names, neither models nor images are named.
    """
    for role, column in named.items():
        if column in table.nameless:
            remedy = "name a column of text"
            raise InputError(f"column {column!r} ({role}) holds no names", where=table.path, remedy=remedy)
    dialect = find_dialect(table.columns, named, where=table.path)
    table = flat(table, dialect, named)
    usable = [name for name in table.columns if name not in table.nameless]
    cast = dialect.cast(named, first=("left", "right", "model", "id"), present=usable)
    for side in ("left", "right"):
        uid = cast.pop(f"{side}_uid", [])
        if uid and f"{side}_image" not in named:
            cast[f"{side}_image"] = uid
    cast.pop("pair_id", None)
    if "winner" in named:
        cast["other_label"] = cast["has_label"] = []
    columns = {role: found[0] for role, found in cast.items() if found}
    sides = {"left", "right"} if {"left", "right"} & columns.keys() else set()
    for role in sorted((sides | ({"group", "rank", "winner"} & dialect.roles.keys())) - columns.keys()):
        raise missing(dialect.roles[role][0], table.path, usable)
    if not {"left_image", "right_image"} <= columns.keys():
        columns = {role: column for role, column in columns.items() if role not in ("left_image", "right_image")}
    if not {"left", "model", "left_image", "image"} & columns.keys():
        have = f"it has {', '.join(sorted(usable))}"
        raise InputError("it names neither models nor images", where=table.path, remedy=have)
    return table, Layout(dialect.name, columns)


def has_vote(value: Any) -> bool:
    """Whether a row counts by the column that says if anybody voted: not where it says false or 0."""
    return is_missing(value) or str(value).strip().lower() not in ("false", "0", "0.0")
