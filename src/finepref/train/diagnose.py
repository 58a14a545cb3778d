"""Did a run learn, and what? Findings in plain words, with their numbers, from the files that the run wrote. No torch.

What was found rests on held-out pairs (heldout.jsonl) and on the last steps (metrics.jsonl). Thresholds come from runs
on the lab whose true quality is known (`benchmarks/held_out_runs.py`); on other models they are a guide.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from scipy import special

from finepref.core.errors import InputError
from finepref.core.interval import Interval
from finepref.formats.comparison import Comparison, PairRow
from finepref.formats.heldout import HeldOutMetrics, look_of, looks_of, read_signal_share, start_far
from finepref.formats.metrics import HELDOUT, StepMetrics, read_metrics
from finepref.formats.run import RunRecord, home_of, read_run

FEWEST = 50
"""Pairs, held out or not, that a run was measured with, at least."""
FEW = 150
"""Pairs up to which every run of docs/small-data.md left the base as it was."""
LEVEL = 0.99
"""Share of runs that learned nothing which are not called learned."""
SEEN = 0.6
"""A preference that a model ranks less often than this is not called learnable."""
RISING = 0.1
"""Share of all that was gained which the last third of the looks must add for a run to be still learning."""
LOST_FAR = 5.0
"""Times the start's error at high noise that winners may lose there."""
LONGER = 1.15
"""Times the start's length that predictions may have; of healthy runs they have up to 1.08."""
OUT_OF_REACH = 0.64
"""Mean weight of a pair's gradient, sigmoid(-u), above which pairs do not reach their margins: up to 0.48 where they
do, or where there is none, 0.61 with the usual ones on the lab, from 0.66 with margins times 3."""
FAINT = 0.5
"""Standard errors under which a lead foretells nothing of more pairs."""
CHANCE = "where {:.1f} tell it from chance"
USUAL = 0.7
"""Share of pairs that a good scorer orders as people did: a signal that may reach it is not called wrong."""
ALIKE = 0.25
"""Share of the diversity within a prompt that a run may lose: a choice, not measured."""
FLAT = 0.05
"""Mean weight of a pair's gradient, sigmoid(-u), below which almost no pair teaches any more."""


@dataclass(frozen=True, slots=True)
class RunFinding:
    """kind: `learned`, `learning`, `none`, `few`, `unknown`, `start`, or a fault. text: found; advice: what to do."""

    kind: str
    text: str
    advice: str = ""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return self.kind in ("learned", "learning")

    def __str__(self) -> str:
        return f"{self.text}. {self.advice}." if self.advice else f"{self.text}."


def diagnose(run: Path, compared: Comparison | None = None, *, model: str = "after") -> tuple[RunFinding, ...]:
    """What a finished run learned, first, and then what is wrong with it.

    Args:
        run: a run folder, or a checkpoint in one. compared: pictures of the run and of others. model: what the run is
            called there.

    Raises:
        InputError: a file of the run that cannot be read.
    """
    home, until = home_of(run)
    steps = tuple(line for line in read_metrics(home) if until is None or line.step <= until)
    record = read_run(run)
    signal, far, looks = read_signal_share(run), start_far(run), looks_of(run)
    if not looks and record.kept is not None:
        what = "it is gone, and by it the run chose the step that it kept"
        raise InputError(what, where=home / HELDOUT, remedy="put it back, or train again in another folder")
    found = judge(looks, steps, kept=record.kept, signal=signal, far=far, swapped=record.swapped)
    more = [untried(record, looks), None if compared is None else overoptimised(compared, model)]
    return (*found, *(each for each in more if each is not None))


def judge(
    looks: Sequence[HeldOutMetrics],
    steps: Sequence[StepMetrics],
    *,
    kept: int | None,
    signal: Interval | None,
    far: float,
    swapped: bool = False,
) -> tuple[RunFinding, ...]:
    """What the lines of a run say.

    Args:
        kept: the step that the run left, None for its last one. signal: share of its training pairs that the signal
            orders as people did, None where the votes are the signal. far: error of the start at high noise.
        swapped: whether losers were taken as winners.
    """
    found: list[RunFinding | None] = []
    if len(looks) < 2:
        often = "no held-out pair was looked at" if not looks else "held-out pairs were looked at once only"
        advice = "Set data.validation_share to 0.1 or more" if not looks else "Set validation.every"
        found.append(RunFinding("unknown", f"It is not known whether it learned: {often}", advice))
    elif not all(math.isfinite(line.length) for line in looks):
        what = "Its predictions on held-out pairs overflowed" + (
            ", and it left the base as it was" if kept == 0 else ""
        )
        found.append(RunFinding("overflow", what, "Divide the learning rate by 10, or train in bf16"))
    elif kept == 0:
        found.append(_left_the_start(looks))
    else:
        left = look_of(looks, kept)
        found += [learned(looks, swapped, stopped=left is not looks[-1]), displaced(left, far), inflated(left)]
    found += [misled(signal), overasked(steps), saturated(steps)]
    return tuple(each for each in found if each is not None)


