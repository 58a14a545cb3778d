"""What came of an alignment, in plain words: whether the model changed, what speaks for it, and what to type next."""

from __future__ import annotations

import math
from pathlib import Path

from finepref.align.alignment import Alignment
from finepref.align.stages import loading
from finepref.formats.comparison import COMPARISON, Comparison, read_comparison
from finepref.formats.heldout import HeldOutMetrics, look_of, read_agreement, read_heldout
from finepref.formats.run import RunRecord, read_run
from finepref.train.diagnose import diagnose


def outcome(planned: Alignment, base: str) -> list[str]:
    """The lines to print when all stages have ended."""
    out, run = planned.asked.out, planned.asked.run
    record, looks = read_run(run), read_heldout(run)
    report = f"report: {(out / 'report.html').resolve().as_uri()}"
    if record.kept == 0:
        found = list(map(str, diagnose(run)))
        tried = _ranked(record, looks[-1]) if looks else []
        more = "with more pairs, or other ones, name a new --out; nothing is there to load or to publish"
        return ["The model was not changed.", *found, *tried, more, report]
    there = out / "eval" / COMPARISON
    compared = read_comparison(out / "eval") if there.is_file() else None
    held = [] if not looks else [f"kept: step {look_of(looks, record.kept).step} of {record.steps}"]
    held += _ranked(record, look_of(looks, record.kept)) if looks else []
    told = [*held, *_people(run), *map(str, diagnose(run, compared)), *_judged(compared)]
    return [*told, *loading(run, lora=planned.config.lora is not None, base=base), report]


def _ranked(record: RunRecord, look: HeldOutMetrics) -> list[str]:
    rate = look.accuracy
    limits = "" if math.isnan(rate.low) else f" [95 %: {rate.low:.0%} to {rate.high:.0%}]"
    how = "against what people did" if record.swapped else "as people did"
    coin = "a coin: 50%"
    if rate.low < 0.5 < rate.high:
        coin += ", so that this share decides nothing; how far winners lead tells more"
    return [f"at step {look.step} it ranked {rate.value:.0%}{limits} of {look.pairs} held-out pairs {how}; {coin}"]


def _people(run: Path) -> list[str]:
    agreement = read_agreement(run)
    if agreement is None or not agreement.pairs:
        return []
    return [f"two people agree on {agreement.share:.0%} of {agreement.pairs} pairs that several judged"]


def _judged(compared: Comparison | None) -> list[str]:
    """What the scorers say of the pictures after against those before."""
    if compared is None:
        return ["no scorer judged the pictures: look at them in the report, where you can vote blind"]
    found = []
    for row in compared.pairs_of(model="after"):
        known = row.win_low is not None and row.win_high is not None
        limits = f" [95 %: {row.win_low:.0%} to {row.win_high:.0%}]" if known else ""
        trained = " (which it learned from)" if compared.trained(row) else ""
        what = f"the picture after is better in {row.win_rate:.0%}{limits} of {row.n}"
        if compared.metrics[row.metric].together:
            what = f"it is higher after in {row.win_rate:.0%}{limits} of {row.prompts} prompts"
        found.append(f"{row.metric}{trained}: {what}")
    return found
