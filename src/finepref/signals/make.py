"""From votes, ratings and rewards to the sidecar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finepref.arena.ratings import Ratings, load_ratings
from finepref.core.errors import InputError, nearest
from finepref.core.memory import give_back
from finepref.core.options import Options, read_options
from finepref.core.progress import progress
from finepref.formats.paircolumns import columns_of
from finepref.formats.preferences import Preference, Preferences
from finepref.formats.rewards import Rewards, read_rewards, scorers_in
from finepref.formats.signals import TYPES, Signals, from_columns
from finepref.formats.textcolumn import distinct
from finepref.signals import parts
from finepref.signals.control import controlled
from finepref.signals.kinds import SIGNALS, SignalRow
from finepref.signals.parts import TIE, Part, SignalVotes, voted

STAGES = {"ratings": ("ratings (--arena)", "finepref arena"), "rewards": ("rewards (--rewards)", "finepref score")}


def check_request(
    kinds: Sequence[str], options: Mapping[str, Any], *, ratings: bool, rewards: bool
) -> list[tuple[SignalRow, Options]]:
    """The rows of these kinds, with their options, before anything is read. ratings, rewards: whether they are given.

    Raises:
        InputError: an unknown kind, one named twice, binary beside others, an option without effect or out of its
            range, a missing input.
    """
    listed = ", ".join(kinds)
    rows = [SIGNALS[kind] for kind in kinds]
    if not kinds or len(set(kinds)) != len(kinds) or ("binary" in kinds and len(kinds) > 1):
        raise InputError(f"kinds {listed or '(none)'}", where="kind", remedy="name each once, binary alone")
    for name in options:
        acts_on = [row for row in SIGNALS.values() if name in row.options.model_fields]
        if not acts_on:
            known = {option for row in SIGNALS.values() for option in row.options.model_fields}
            raise InputError("no kind has such an option", where=name, remedy=nearest(name, sorted(known)))
        if not any(row in acts_on for row in rows):
            remedy = f"it acts on {', '.join(row.name for row in acts_on)}"
            raise InputError(f"it has no effect on {listed}", where=name, remedy=remedy)
    for need, given in (("ratings", ratings), ("rewards", rewards)):
        wanted, (option, stage) = any(need in row.needs for row in rows), STAGES[need]
        taken = wanted or any(need in row.takes for row in rows)
        if wanted and not given:
            raise InputError(f"kind {listed} needs it", where=option, remedy=f"name what `{stage}` wrote")
        if given and not taken:
            raise InputError(f"it has no effect on {listed}", where=option, remedy="leave it out")
    own = [{name: value for name, value in options.items() if name in row.options.model_fields} for row in rows]
    return [(row, read_options(row.options, given)) for row, given in zip(rows, own, strict=True)]


def make_signals(
    prefs: Iterable[Preference],
    *,
    kind: str | Sequence[str],
    ratings: Ratings | str | Path | None = None,
    rewards: str | Path | None = None,
    scorer: str | Sequence[str] | None = None,
    control: str | None = None,
    seed: int = 0,
    **options: Any,
) -> Signals:
    """The signal of every decided preference: who won, margin, weight and labels, keyed by pair_id.

    Args:
        prefs: what `read_preferences` returned. kind: a row of `finepref methods`, or several that add up.
        ratings: of their models, or an arena folder. rewards: the file that `score_preferences` wrote, of scorer (which
            may be left out where the file has one); kinds fused and posterior take several, all where none is named.
            control: permute or constant, see `controlled`, with its seed. options: of the kinds, such as margin=2.

    Raises:
        InputError: unknown or clashing kinds, an option without effect; no ratings, rewards, models or image names.

    Example:
        >>> make_signals(read_preferences("votes.parquet"), kind="uniform", margin=2.0)
    """
    kinds = [kind] if isinstance(kind, str) else list(kind)
    chosen = check_request(kinds, options, ratings=ratings is not None, rewards=rewards is not None)
    table = vote_table(prefs, named_images=any(row.images(given) for row, given in chosen))
    made = signals_of(
        table,
        kinds,
        options=options,
        ratings=load_ratings(ratings) if isinstance(ratings, str | Path) else ratings,
        rewards=rewards_for(chosen, rewards, table, scorer),
    )
    return made if control is None else controlled(made, control, seed=seed)


def rewards_for(
    chosen: Sequence[tuple[SignalRow, Options]],
    rewards: str | Path | None,
    table: SignalVotes,
    scorer: str | Sequence[str] | None,
) -> tuple[Rewards, ...]:
    """The rewards of these votes by the scorers that are named; by all of the file where a kind takes several.

    Raises:
        InputError: no such scorer; several where a kind takes one.
    """
    if rewards is None:
        if scorer:
            what = "it has no effect without rewards (--rewards)"
            raise InputError(what, where="scorer", remedy="name what `finepref score` wrote, or leave it out")
        return ()
    names: list[str | None] = [scorer] if isinstance(scorer, str) else [*(scorer or ())]
    if len({*names}) < len(names):
        raise InputError("one is named twice", where="scorer", remedy="name each once")
    alone = [row.name for row, _ in chosen if "rewards" in row.needs and not row.several]
    if alone and len(names) > 1:
        raise InputError(f"{len(names)} scorers for kind {alone[0]}", where="scorer", remedy="name one")
    if not names and not alone:
        names = [*scorers_in(rewards)]
    return tuple(read_rewards(rewards, table.pair_id, scorer=name) for name in names or [None])


def vote_table(prefs: Iterable[Preference], *, named_images: bool) -> SignalVotes:
    """What kinds of signal look at. named_images: read the images where the data do not name them otherwise."""
    held = prefs if isinstance(prefs, Preferences) else list(prefs)
    quick = columns_of(held) if isinstance(held, Preferences) else None
    give_back()  # of reading
    if quick is not None and not (named_images and (None in quick.image_0 or None in quick.image_1)):
        return parts.table_of(quick)
    for images in (False, True):
        votes = replace(held, images=images) if isinstance(held, Preferences) else held
        if isinstance(held, Preferences) and held.quarantine is not None:
            held.quarantine.clear()
        table = parts.vote_table(progress(votes, "votes", unit="vote"))
        if not named_images or None not in (*table.image_0, *table.image_1):
            break
    return table


def signals_of(
    table: SignalVotes,
    kinds: Sequence[str],
    *,
    options: Mapping[str, Any] | None = None,
    ratings: Ratings | None = None,
    rewards: Rewards | Sequence[Rewards] | None = None,
) -> Signals:
    """The signal of every decided vote.

    Several kinds add up where they set different things (paper + smoothed: the arena's margin of the reward's winner,
    and its weight).

    Args:
        kinds: rows of `SIGNALS`. options: of any of them, by name. ratings, rewards: where a kind needs them;
            one scorer's, or several where all of them take several.

    Raises:
        InputError: unknown or clashing kinds, an option without effect; no ratings, rewards, models or image names.
    """
    scored = (rewards,) if isinstance(rewards, Rewards) else tuple(rewards or ())
    chosen = check_request(kinds, options or {}, ratings=ratings is not None, rewards=bool(scored))
    found = {}
    for row, own in chosen:
        given = {"ratings": ratings, "rewards": scored if row.several else next(iter(scored), None)}
        needed = {need: given[need] for need in (*row.needs, *row.takes)}
        found[row.name] = row.function(table, **needed, **own.model_dump())
    return combine(table.pair_id, table.label, found)


def provenance_inputs(votes: Sequence[Path], arena: Path | None, rewards: Path | None) -> list[Path]:
    """The files whose hashes go into the footer."""
    ratings = [] if arena is None else [arena / "ratings.json" if arena.is_dir() else arena]
    return [*votes, *ratings, *([] if rewards is None else [rewards])]


def combine(pair_id: Sequence[str], label: npt.ArrayLike, parts: Mapping[str, Part]) -> Signals:
    """Put kinds together: votes decide the winner unless a kind does; weight 1 and margin 0 unless a kind sets them.

    Pairs without a winner (ties, equal rewards) and pairs for which a kind has no value are left out and counted in
    `meta`. When a reward decides the winner, ties of the voters are left out too (published practice), pairs that
    nobody voted on are used, and the margin is that of the winner that is used.

    Args:
        pair_id: [n] distinct ids. label: [n] P(image 0 preferred) in {1, 0.5, 0}, nan for no vote. parts: kind -> Part.

    Raises:
        InputError: two kinds set the same thing, one not for every vote; a pair id twice; nothing left.
    """
    winner = voted(label)
    ties = np.asarray(label, dtype=np.float64) == TIE
    count = len(winner)
    if distinct(pair_id) < len(pair_id):
        raise InputError("a pair id occurs twice", where="pair_id", remedy="name a column with unique ids")
    columns: dict[str, npt.NDArray[Any]] = {}
    set_by: dict[str, str] = {}
    for kind, part in parts.items():
        for name in TYPES:
            value = getattr(part, name)
            if value is None:
                continue
            if np.shape(value) != (count,):
                what = f"it gives {np.shape(value)} values of {name} for {count} votes"
                raise InputError(what, where=f"kind {kind}", remedy="give one a vote")
            if name in set_by:
                what = name.split("_")[0]
                raise InputError(f"kinds {set_by[name]} and {kind} both set the {what}", remedy="leave one of them out")
            set_by[name], columns[name] = kind, value
    own = {f"{kind}.{key}": value for kind, part in parts.items() for key, value in part.meta.items()}
    whole = from_columns(pair_id, {"winner": winner, **columns}, own)
    undecided = ~ties & (whole.winner < 0)
    missing = ~ties & ~undecided & ~(np.isfinite(whole.margin) & np.isfinite(whole.weight))
    keep = np.flatnonzero(~(ties | undecided | missing))
    counts = {"votes": count, "pairs": len(keep), "ties": int(ties.sum()), "no_value": int((undecided | missing).sum())}
    if not len(keep):
        raise InputError(f"no pair is left of {count} votes ({counts['ties']} ties)", remedy="check votes and rewards")
    return replace(whole.take(keep), meta={"kinds": list(parts) or ["binary"], **counts, **own})
