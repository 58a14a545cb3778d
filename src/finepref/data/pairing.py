"""Preference sets made from scores alone: images of one prompt, compared by a scorer. No torch."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import NamedTuple

from finepref.core.errors import InputError, check_word, nearest
from finepref.core.outfolders import check_folder, made_as, settle, whole_folder
from finepref.core.progress import say
from finepref.core.provenance import hash_config, provenance, sha256_bytes, sha256_file
from finepref.formats.folders import PAIRS
from finepref.formats.manifest import LINES, ImageRow, read_rows
from finepref.formats.preferences import Preference, write_pairs
from finepref.formats.prompts import prompt_sha256
from finepref.formats.rewards import Reward, write_rewards
from finepref.formats.scores import SCORES, ScoredBy, read_scores


def pair_from_scores(
    folder: str | Path,
    out: str | Path,
    *,
    scorer: str,
    choose: str = "all",
    min_gap: float = 0.0,
    overwrite: bool = False,
) -> dict[str, int]:
    """A preference set from an evaluation folder: images of one prompt compared by a scorer, no human needed.

    Writes `pairs.parquet` (house format) and `rewards.parquet` (the scores by pair and side) into `out`.

    Args:
        folder: with manifest.jsonl and scores.parquet (`finepref generate`, `finepref score`).
        scorer: whose values decide; its own direction (higher_is_better in the file's footer) is obeyed.
        choose: `all` pairs of a prompt's images, or `best_worst` alone.
        min_gap: pairs whose values differ by less are left out; equal values are ties.

    Returns:
        counts: pairs, prompts, skipped (images without a score).

    Raises:
        InputError: no such scorer in the file, or fewer than two scored images for every prompt.
    """
    folder, out = Path(folder), Path(out)
    check_word(choose, ("all", "best_worst"), "choice", where="choose")
    check_folder(out, PAIRS, inputs=[folder])
    settle(out, PAIRS)
    files = {name: sha256_file(folder / name) for name in (LINES, SCORES) if (folder / name).is_file()}
    made = hash_config({"files": files, "scorer": scorer, "choose": choose, "min_gap": min_gap})
    if (out / "rewards.parquet").exists() and not overwrite and made_as(out) != made:
        raise InputError("pairs.parquet is there already", where=out, remedy="use another folder, or --overwrite")
    groups, skipped, about = _scored_images(folder, scorer)
    pairs: list[Preference] = []
    rewards: list[Reward] = []
    for prompt, images in groups.items():
        sha = prompt_sha256(prompt)
        for a, b in _pairs_of(images, choose):
            if abs(a.value - b.value) < min_gap:
                continue
            pair_id = sha256_bytes("\x1f".join([prompt, a.row.image_sha256, b.row.image_sha256]).encode())[:32]
            image_0, image_1 = (each.row.image(folder) for each in (a, b))
            label = 0.5 + 0.5 * ((a.better > b.better) - (a.better < b.better))
            pairs.append(Preference(pair_id, prompt, image_0, image_1, label, a.row.model, b.row.model))
            rewards += [
                Reward(pair_id, side, scorer, about.fingerprint, each.value, "", each.row.image_sha256, sha)
                for side, each in enumerate((a, b))
            ]
    if not pairs:
        raise InputError("no prompt has two scored images that differ", where=folder, remedy="generate more seeds")
    with whole_folder(out, PAIRS, fingerprint=made) as place:
        write_pairs(pairs, place / "pairs.parquet")
        write_rewards(place / "rewards.parquet", rewards, {scorer: about}, provenance(inputs=[folder / SCORES]))
    return {"pairs": len(pairs), "prompts": len({pair.prompt for pair in pairs}), "skipped": skipped}


class _Scored(NamedTuple):
    """An image with its value; better: the value turned so that more is better."""

    row: ImageRow
    value: float
    better: float


def _pairs_of(images: list[_Scored], choose: str) -> list[tuple[_Scored, _Scored]]:
    if choose == "all":
        pairs = itertools.combinations(images, 2)
        return [(a, b) for a, b in pairs if a.row.image_sha256 != b.row.image_sha256]
    ranked = sorted(images, key=lambda each: each.better)
    return [(ranked[-1], ranked[0])] if len(images) > 1 and ranked[0].better < ranked[-1].better else []


def _scored_images(folder: Path, scorer: str) -> tuple[dict[str, list[_Scored]], int, ScoredBy]:
    """Distinct images of each prompt with their value, how many have none, and what is known of the scorer."""
    found = read_scores(folder)
    if scorer not in found.scorers:
        raise InputError(f"no scores of {scorer!r}", where=folder / SCORES, remedy=nearest(scorer, found.scorers))
    about = found.scorers[scorer]
    sign = 1.0 if about.higher_is_better else -1.0
    own = (row for row in found.rows if row.scorer == scorer and row.fingerprint == about.fingerprint)
    values = {(row.image_sha256, row.prompt_sha256): row.value for row in own}
    groups: dict[str, list[_Scored]] = {}
    seen: set[tuple[str, str]] = set()
    skipped = 0
    for row in read_rows(folder):
        key = (row.image_sha256, row.prompt_sha256)
        value = values.get(key, math.nan)
        if math.isnan(value):
            skipped += 1
        elif key not in seen:
            seen.add(key)
            groups.setdefault(row.prompt, []).append(_Scored(row, value, sign * value))
    if skipped:
        say(f"{skipped} images have no score of {scorer} and are left out")
    return groups, skipped, about
