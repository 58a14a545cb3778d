"""Which signal a data set is trained with: what the data has decides, and the reason is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finepref.core.errors import InputError
from finepref.data.inspect import DataReport
from finepref.plan.methods import get, wanted_by
from finepref.signals.kinds import SIGNALS

RECURS = 1.5  # votes an image, from which on votes tell images apart
SHARES = 0.1  # of the rows are shares of several votes
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Choice:
    """A method, the kinds of its signal (none: the votes alone) and their options, what they are made of, and why."""

    method: str
    kinds: tuple[str, ...]
    options: dict[str, float | str]
    arena: bool
    scorers: tuple[str, ...]
    why: str


def choose(report: DataReport, *, method: str, signal: Sequence[str], scorers: Sequence[str]) -> Choice:
    """The method and signal for a data set.

    Args:
        report: what `inspect` says of it. method, signal: what the user asked for; "auto", and none, leave it open.
        scorers: whose rewards may be used.

    Raises:
        ConfigError: an unknown method. InputError: the data lack what the asked signal needs.
    """
    if method != AUTO or signal:
        return _asked(report, "dpo" if method == AUTO else method, tuple(signal), tuple(scorers))
    named, times = is_named(report), votes_an_image(report)
    if scorers:
        why = f"votes and scores of {', '.join(scorers)}: their posterior is the best signal of docs/study.md"
        return Choice("posterior", ("posterior",), {}, named, tuple(scorers), why)
    if times >= RECURS:
        why = f"a picture is in {times:.1f} votes on average: votes alone tell pictures apart (no scorer is named)"
        return Choice("posterior", ("posterior",), {}, named, (), why)
    if report.shares >= SHARES * report.pairs:
        why = f"{report.shares} of {report.pairs} rows are shares of several votes: how sure they are is the weight"
        return Choice("dpo", ("shares",), {}, False, (), why)
    if named:
        why = f"every picture says which of {len(report.models)} models made it: their ratings give the margins"
        return Choice("arenapo", ("truncated",), {}, True, (), why)
    why = "one vote a pair, no scorer, no names of models: the votes as they are"
    return Choice("dpo", (), {}, False, (), why)


def is_named(report: DataReport) -> bool:
    """Whether every picture says which model made it, and there are two models at least."""
    return len(report.models) > 1 and sum(row["shown"] for row in report.models.values()) == 2 * report.pairs


def votes_an_image(report: DataReport) -> float:
    """In how many votes a picture is on average."""
    return 2 * report.pairs / report.images if report.images else 0.0


def _asked(report: DataReport, method: str, signal: tuple[str, ...], scorers: tuple[str, ...]) -> Choice:
    about = get(method).about
    kinds = signal or about.signal
    options = {key: value for key, value in about.options.items() if key != "extremes"} if not signal else {}
    needs = {need for kind in kinds for need in SIGNALS[kind].needs}
    may = wanted_by(kinds)
    if "ratings" in needs and not is_named(report):
        what = f"kind {', '.join(kinds)} needs the models of the pictures, and not all rows name them"
        raise InputError(what, where="--method" if not signal else "--signal", remedy="name another, or leave it out")
    if "rewards" in needs and not scorers:
        what = f"kind {', '.join(kinds)} needs a scorer"
        raise InputError(what, where="--method" if not signal else "--signal", remedy="name one with --scorer")
    used = scorers if "rewards" in may else ()
    return Choice(method, kinds, options, "ratings" in may and is_named(report), used, "as asked")
