"""When rounds end, and which one is the result."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from finepref.formats.rounds import PlayedRound, RoundGain
from finepref.rounds.verdict import best_of, why_ended


def played(number: int, gains: Sequence[tuple[str, bool, float, float, float]]) -> PlayedRound:
    """gains: (metric, learned from, gain over the last, half of its interval, gain over the base)."""
    rows = tuple(
        RoundGain(name, trained, last, last - half, last + half, base, base - half, base + half)
        for name, trained, last, half, base in gains
    )
    return PlayedRound(number, f"round-{number}", 100, 5, rows, 1.0, 1.0)


def one(number: int, last: float, base: float, half: float = 0.1) -> PlayedRound:
    return played(number, [("judge", False, last, half, base)])


@pytest.mark.parametrize(
    ("rounds", "most", "said"),
    [
        ([], 5, ""),
        ([one(1, 0.5, 0.5)], 5, ""),
        ([one(1, 0.5, 0.5), one(2, 0.05, 0.55)], 5, ""),
        ([one(1, 0.05, 0.05), one(2, 0.5, 0.55)], 5, ""),
        ([one(1, 0.5, 0.5), one(2, 0.05, 0.55), one(3, 0.1, 0.6)], 5, "rounds 2 to 3 gained nothing"),
        ([one(1, 0.5, 0.5), one(2, 0.5, 1.0)], 2, "2 rounds were asked for"),
    ],
)
def test_no_certain_gain_twice_or_the_budget(rounds: list[PlayedRound], most: int, said: str) -> None:
    found = why_ended(rounds, most=most)
    assert found.startswith(said)
    assert bool(found) == bool(said)


@pytest.mark.parametrize(
    ("reward", "judge", "ends"),
    [((0.5, 0.1), -0.01, True), ((0.5, 0.1), 0.01, False), ((0.05, 0.1), -0.5, False), ((-0.5, 0.1), -0.5, False)],
)
def test_a_reward_that_runs_away(reward: tuple[float, float], judge: float, ends: bool) -> None:
    """It rose for certain while a judge that was not learned from fell."""
    value, half = reward
    rounds = [played(1, [("judge", False, judge, 0.1, 0.3), ("reward", True, value, half, 1.0)])]
    assert ("which it learned from" in why_ended(rounds, most=9)) == ends


@pytest.mark.parametrize(
    ("bases", "best"), [([], 0), ([-0.1], 0), ([0.2, 0.5, 0.4], 2), ([0.5, 0.5], 1), ([-0.2, 0.1], 2)]
)
def test_the_result_is_the_best_round_by_a_judge_not_learned_from(bases: list[float], best: int) -> None:
    rounds = [
        played(number, [("reward", True, 9.0, 0.1, 9.0 * number), ("judge", False, 0.1, 0.1, base)])
        for number, base in enumerate(bases, start=1)
    ]
    assert best_of(rounds) == best
