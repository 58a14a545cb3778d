"""What a reader of ratings must be told: thin or unconnected models, voters who count too much, no interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finepref.arena import batch
from finepref.arena.clusters import NO_INTERVAL, IntervalPlan, spread
from finepref.arena.counts import PairCounts
from finepref.core.errors import cut
from finepref.formats.votes import Votes

FEW = 30  # votes under which a model is called thinly rated
MOST_NAMES = 5


def of_models(counts: PairCounts, models: tuple[str, ...]) -> tuple[str, ...]:
    """Models that the votes say little of."""
    if len(models) == 1:
        return (f"All votes name one model, {models[0]!r}: there is nothing to rate.",)
    record, component = counts.record(), counts.components()
    games = record.sum(axis=1)
    found = []
    if component.max() > 0:
        found.append(
            f"The votes fall into {component.max() + 1} groups of models that never met; ratings compare only within a "
            f"group (never met the largest: {batch.names_outside(component, models)})."
        )
    thin = [k for k in np.argsort(games, kind="stable") if games[k] < FEW]
    if thin:
        who = "1 model has" if len(thin) == 1 else f"{len(thin)} models have"
        names = _listed([f"{models[k]} ({games[k]:g})" for k in thin])
        found.append(f"{who} fewer than {FEW} votes: {names}. Such intervals are wide.")
    one_sided = [models[k] for k in range(len(models)) if games[k] and record[k, 2] == 0 and 0 in record[k, :2]]
    if one_sided:
        found.append(f"Always won or always lost: {_listed(one_sided)}. Only the prior keeps such a rating finite.")
    return tuple(found)


def of_voters(votes: Votes, chosen: IntervalPlan) -> tuple[str, ...]:
    """Voters who count too much or are too few, and intervals that are impossible."""
    if chosen.method == NO_INTERVAL and not (votes.voter is not None and spread(votes, votes.voter).dominated):
        return (f"No interval can be given: {chosen.why}.",) if len(votes.models) > 1 else ()
    if votes.voter is None:
        return ()
    over = spread(votes, votes.voter)
    code, share = over.largest
    name = repr(votes.voters[code]) if votes.voters is not None and code >= 0 else str(code)
    if share == 1.0:
        return (f"All votes are by one voter, {name}: ratings and intervals are of that voter's taste.",)
    if over.dominated:
        end = (
            "no interval can be given for what people prefer (--drop-voter leaves the voter out; --interval laplace "
            "takes all votes as independent)"
            if chosen.method == NO_INTERVAL
            else "the intervals say nothing of what other people prefer"
        )
        return (f"Voter {name} dominates, with {share:.0%} of the votes (more than half): {end}.",)
    if over.recurs and chosen.method == "laplace" and not over.enough_for(len(votes.models)):
        return (
            f"The votes count as those of {over.effective:.1f} voters (the busiest, {name}, cast {share:.0%}): too few "
            "to tell how much voters differ, so the intervals hold for these voters only.",
        )
    return ()


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(map(cut, names[:MOST_NAMES])) + more