def untried(record: RunRecord, looks: Sequence[HeldOutMetrics]) -> RunFinding | None:
    """Whether a run had fewer pairs than any that was measured; single images count as halves of pairs."""
    signals = record.signals
    trained = signals.pairs if signals.images is None else signals.images // 2
    pairs = (trained or 0) + (looks[-1].pairs if looks else 0)
    if trained is None or pairs >= FEWEST:
        return None
    what = f"It had {pairs} pairs, and runs with fewer than {FEWEST} were never measured: no finding here is sure"
    return RunFinding("untried", what, "Take more pairs")


def evidence(looks: Sequence[HeldOutMetrics]) -> float:
    """By how many standard errors winners led losers, mean over all looks after the first; nan for one prompt.

    Looks at one set of pairs go together, so their mean has at most the spread of one: no look is picked. The limits
    are quantiles of resampled prompts, whose spread is short by sqrt((G - 1) / G) for G prompts.
    """
    ratios = [_ratio(line.lead) * math.sqrt((line.prompts - 1) / line.prompts) for line in looks[1:]]
    known = [ratio for ratio in ratios if math.isfinite(ratio)]
    return fmean(known) if known else math.nan


def asked(looks: Sequence[HeldOutMetrics]) -> float:
    """The standard errors that tell a lead from chance: Student's quantile of G - 1 degrees of freedom, G prompts."""
    return _telling(looks[-1].prompts)


def _telling(prompts: int) -> float:
    return float(special.stdtrit(prompts - 1, LEVEL))


def speaks(looks: Sequence[HeldOutMetrics]) -> bool:
    """Whether held-out pairs show that something was learned. False for one prompt."""
    return evidence(looks) > asked(looks)


def _ratio(found: Interval) -> float:
    return found.value / found.error if found.error > 0 else math.nan


def _left_the_start(looks: Sequence[HeldOutMetrics]) -> RunFinding:
    strength, pairs = evidence(looks), looks[-1].pairs
    if not math.isfinite(strength):
        what = "It left the base as it was: the held-out pairs have one prompt, so that nothing speaks for a later step"
        return RunFinding("start", what, "Hold out pairs of more prompts with a larger data.validation_share")
    if not speaks(looks):
        what = f"winners lead losers by {strength:.1f} standard errors at {pairs} held-out pairs"
        what = f"It left the base as it was: {what}, {CHANCE.format(asked(looks))}"
        return RunFinding(
            "start",
            what,
            f"{_more(looks)}, or see whether people agree on them; train.stop=null keeps the last step, sure or not",
        )
    what = "It left the base as it was: every later look found winners harmed at high noise"
    return RunFinding("start", what, "Divide the learning rate by 3")


def learned(looks: Sequence[HeldOutMetrics], swapped: bool, *, stopped: bool) -> RunFinding:
    """Whether held-out pairs show that the preference of the voters was learned.

    The lead in standard errors is held against Student's quantile of G - 1 degrees of freedom, G prompts. stopped:
    whether the run left another step than its last.
    """
    strength, last = evidence(looks), looks[-1]
    if not math.isfinite(strength):
        what = f"Too few pairs to tell whether it learned: the {last.pairs} held-out pairs have one prompt"
        return RunFinding("few", what, "Hold out pairs of more prompts with a larger data.validation_share")
    seen = f"{last.pairs} held-out pairs of {last.prompts} prompts"
    lead = "losers lead winners" if swapped else "winners lead losers"
    how = f"{lead} by {strength:.1f} standard errors at {seen}, {CHANCE.format(asked(looks))}"
    if speaks(looks):
        rise = _rise(looks)
        if rise > RISING and not stopped:
            what = f"It is still learning: {how}; the last third of the looks added {rise:.0%} of the lead"
            return RunFinding("learning", what, "Train longer: a larger train.max_steps, into a new folder")
        what = "what voters turned down, as a negative network should" if swapped else "the preference of the voters"
        return RunFinding("learned", f"It learned {what}: {how}")
    most = fmean(line.accuracy.high for line in looks[1:])
    if most < SEEN:
        what = f"It found no preference that it could learn: {how}; at most {most:.0%} of them are ranked right"
        return RunFinding("none", what, "Look at the pairs: do people agree, and do winners differ from losers")
    what = f"Too few pairs to tell whether it learned: {how}; as many as {most:.0%} may be ranked right"
    return RunFinding("few", what, _more(looks))


def _more(looks: Sequence[HeldOutMetrics]) -> str:
    """How many pairs would be enough if their lead stayed as it is: its standard errors grow as their root, and what
    tells it from chance falls with the prompts.
    """
    strength, prompts = evidence(looks), looks[-1].prompts
    if strength < FAINT:
        return "Take more pairs"
    times = next(n for n in itertools.count(2) if strength * math.sqrt(n) > _telling(n * prompts))
    return f"Take more pairs: {times} times as many, of as many more prompts, would do with such a lead"


