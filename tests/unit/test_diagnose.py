"""What is said of a run from its lines: every finding at both sides of its threshold, and how often chance passes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation_folder import Table, make_folder
from finepref.core.interval import Interval
from finepref.evaluate.compare import compare
from finepref.evaluate.score import score
from finepref.evaluate.stats import bootstrap_means
from finepref.formats.heldout import HeldOutMetrics
from finepref.formats.metrics import StepMetrics
from finepref.train.diagnose import FLAT, LONGER, LOST_FAR, OUT_OF_REACH, RunFinding, evidence, judge, overoptimised

PAIRS = 50


def look(step: int, lead: float, error: float = 1.0, *, high: float = 0.7, far: float = 0.0, length: float = 1.0):
    """A line of heldout.jsonl whose lead has this standard error."""
    lead_ = Interval(lead, lead - 1.96 * error, lead + 1.96 * error)
    rate = Interval(0.5, 0.3, high)
    return HeldOutMetrics(
        step=step, pairs=PAIRS, prompts=40, accuracy=rate, lead=lead_, gain_w=lead_, gain_l=lead_, gain_far=far,
        fit=None, length=length, by_t=(),
    )  # fmt: skip


def step(number: int, weight: float) -> StepMetrics:
    return StepMetrics(step=number, means={"sigmoid_minus_u": weight}, pairs=4, by_t=(), grad_norm=1.0, lr=1.0)


def kinds(looks, steps=(), *, kept=None, signal=None, far=1.0) -> list[str]:
    return [found.kind for found in judge(looks, steps, kept=kept, signal=signal, far=far)]


START = look(0, 0.0, 0.0)
SOUND = [START, *(look(n, 3.0) for n in range(1, 7))]


def test_what_was_learned() -> None:
    """The mean over all looks decides, so no look can be picked; the start has no spread and does not count."""
    assert kinds(SOUND) == ["learned"]
    assert kinds([START, *(look(n, float(n)) for n in range(1, 7))]) == ["learning"]
    assert kinds([START, *(look(n, 2.4) for n in range(1, 7))]) == ["few"]
    assert kinds([START, look(1, 9.0), *(look(n, 0.0) for n in range(2, 8))]) == ["few"]
    assert kinds([START, *(look(n, 0.2, high=0.59) for n in range(1, 7))]) == ["none"]
    assert kinds([START]) == kinds([]) == ["unknown"]
    assert kinds([START, *(look(n, 2.5) for n in range(1, 7))]) == ["learned"]  # of 40 prompts
    few = [replace(line, prompts=4) for line in [START, *(look(n, 2.5) for n in range(1, 7))]]
    assert kinds(few) == ["few"]
    assert kinds([START, look(1, math.nan, math.nan, high=math.nan)]) == ["few"]
    assert evidence(SOUND) == pytest.approx(3.0 * math.sqrt(39 / 40))


@pytest.mark.parametrize("inside", [True, False])
def test_what_is_wrong(inside: bool) -> None:
    """Every fault at both sides of its threshold."""
    away = -1 if inside else 1
    last = SOUND[-1]
    lost = [*SOUND[:-1], replace(last, gain_far=-(LOST_FAR + 0.1 * away) * 0.5)]
    long = [*SOUND[:-1], replace(last, length=LONGER + 0.01 * away)]
    steps = [*(step(n, 0.5) for n in range(18)), *(step(n, FLAT - 0.01 * away) for n in (18, 19))]
    far = [step(0, 0.9), *(step(n, OUT_OF_REACH + 0.01 * away) for n in range(1, 20))]
    found = {
        "displaced": kinds(lost, far=0.5),
        "inflated": kinds(long),
        "misled": kinds(SOUND, signal=Interval(0.6, 0.5 - 0.01 * away, 0.69)),
        "saturated": kinds(SOUND, steps),
        "overasked": kinds(SOUND, far),
    }
    assert found == {name: ["learned"] if inside else ["learned", name] for name in found}


def test_pairs_that_start_even_have_no_margin_to_miss() -> None:
    """Weights above one half alone are those of a run that goes the wrong way, which held-out pairs tell."""
    assert kinds(SOUND, [step(0, 0.5), *(step(n, 0.8) for n in range(1, 20))]) == ["learned"]


def test_the_step_that_was_kept_is_judged() -> None:
    """Early stopping leaves another step than the last: what is wrong with the last one is not said of it."""
    broken = [*SOUND, look(7, 3.0, far=-9.0, length=2.0)]
    assert kinds(broken) == ["learned", "displaced", "inflated"]
    assert kinds(broken, kept=3) == ["learned"]
    assert kinds(broken, kept=0) == ["start"]
    rising = [START, *(look(n, float(n)) for n in range(1, 7))]
    assert kinds(rising, kept=5) == ["learned"]  # held-out pairs ended it: nobody should train longer


def test_what_overflowed() -> None:
    """Predictions that are not finite are a finding of their own, and no number is made of them."""
    nothing = Interval(math.nan, math.nan, math.nan)
    assert kinds([*SOUND, replace(look(7, 3.0), lead=nothing, length=math.nan)]) == ["overflow"]


def test_losers_taken_as_winners() -> None:
    (found,) = judge(SOUND, (), kept=None, signal=None, far=1.0, swapped=True)
    assert found.kind == "learned"
    assert "turned down" in found.text


def test_few_pairs_accuse_no_signal() -> None:
    for share in (Interval(1.0, 0.01, 1.0), Interval(0.65, 0.41, 0.83)):
        assert kinds(SOUND, signal=share) == ["learned"]


@pytest.mark.parametrize("prompts", [3, 8, 40])
def test_chance_passes_once_in_a_hundred(prompts: int) -> None:
    """400 runs that learn nothing: 50 pairs, looks that go together; at most 1 % are called learned.

    Of 100 runs whose winners lead by 0.55 standard deviations of a pair, four in five are found with 40 prompts.
    """
    draws = np.random.default_rng(0)
    code = np.arange(PAIRS) % prompts

    def run(effect: float) -> list[HeldOutMetrics]:
        # what pairs of a prompt have in common is half of what they have
        def noise() -> np.ndarray:
            return math.sqrt(0.5) * draws.normal(0, 1, prompts)[code] + math.sqrt(0.5) * draws.normal(0, 1, PAIRS)

        value, lines = effect + noise(), [START]
        for number in range(1, 9):
            value = effect + 0.9 * (value - effect) + math.sqrt(1 - 0.81) * noise()
            found = bootstrap_means(value[:, None], code, resamples=400)[0]
            lead = Interval(found.value, found.low, found.high)
            lines.append(replace(look(number, 0.0), lead=lead, prompts=prompts))
        return lines

    def share(effect: float, runs: int) -> float:
        return sum({"learned", "learning"} & {*kinds(run(effect))} != set() for _ in range(runs)) / runs

    assert share(0.0, 400) <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / 400)
    if prompts == 40:
        assert share(0.55, 100) >= 0.8


def test_over_optimised(tmp_path: Path) -> None:
    """Up by the judge it learned from and down by another, against the baseline; rivals say nothing."""
    rows = make_folder(
        tmp_path, {"own": [f"prompt {n}" for n in range(20)]}, models=("base", "votes", "reward"),
        rewards={"reward": ["taught"]},
    )  # fmt: skip
    rank = {
        "taught": {"base": 0, "votes": 1, "reward": 2},
        "other": {"base": 1, "votes": 2, "reward": 0},
    }
    scorers = [
        Table(rows, lambda row, ranks=ranks: ranks[row.model] + row.prompt_index / 100, name=name, fingerprint=name)
        for name, ranks in rank.items()
    ]
    score(tmp_path, scorers)
    compared = compare(tmp_path, baseline="base")
    found = overoptimised(compared, "reward")
    assert found is not None
    assert "taught, which it learned from, went up, and other went down" in found.text
    assert overoptimised(compared, "votes") is None
    assert overoptimised(compared, "nobody") is None


def test_it_is_a_sentence() -> None:
    assert str(RunFinding("a", "It is so", "Do this")) == "It is so. Do this."
    assert str(RunFinding("a", "It is so")) == "It is so."
    for each in judge(SOUND, (), kept=None, signal=Interval(0.5, 0.4, 0.6), far=1.0):
        assert any(character.isdigit() for character in each.text)
