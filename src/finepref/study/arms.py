"""The files of a study: one JSON row an arm, one a tuned method; what is finished in them is not run again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Required

from pydantic import Field
from typing_extensions import TypedDict

from finepref.core.errors import InputError
from finepref.core.files import read_json, read_object, write_text
from finepref.core.provenance import hash_config, versions
from finepref.formats.records import as_record
from finepref.study.design import BASE, Arm, Study
from finepref.study.trial import Point
from finepref.train.config import load_config

FORMAT = 2
DAMAGED = "remove this file, and the study makes it again"
Finite = Annotated[float, Field(allow_inf_nan=False)]


class HeldSeed(TypedDict, total=False):
    """What a row holds of a seed: scores of every picture, or why it broke off."""

    quality: Annotated[list[Finite], Field(min_length=1)]
    reward: Annotated[list[Finite], Field(min_length=1)]
    failed: str


class HeldPoint(TypedDict, total=False):
    """What a row holds of a point of the grid."""

    mean: Finite
    learning_rate: Required[Finite]
    strength: Required[Finite]


class HeldRow(TypedDict, total=False):
    """What every row holds that is read again."""

    identity: Required[str]
    learning_rate: Finite
    strength: Finite
    seeds: dict[Annotated[str, Field(pattern="^[0-9]+$")], HeldSeed]
    grid: dict[Annotated[str, Field(pattern="^[0-9]+$")], HeldPoint]


def tuning_file(rows: Path, name: str) -> Path:
    """Where the tuning of a method, or of an arm with a grid of its own, is kept."""
    return rows / "tuning" / f"{name}.json"


def arm_file(rows: Path, arm: Arm | None) -> Path:
    """Where the row of an arm is kept."""
    return rows / f"{BASE if arm is None else arm.name}.json"


def tuning_identity(study: Study, arm: Arm, world: str) -> str:
    """Hash of everything that decides a tuning; `arm` as in `Study.tuned`."""
    sections = {"data", "training", "evaluation", "tuning"}
    what = {"arm": _what(arm)} if arm.tuned == "arm" else {"method": arm.method}
    return _identity(study, sections, **what, axes=_axes(arm.method), world=world)


def arm_identity(study: Study, arm: Arm | None, point: Point | None, world: str) -> str:
    """Hash of everything that decides the outcomes of an arm but the seed."""
    if arm is None or point is None:
        return _identity(study, {"evaluation"}, world=world)
    values = [point.learning_rate, point.strength]
    sections = {"data", "training", "evaluation"}
    return _identity(study, sections, arm=_what(arm), axes=_axes(arm.method), point=values, world=world)


def _what(arm: Arm) -> dict[str, Any]:
    """What of an arm decides its trials, but for the tuned values."""
    return arm.model_dump(mode="json", exclude={"label", "tuned"} if arm.control else {"label", "tuned", "control"})


def _identity(study: Study, sections: set[str], **what: Any) -> str:
    settings = study.model_dump(mode="json", include=sections)
    return hash_config({"format": FORMAT, "study": settings, **what})[:16]


def _axes(method: str) -> dict[str, Any]:
    """What of a lab config shapes a trial: all that the study does not set itself."""
    config = load_config(f"lab/{method}")
    return {
        "trajectory": config.trajectory.model_dump(),
        "objective": config.objective.model_dump(),
        "guard": config.guard.model_dump(),
        "margin_scale": config.signal.margin_scale,
        "prompt_dropout": config.data.prompt_dropout,
        "desirable_share": config.data.desirable_share,
        **({"swap": True} if config.signal.swap else {}),
        **({"reference": config.train.reference.model_dump()} if config.train.reference.kind != "frozen" else {}),
        **({} if config.train.levels.whole else {"levels": config.train.levels.model_dump()}),
    }


def read_row(file: Path, identity: str) -> dict[str, Any]:
    """What a row file holds already; an empty row where there is none.

    Raises:
        InputError: it was written for other settings or other lab weights.
    """
    if not file.is_file():
        return {"identity": identity}
    row = read_object(file, remedy=DAMAGED)
    if row.get("identity") != identity:
        remedy = "give the study that it is of with -c, name another --out, or start again with --overwrite"
        raise InputError("it was written for other settings or other lab weights", where=file, remedy=remedy)
    as_record(HeldRow, row, where=file, remedy=DAMAGED)
    lengths = {len(values) for each in row.get("seeds", {}).values() for values in _scores(each, file)}
    if len(lengths) > 1:
        raise InputError(f"its seeds have scores of {sorted(lengths)} prompts", where=file, remedy=DAMAGED)
    return row


def _scores(result: Mapping[str, Any], file: Path) -> list[Any]:
    """The scores of a seed's pictures; none where its training broke off."""
    if "failed" in result:
        return []
    if not {"quality", "reward"} <= {*result}:
        raise InputError("a seed has neither scores nor the reason why not", where=file, remedy=DAMAGED)
    return [result["quality"], result["reward"]]


def is_row(file: Path) -> bool:
    """Whether a JSON file is a row of a study."""
    try:
        held = read_json(file)
    except InputError:
        return False
    return isinstance(held, dict) and {"identity", "versions"} <= {*held}


def write_row(file: Path, row: Mapping[str, Any]) -> None:
    """Write a row: one line a trial, so that a diff shows what came in."""

    def lines(key: str, value: Any) -> str:
        if key in ("seeds", "grid") and isinstance(value, Mapping):
            inner = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            return f"{json.dumps(key)}: {{\n{inner}\n}}"
        return f"{json.dumps(key)}: {json.dumps(value)}"

    content = {**row, "versions": versions()}
    write_text(file, "{\n" + ",\n".join(lines(key, value) for key, value in content.items()) + "\n}\n")


def best_mean(row: Mapping[str, Any], grid: list[tuple[float, float]]) -> float | None:
    """The best mean true quality of a finished grid; None while some of it is missing, or where nothing trained."""
    found = _finished(row, grid)
    return None if found is None else max((point["mean"] for point in found if "mean" in point), default=None)


def best_point(row: Mapping[str, Any], grid: list[tuple[float, float]]) -> Point | None:
    """The grid point with the best mean true quality on the validation prompts; None while some are missing.

    Raises:
        InputError: no point of the grid could be trained.
    """
    found = _finished(row, grid)
    if found is None:
        return None
    scored = [(point["mean"], -i) for i, point in enumerate(found) if "mean" in point]
    if not scored:
        raise InputError(f"no grid point of {row.get('method')} could be trained", remedy="lower tuning.learning_rate")
    rate, strength = grid[-max(scored)[1]]
    return Point(rate, strength)


def _finished(row: Mapping[str, Any], grid: list[tuple[float, float]]) -> list[Mapping[str, Any]] | None:
    """The points of a grid in order; None while some are missing."""
    found = row.get("grid", {})
    numbers = [str(i) for i in range(len(grid))]
    return None if any(number not in found for number in numbers) else [found[number] for number in numbers]
