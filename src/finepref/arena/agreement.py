"""Do voters agree? Krippendorff's alpha of the comparisons that several of them judged.

alpha = 1 - D_o/D_e for nominal answers (left, right, tie): D_o is how often two answers to one comparison differ, D_e
how often two answers to any would. 1: always the same; 0: as by chance.

Which of two pictures is called the first one is nobody's choice, but D_e depends on it. So every comparison is counted
both ways round: alpha is that of twice as many comparisons, and no order of votes or sides changes it. Deviates from a
table of answers whose sides mean something, as those of one question to all would.

References:
    Krippendorff, Computing Krippendorff's Alpha-Reliability (2011).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from finepref.arena.blocks import slices
from finepref.arena.counts import is_weighted, parts
from finepref.arena.normal import Floats
from finepref.arena.ratings import LEVEL
from finepref.core.rng import numpy_generator
from finepref.formats.ratings import AgreementRecord
from finepref.formats.votes import Votes

REPLICATES = 1000
MOST_VOTES = 20_000_000  # beyond them only every k-th comparison is looked at
TOGETHER = 1 << 20  # votes whose comparisons are looked at together
_MIX = np.uint64(0x9E3779B97F4A7C15)


def agreement(votes: Votes, *, seed: int = 0) -> AgreementRecord | None:
    """Alpha over the comparisons that have two votes by different voters (or by voters without a name).

    A comparison is a pair of images; without images, a prompt and a pair of models; without prompts, a pair of models.
    Sides do not matter; of several votes of one voter on a comparison the first counts. The interval draws comparisons
    again, 1,000 times.

    Args:
        votes: with or without voters.
        seed: of the draws.

    Returns:
        None where no comparison has two votes, or every answer is the same.
    """
    patterns, times = _patterns(votes)
    judged = int(times.sum())
    if judged == 0:
        return None
    both = np.concatenate([patterns, patterns[:, [1, 0, 2]]])
    value = float(alpha(both, np.tile(times.astype(np.float64), 2)))
    if not np.isfinite(value):
        return None
    interval = None
    if judged > 1:
        drawn = numpy_generator(seed, "agreement").multinomial(judged, times / times.sum(), size=REPLICATES)
        found = alpha(both, np.tile(drawn.astype(np.float64), 2))
        low, high = np.nanquantile(found, (0.5 - 0.5 * LEVEL, 0.5 + 0.5 * LEVEL))
        interval = (float(low), float(high)) if low < high else None
    return AgreementRecord(
        alpha=value,
        interval=interval,
        unit=_unit(votes),
        comparisons=judged,
        judgements=float(times @ patterns.sum(axis=1)),
    )


def alpha(answers: Floats, times: Floats) -> npt.NDArray[np.float64]:
    """Krippendorff's alpha for nominal answers.

    Args:
        answers: [U, K] how often each of K answers was given to each unit; rows sum to at least 2.
        times: [..., U] how often each unit is counted.

    Returns:
        [...], nan where only one answer was given.
    """
    n = answers.sum(axis=1)
    differ = (n**2 - np.sum(answers**2, axis=1)) / (n - 1.0)
    given = times @ answers
    total = given.sum(axis=-1)
    expected = (total**2 - np.sum(given**2, axis=-1)) / (total - 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(expected > 0, 1.0 - (times @ differ) / expected, np.nan))


def _unit(votes: Votes) -> str:
    """What a comparison is."""
    return "images" if votes.has_images else "models" if votes.prompt is None else "prompt and models"


def _patterns(votes: Votes) -> tuple[Floats, npt.NDArray[np.int64]]:
    """([P, 3] the different answers to comparisons that were judged twice or more, [P] to how many comparisons).

    Of many votes a part of the comparisons is looked at after the other.
    """
    patterns, times = np.zeros((0, 3)), np.zeros(0, dtype=np.int64)
    every, passes = -(-len(votes) // MOST_VOTES), -(-min(len(votes), MOST_VOTES) // TOGETHER)
    whole = not is_weighted(votes) or all(_are_whole(votes, rows) for rows in slices(len(votes)))
    for turn in range(passes):
        unit, kept = _comparisons(votes, every, turn, passes)
        if not len(kept):
            continue
        answers = _answers(votes, unit, kept, whole=whole)
        answers[:, :2] = np.sort(answers[:, :2], axis=1)  # both ways round are counted
        judged = answers[answers.sum(axis=1) >= 2]
        held = np.concatenate([patterns, judged])
        many = np.append(times, np.ones(len(judged), dtype=np.int64))
        patterns, which = np.unique(held, axis=0, return_inverse=True)
        times = np.zeros(len(patterns), dtype=np.int64)
        np.add.at(times, which, many)
    return patterns, times


def _comparisons(
    votes: Votes, every: int, turn: int, passes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(comparison of each vote that is looked at, the numbers of these votes), of one pass of several."""
    unit = _unit(votes)
    first, second = votes.images if unit == "images" else (votes.left, votes.right)
    groups = {"prompt": votes.prompt if unit == "prompt and models" else None, "question": votes.question}
    keys, kept = [], []
    reach = 1 + max(int(first.max()), int(second.max()))
    for rows in slices(len(votes)):
        a, b = first[rows].astype(np.int64), second[rows].astype(np.int64)
        key, good = np.minimum(a, b) * reach + np.maximum(a, b), a != b
        for codes in groups.values():
            if codes is not None:
                good &= codes[rows] >= 0
                key = key.astype(np.uint64) * _MIX + codes[rows].astype(np.uint64)
        key = key.astype(np.uint64)
        if every * passes > 1:
            drawn = key * _MIX >> np.uint64(32)
            good &= drawn % np.uint64(every * passes) == every * turn
        keys.append(key[good])
        kept.append(rows.start + np.flatnonzero(good))
    return np.unique(np.concatenate(keys), return_inverse=True)[1], np.concatenate(kept)


def _are_whole(votes: Votes, rows: slice) -> bool:
    """Whether each of these rows is whole votes for each answer."""
    return all(np.array_equal(part, np.rint(part)) for part in parts(votes, rows))


def _answers(votes: Votes, unit: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], *, whole: bool) -> Floats:
    """[U, 3] answers to every comparison: the one on the left in its first vote, the other one, neither.

    whole: whether rows are as many answers as they are votes; else a row is one answer.
    """
    units = int(unit.max()) + 1
    if votes.voter is not None:
        voter = votes.voter[rows].astype(np.int64)
        once = voter < 0
        key = unit * (int(voter.max()) + 2) + voter
        once[np.unique(np.where(once, -1 - np.arange(len(key)), key), return_index=True)[1]] = True
        unit, rows = unit[once], rows[once]
    picked = replace(votes, prompt=None, voter=None, game=None, both_bad=None, time=None, question=None).take(rows)
    shown = picked.left if picked.left_image is None else picked.left_image
    first = np.full(units, -1, dtype=np.int64)
    first[unit[::-1]] = shown[::-1]  # the first vote is written last
    same = first[unit] == shown
    won, lost, tied = parts(picked)
    if not whole:
        won, lost, tied = (np.equal(picked.outcome, said).astype(np.float64) for said in (1, -1, 0))
    columns = np.where(same, won, lost), np.where(same, lost, won), tied
    return np.stack([np.bincount(unit, column, units) for column in columns], axis=1)
