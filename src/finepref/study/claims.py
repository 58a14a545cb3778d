"""What becomes of a study's claims: when enough seeds have been seen, against whom, and in which words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finepref.evaluate import stats
from finepref.study.arms import best_mean, read_row, tuning_file, tuning_identity
from finepref.study.contrasts import Contrast, Row, contrast
from finepref.study.design import Claim, Study, grid

GOES_ON = "goes on"
WORDS = ("holds", "fails", "equivalent", "undecided", GOES_ON)
MARGIN = 0.03  # true quality; a smaller difference is of no use, and an interval of this half-width is narrow enough


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a claim. than: the opponent; word: one of `WORDS`; p: after Holm over all claims of the study."""

    text: str
    source: str
    than: str
    contrast: Contrast
    p: float
    word: str


def tuned_means(study: Study, folder: Path, *, world: str) -> dict[str, float]:
    """Name of a grid -> mean true quality of its best point on the validation prompts; finished grids only."""
    found = {}
    for name, arm in study.tuned().items():
        row = read_row(tuning_file(folder, name), tuning_identity(study, arm, world))
        best = best_mean(row, grid(study.tuning, arm.method))
        if best is not None:
            found[name] = best
    return found


def opponent(study: Study, claim: Claim, tuned: Mapping[str, float]) -> str | None:
    """The arm that a claim is held against: of several the one whose grid has the best mean; None until all have."""
    if len(claim.opponents) == 1:
        return claim.opponents[0]
    grids = {arm.name: arm.tuned_as for arm in study.arms()}
    if any(grids[name] not in tuned for name in claim.opponents):
        return None
    return max(claim.opponents, key=lambda name: tuned[grids[name]])


def look(study: Study, row: Row, other: Row) -> tuple[int, bool]:
    """(number of seeds that a claim stops at or needs next, whether both arms have them).

    A claim stops at the first look at which its 95 % interval is at most `MARGIN` to either side, or at the last one.
    The rule asks how wide the interval is and never where it lies, so that looking does not favour a verdict.

    References: Chow and Robbins, 1965 (fixed-width sequential intervals).
    """
    for number in study.looks or [len(study.seeds)]:
        seeds = study.seeds[:number]
        if any(str(seed) not in held.get("seeds", {}) for seed in seeds for held in (row, other)):
            return number, False
        found = contrast(row, other, seeds)
        if found is not None and (found.gain.high - found.gain.low) / 2 <= MARGIN:
            return number, True
    return number, True


def seeds_wanted(study: Study, rows: Mapping[str, Row], tuned: Mapping[str, float]) -> dict[str, int]:
    """Arm -> number of seeds that it is to have, by what is known now."""
    first = study.looks[0] if study.looks else len(study.seeds)
    wanted = {arm.name: first for arm in study.arms()}
    for claim in study.claims:
        than = opponent(study, claim, tuned)
        if than is not None:
            number, _ = look(study, rows.get(claim.better, {}), rows.get(than, {}))
            for name in (claim.better, than):
                wanted[name] = max(wanted.get(name, first), number)
    return wanted


def verdicts(study: Study, rows: Mapping[str, Row], tuned: Mapping[str, float]) -> list[Verdict]:
    """Every claim whose arms have run; one that needs more seeds by the rule of `look` goes on, and has no p yet.

    It holds (or fails) where Holm's p is below 0.05. Else the two are equivalent where the whole 95 % interval of the
    difference lies within `MARGIN` of 0 (two one-sided tests at 2.5 %), and the claim is undecided where it does not.
    """
    tested = []
    for claim in study.claims:
        than = opponent(study, claim, tuned)
        if than is None or claim.better not in rows or than not in rows:
            continue
        number, there = look(study, rows[claim.better], rows[than])
        found = contrast(rows[claim.better], rows[than], study.seeds[:number])
        if found is not None:
            tested.append((claim, than, found, there, number))
    reached = [found.p if there and seeds > 1 else 1.0 for _, _, found, there, seeds in tested]
    adjusted = stats.holm([*reached, *[1.0] * (len(study.claims) - len(tested))])
    return [
        Verdict(claim.text, claim.source, than, found, float(p), _word(found, float(p), there, seeds=seeds))
        for (claim, than, found, there, seeds), p in zip(tested, adjusted, strict=False)
    ]


def _word(found: Contrast, p: float, there: bool, *, seeds: int) -> str:
    if not there:
        return GOES_ON
    if seeds < 2:
        return "undecided"  # one seed says nothing of others
    if p < 0.05:
        return "holds" if found.gain.value > 0 else "fails"
    return "equivalent" if found.gain.low > -MARGIN and found.gain.high < MARGIN else "undecided"
