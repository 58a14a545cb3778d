"""Checks on how a voter answers, whatever the pictures show: sides, keys, speed, and how these change over time.

Sides and orders are drawn at random when a set is shown. So for a voter to whom the place means nothing, the place of
the picture that he likes is drawn evenly, whatever the pictures are: the tests of places need no rating, and are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from finepref.arena.normal import Floats, Ints
from finepref.arena.sides import ERROR_RATE
from finepref.collect.answer_columns import CHOICES, AnswerColumns, too_little
from finepref.collect.voter_tests import (
    at_least,
    from_others,
    longest_run,
    run_at_least,
    share_interval,
    trend,
    two_sided,
)
from finepref.formats.voterchecks import CheckResult

FASTEST = 400.0  # milliseconds below which nobody has looked at two pictures and pressed a key
SLIPS = 0.02  # share of such answers that are forgiven: a key that was pressed twice
FEWEST, FEWEST_OTHERS = 10, 3
FEWEST_IN_TREND = 20


def _most_shown(own: AnswerColumns) -> tuple[Ints, int]:
    """(positions of the decided answers to the commonest number of pictures, in order; that number)."""
    decided = own.position >= 0
    if not decided.any():
        return np.zeros(0, dtype=np.int64), CHOICES
    choices = int(np.argmax(np.bincount(own.choices[decided])))
    return own.position[decided & (own.choices == choices)], choices


def check_side(own: AnswerColumns, expected: float) -> CheckResult:
    """The share of one place among the decided answers; p is the exact binomial test of an even draw.

    Args:
        own: a voter's answers. expected: the share of the left by what others said, for the words; nan: unknown.
    """
    position, choices = _most_shown(own)
    n = len(position)
    tests = 1 if choices == CHOICES else choices  # of two places the second says what the first does
    if n == 0 or tests * two_sided(n, n, 1.0 / choices) > ERROR_RATE:
        return too_little("side", n, f"{n} decided answers are too few to tell a favoured place")
    counts = np.bincount(position, minlength=choices)[:tests]
    found = [two_sided(int(count), n, 1.0 / choices) for count in counts]
    place = int(np.argmin(found))
    p, value = min(1.0, tests * found[place]), int(counts[place]) / n
    low, high = share_interval(int(counts[place]), n)
    where = "left" if choices == CHOICES else f"place {place + 1} of {choices}"
    words = f"{where} in {value:.0%} of {n} decided answers"
    if expected == expected:
        words += f"; by what others said {expected:.0%} of these pictures"
    return CheckResult("side", value, low, high, p, p < ERROR_RATE, n, words)


def undecided(own: AnswerColumns) -> float:
    """The share of undecided and skipped answers as an angle, asin sqrt((k + 3/8)/(n + 3/4)); nan of a few answers."""
    if len(own) < FEWEST:
        return math.nan
    return math.asin(math.sqrt((int(np.sum(own.position < 0)) + 0.375) / (len(own) + 0.75)))


def check_key(own: AnswerColumns, others: Floats) -> CheckResult:
    """The share of answers given with the key of the one before.

    p: three times the smallest of: longest run of one place (exact), repeated places (exact, both ways: somebody who
    presses left and right in turn), undecided answers against the other voters'.

    Args:
        own: a voter's answers, in order. others: [m] `undecided` of the others.
    """
    position, choices = _most_shown(own)
    n, same = len(own) - 1, position[1:] == position[:-1]
    parts, run = [], longest_run(same) + 1 if len(position) else 0
    if len(position) >= FEWEST:
        parts.append(run_at_least(run - 1, len(same), 1.0 / choices))
        parts.append(two_sided(int(same.sum()), len(same), 1.0 / choices))
    angle, held = undecided(own), others[np.isfinite(others)]
    if math.isfinite(angle) and len(held) >= FEWEST_OTHERS:
        parts.append(from_others(angle, held, 0.25 / len(own))[1])
    if not parts or n < 1:
        return too_little("key", max(n, 0), f"{len(own)} answers are too few to tell one key from a choice")
    repeated = int(np.sum(own.position[1:] == own.position[:-1]))
    p, (low, high) = min(1.0, 3.0 * min(parts)), share_interval(repeated, n)
    shares = np.bincount(own.position + 2)[np.bincount(own.position + 2) > 0] / len(own)
    entropy, fair = float(-shares @ np.log2(shares)), _fair_entropy(own, choices)
    words = (
        f"the answer before again in {repeated / n:.0%}; longest run of one place {run}; entropy {entropy:.2f} bits, "
        f"{fair:.2f} with even places; {np.mean(own.keyed):.0%} by key"
    )
    return CheckResult("key", repeated / n, low, high, p, p < ERROR_RATE, n, words)


def _fair_entropy(own: AnswerColumns, choices: int) -> float:
    """Bits of an answer if places were drawn evenly and as many answers were undecided."""
    shares = [float(np.mean(own.position == code)) for code in (-1, -2)]
    shares += [(1.0 - sum(shares)) / choices] * choices
    return -sum(share * math.log2(share) for share in shares if share > 0)


def pace(own: AnswerColumns) -> float:
    """The logarithm of a voter's median time; nan of few answers."""
    times = own.milliseconds[np.isfinite(own.milliseconds)]
    return float(np.log(max(np.median(times), 1.0))) if len(times) >= FEWEST else math.nan


