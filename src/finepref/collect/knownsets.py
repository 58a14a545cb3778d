"""Sets whose answer is known (`--gold`): pairs of a study's pictures, from a table of votes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from finepref.core.errors import InputError
from finepref.formats.answers import PictureRow
from finepref.formats.collection import GoldSet, Mode
from finepref.formats.preferences import Quarantined, read_preferences, winner_of


def gold_sets(
    file: Path | None, models: Sequence[str], texts: Mapping[str, str], keys: Sequence[str],
    pictures: Sequence[PictureRow], mode: Mode,
) -> tuple[GoldSet, ...]:  # fmt: skip
    """Pairs of pictures whose better one is known: rows of a table of votes, by prompt and models.

    Args:
        file: the table; None: no pair. texts: key -> prompt. keys: in the order of the study's prompts.

    Raises:
        InputError: a row that is no pair of the study, names no winner, or can mean several pairs; two that contradict
            each other.
    """
    if file is None:
        return ()
    if mode != "pair":
        raise InputError(f"known answers are pairs, the mode is {mode}", where="--gold", remedy="use --mode pair")
    at = {(picture.model, picture.prompt): picture.id for picture in pictures}
    prompts_at: dict[str, list[int]] = {}
    for number, key in enumerate(keys):
        prompts_at.setdefault(texts[key], []).append(number)
    model_at = {model: number for number, model in enumerate(models)}
    found: dict[frozenset[int], GoldSet] = {}
    left: list[Quarantined] = []
    for number, pair in enumerate(read_preferences(file, images=False, quarantine=left), start=1):
        where, better, keyed = f"{file}, row {number}", winner_of(pair.label), prompts_at.get(pair.prompt, [])
        if left:
            break
        if len(keyed) > 1:
            what = (
                f"{len(keyed)} pictures of a model have the prompt {pair.prompt!r}, and it is not known which is meant"
            )
            raise InputError(what, where=where, remedy="take the row out, or give the pictures prompts that differ")
        numbers = [model_at.get(model or "", -1) for model in (pair.model_0, pair.model_1)]
        first, second = (at.get((model, keyed[0] if keyed else -1)) for model in numbers)
        if better is None or first is None or second is None or first == second:
            what = f"{pair.prompt!r} with {pair.model_0!r} and {pair.model_1!r} is no pair of this study with a winner"
            raise InputError(what, where=where, remedy="name prompts and two models of the study, and a winner")
        row = GoldSet((first, second), better)
        before = found.setdefault(frozenset(row.pictures), row)
        if before.pictures[before.better] != row.pictures[row.better]:
            what = f"another row says the opposite of {pair.prompt!r} with {pair.model_0!r} and {pair.model_1!r}"
            raise InputError(what, where=where, remedy="keep the row that is right")
    if left:
        raise InputError(left[0].reason, where=left[0].where, remedy="repair the row, or take it out")
    return tuple(found.values())
