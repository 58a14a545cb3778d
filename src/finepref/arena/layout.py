"""Which column of a vote file plays which role, and the well-known schemas that say so by themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from finepref.core.errors import InputError, nearest

PAIR_ROLES = ("left", "right", "winner", "left_image", "right_image", "prompt", "voter", "id")
GAME_ROLES = ("group", "model", "rank", "image", "prompt", "voter", "id")

# The first of these columns that a file has plays the role.
ALIASES: dict[str, tuple[str, ...]] = {
    "left": ("left", "model_0", "model_a", "model1", "chosen_model", "model_chosen"),
    "right": ("right", "model_1", "model_b", "model2", "rejected_model", "model_rejected"),
    "winner": ("winner", "outcome", "label_0"),
    "left_image": ("left_image", "image_0_uid", "path1", "image_a", "chosen_file_name", "chosen_image"),
    "right_image": ("right_image", "image_1_uid", "path2", "image_b", "rejected_file_name", "rejected_image"),
    "prompt": ("prompt", "caption"),
    "voter": ("voter", "user_id", "worker", "annotator"),
    "id": ("vote_id", "ranking_id"),
    "group": ("group",),
    "model": ("model",),
    "rank": ("rank",),
    "image": ("image", "image_path"),
}
NO_MODEL = "(model not named)"


@dataclass(frozen=True, slots=True)
class Layout:
    """schema: name of what was recognised. columns: role -> column. winner None: the left side won every row.

    check: a second label column that must be one minus the first. labelled: a column that is false where a row has no
    vote. Roles `left`, `right`, `model` may be absent: then the file names images only, and all share one model.
    """

    schema: str
    columns: Mapping[str, str]
    kwise: bool = False
    check: str | None = None
    labelled: str | None = None

    @property
    def wanted(self) -> list[str]:
        """The columns to read, each once."""
        extra = [name for name in (self.check, self.labelled) if name is not None]
        return list(dict.fromkeys([*self.columns.values(), *extra]))


def detect(
    present: Collection[str], named: Mapping[str, str], *, where: object, not_names: Collection[str] = ()
) -> Layout:
    """The layout of a file with these columns; `named` (role -> column) is what the user said and goes first.

    not_names: columns that cannot be names (bytes, structs), such as embedded images; they play no role by themselves.

    Raises:
        InputError: a named column is missing or not a name; no roles can be found.
    """
    for role, column in named.items():
        if column not in present:
            raise InputError(f"column {column!r} is missing", where=where, remedy=_remedy(column, present))
        if column in not_names:
            raise InputError(f"column {column!r} ({role}) holds no names", where=where, remedy="name a column of text")
    usable = [name for name in present if name not in not_names]
    if {"group", "model", "rank"} & set(named):
        return _games(usable, named, where)
    if {"left", "right", "winner"} & set(named):
        return _pairs(usable, named, where)
    if {"group", "model", "rank"} <= set(usable):
        return _games(usable, named, where)
    if {"prompt_id", "rank"} <= set(usable) and not {"left", "right", "winner", "model_0"} & set(usable):
        return _games(usable, {"group": "prompt_id", **named}, where, schema="imagereward")
    return _pairs(usable, named, where)


def _find(roles: tuple[str, ...], usable: Collection[str], named: Mapping[str, str]) -> dict[str, str]:
    found = dict(named)
    for role in roles:
        if role not in found:
            column = next((name for name in ALIASES[role] if name in usable), None)
            if column is not None:
                found[role] = column
    return {role: found[role] for role in roles if role in found}


def _games(usable: Collection[str], named: Mapping[str, str], where: object, schema: str = "kwise") -> Layout:
    found = _find(GAME_ROLES, usable, named)
    required = ("group", "rank") if schema == "imagereward" else ("group", "model", "rank")
    for role in required:
        if role not in found:
            raise InputError(
                f"column {role!r} is missing", where=where, remedy=f"name it with --{role}; {_have(usable)}"
            )
    if "model" not in found and "image" not in found:
        raise InputError("there is neither a model nor an image column", where=where, remedy=_have(usable))
    return Layout(schema, found, kwise=True)


def _pairs(usable: Collection[str], named: Mapping[str, str], where: object) -> Layout:
    found = _find(PAIR_ROLES, usable, named)
    if {"winner", "loser"} <= set(usable) and not {"left", "right"} & set(found):
        found = {role: column for role, column in found.items() if role != "winner"}
        return Layout("winner-loser", {**found, "left": "winner", "right": "loser"})
    if {"path1", "path2", "model1", "model2"} <= set(usable) and "winner" not in found:
        return Layout("hpdv3", found)  # path1 is always the preferred image
    if "winner" not in found and ({"chosen", "rejected"} <= set(usable) or "rejected_file_name" in usable or (
        found.get("right") in ("rejected_model", "model_rejected"))):  # fmt: skip
        return _chosen(usable, found)
    for role in ("left", "right", "winner"):
        if role not in found:
            raise InputError(
                f"column {role!r} is missing", where=where, remedy=f"name it with --{role}; {_have(usable)}"
            )
    schema, check, labelled = "votes", None, None
    if found["winner"] == "label_0":
        schema = "pickapic"
        check = "label_1" if "label_1" in usable else None
        labelled = "has_label" if "has_label" in usable else None
    return Layout(schema, found, check=check, labelled=labelled)


def _chosen(usable: Collection[str], found: dict[str, str]) -> Layout:
    """chosen/rejected: models where a model column stands beside them, else the columns name what was compared."""
    both = {"chosen", "rejected"} <= set(usable)
    if both and ("left" in found or "left_image" not in found):
        if "left" in found:
            found = {
                **found,
                "left_image": found.get("left_image", "chosen"),
                "right_image": found.get("right_image", "rejected"),
            }
        else:
            found = {**found, "left": "chosen", "right": "rejected"}
    return Layout("chosen-rejected", found)


def _have(usable: Collection[str]) -> str:
    return "the file has " + ", ".join(sorted(usable))


def _remedy(column: str, present: Collection[str]) -> str:
    return nearest(column, sorted(present)) if present else "the file has no columns"