def check_speed(own: AnswerColumns, others: Floats) -> CheckResult:
    """The share of answers faster than a person can look at two pictures, counted from when they were there.

    p: twice the smaller of: more such answers than slips (2 %) explain (exact); the median against those of the others
    (Student's, of logarithms).

    Args:
        own: a voter's answers. others: [m] `pace` of the others.
    """
    times = own.milliseconds[np.isfinite(own.milliseconds)]
    n = len(times)
    if n < FEWEST:
        return too_little("speed", n, f"{n} answers with a time are too few")
    fast, median = int(np.sum(times < FASTEST)), float(np.median(times))
    parts, held = [at_least(fast, n, SLIPS)], others[np.isfinite(others)]
    words = f"{fast} of {n} answers within {FASTEST:.0f} ms of the pictures; median {median / 1000:.1f} s"
    if len(held) >= FEWEST_OTHERS:
        sampling = 0.5 * math.pi * float(np.var(np.log(np.maximum(times, 1.0)))) / n
        parts.append(from_others(pace(own), held, sampling)[0])
        words += f", the others' {math.exp(float(np.median(held))) / 1000:.1f} s"
    words += f"; {np.mean(times < 0.25 * median):.0%} in less than a quarter of it"
    loading = own.loading[np.isfinite(own.loading)]
    if len(loading):
        words += f"; pictures were there after {np.median(loading) / 1000:.1f} s"
    p, (low, high) = min(1.0, 2.0 * min(parts)), share_interval(fast, n)
    return CheckResult("speed", fast / n, low, high, p, p < ERROR_RATE, n, words)


def pace_trend(own: AnswerColumns) -> Sequence[float]:
    """(change of the logarithm of the time from the first answer to the last, limits, error, p); nan of few answers."""
    times = own.milliseconds[np.isfinite(own.milliseconds)]
    return trend(np.log(np.maximum(times, 1.0))) if len(times) >= FEWEST_IN_TREND else (math.nan,) * 5


def check_pace_trend(own: AnswerColumns, others: Floats) -> CheckResult:
    """How many times as long the last answer takes as the first; p: against the others, who get faster too.

    Args:
        own: a voter's answers, in order. others: [m] changes of the others.
    """
    change, low, high, error, _ = pace_trend(own)
    held, n = others[np.isfinite(others)], int(np.isfinite(own.milliseconds).sum())
    if math.isnan(change) or len(held) < FEWEST_OTHERS:
        return too_little("speed over time", n, f"{n} answers with a time and {len(held)} other voters are too few")
    p = min(1.0, 2.0 * min(from_others(change, held, error**2)))
    value = math.exp(change)
    words = f"the last answer takes {value:.2f} times as long as the first, of others {math.exp(held.mean()):.2f} times"
    return CheckResult("speed over time", value, math.exp(low), math.exp(high), p, p < ERROR_RATE, n, words)


def check_side_trend(own: AnswerColumns) -> CheckResult:
    """How the share of the left (of the first place) changes from the first answer to the last."""
    position, _ = _most_shown(own)
    n = len(position)
    if n < FEWEST_IN_TREND:
        return too_little("side over time", n, f"{n} decided answers are too few")
    value, low, high, _, p = trend((position == 0).astype(np.float64), 1.0)
    words = f"the share of the left changes by {value:+.0%} from the first answer to the last"
    return CheckResult("side over time", value, low, high, p, p < ERROR_RATE, n, words)