def _rise(looks: Sequence[HeldOutMetrics]) -> float:
    leads = [line.lead.value for line in looks]
    third = max(1, len(leads) // 3)
    last, before = fmean(leads[-third:]), fmean(leads[-2 * third : -third])
    return (last - before) / last if last > 0 and len(leads) > 2 * third else 0.0


def misled(share: Interval | None) -> RunFinding | None:
    """Whether the signal says something else than the people who voted."""
    if share is None or not (share.low <= 0.5 and share.high < USUAL):
        return None
    shown = f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]"
    what = f"Its signal is not what people chose: it orders {shown} of the training pairs as they did"
    return RunFinding("misled", what, "Check the scorer, or train on the votes")


def displaced(line: HeldOutMetrics, far: float) -> RunFinding | None:
    """Whether losers were pushed away at the price of the winners, so that the network unlearns to draw."""
    lost = -line.gain_far / far
    if not lost > LOST_FAR:
        return None
    what = "It pushed losers away rather than learn from winners: at high noise the error on winners grew by "
    what += f"{lost:.0f} times that of the start"
    return RunFinding("displaced", what, "Divide the learning rate by 3, or stop earlier (train.stop={patience: 3})")


def inflated(line: HeldOutMetrics) -> RunFinding | None:
    """Whether predictions became longer than the start's."""
    if not line.length > LONGER:
        return None
    what = f"Its predictions are {line.length - 1:.0%} longer than the start's, which over-saturates pictures"
    return RunFinding("inflated", what, "Lower the margins or the learning rate, or generate with less guidance")


def _weights(steps: Sequence[StepMetrics]) -> list[float]:
    """Mean weight of a pair's gradient in every step that has one."""
    return [line.means["sigmoid_minus_u"] for line in steps if "sigmoid_minus_u" in line.means]


def overasked(steps: Sequence[StepMetrics]) -> RunFinding | None:
    """Whether margins are larger than what pairs come to, so that it pushes on whatever a pair has become."""
    weights = _weights(steps)
    later = [weight for weight in weights[len(weights) // 2 :] if math.isfinite(weight)]
    if not later or not (weights[0] > OUT_OF_REACH and fmean(later) > OUT_OF_REACH):
        return None
    what = "Its margins are out of reach: in the second half of the steps a pair's gradient still has "
    what += f"{fmean(later):.2f} of its full weight, where a pair that is even has 0.50"
    return RunFinding("overasked", what, "Lower the margins (signal.margin_scale), by half at first")


def saturated(steps: Sequence[StepMetrics]) -> RunFinding | None:
    """Whether almost every pair is won so clearly that it teaches nothing more."""
    weights = _weights(steps)
    last = [weight for weight in weights[-max(1, len(weights) // 10) :] if math.isfinite(weight)]
    if not last or fmean(last) >= FLAT:
        return None
    what = f"It is saturated: in the last tenth of the steps a pair's gradient has {fmean(last):.3f} of its full weight"
    return RunFinding("saturated", what, "More steps will not help: take more pairs, or a smaller objective.beta")


def overoptimised(compared: Comparison, model: str) -> RunFinding | None:
    """Whether pictures gain over the baseline by a judge that was trained on and lose by others, or became alike.

    Others are judges that were not trained on, and diversity within a prompt.
    """
    rows = compared.pairs_of(model=model, against=compared.baseline)
    taught = {name for name, metric in compared.metrics.items() if model in metric.used_in_training}
    up = [row.metric for row in rows if row.metric in taught and row.win_low is not None and row.win_low > 0.5]
    fair = [row for row in rows if not compared.trained(row) and not compared.metrics[row.metric].together]
    down = [row.metric for row in fair if row.win_high is not None and row.win_high < 0.5]
    alike = [words for row in rows if compared.metrics[row.metric].together and (words := _alike(row, compared))]
    if up and (down or alike):
        what = f"It is over-optimised: {', '.join(up)}, which it learned from, went up, and "
        what += " and ".join([*([f"{', '.join(down)} went down"] if down else []), *alike])
        return RunFinding("overoptimised", what, "Stop earlier, or learn from the votes too")
    if alike:
        return RunFinding("narrowed", f"Its pictures narrowed: {' and '.join(alike)}", "Stop earlier, or train slower")
    return None


def _alike(row: PairRow, compared: Comparison) -> str:
    """That pictures of one prompt are clearly more alike than the baseline's; empty where they are not."""
    before = next(
        (each.mean for each in compared.models
         if (each.model, each.metric, each.prompt_set) == (row.against, row.metric, row.prompt_set)), None,
    )  # fmt: skip
    lost = -row.mean_difference / before if before else 0.0
    if row.difference_high is None or row.difference_high >= 0 or not lost > ALIKE:
        return ""
    return f"{row.metric} of the pictures of one prompt fell by {lost:.0%}"
