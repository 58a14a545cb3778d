"""`finepref signals`: what the votes, the arena or a reward say of every pair, as one sidecar file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finepref.cli.asked import with_reading
from finepref.cli.ending import ends
from finepref.cli.following import training
from finepref.core.errors import InputError, check_word
from finepref.formats.reading import AS_IT_IS, Reading

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from finepref.formats.preferences import Quarantined
    from finepref.formats.signals import Signals
    from finepref.signals.kinds import SignalRow


@with_reading()
def command(
    votes: Annotated[list[Path], typer.Argument(help="Files of the preference data set.")],
    out: Annotated[Path, typer.Option(help="Sidecar to write (signals.parquet).")],
    kind: Annotated[
        list[str],
        typer.Option(help="What to say of a pair (`finepref methods` lists the kinds); repeatable where they add up."),
    ],
    arena: Annotated[Path | None, typer.Option(help="Folder that `finepref arena` wrote.")] = None,
    rewards: Annotated[Path | None, typer.Option(help="File that `finepref score` wrote.")] = None,
    scorer: Annotated[
        list[str] | None,
        typer.Option(help="Which scores of --rewards, where it has several; fused and posterior take all, or these."),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(help="Margins and weights that tell nothing of their pair: permute (dealt anew), or constant."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of --control permute.")] = 0,
    reading: Reading = AS_IT_IS,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write again what is finished.")] = False,
    **own: Any,
) -> None:
    """What votes, arena or rewards say of every pair.

    Writes signals.parquet: winner, margins, weight and labels of every decided vote, keyed by pair_id.
    """
    from finepref.arena.ratings import load_ratings
    from finepref.core.progress import say
    from finepref.core.provenance import provenance
    from finepref.formats.preferences import Preferences
    from finepref.formats.signals import is_of, own_signals, write_signals
    from finepref.formats.sources import identities, named_inputs, versions
    from finepref.signals.control import CONTROLS, controlled
    from finepref.signals.make import check_request, provenance_inputs, rewards_for, signals_of, vote_table

    if out.suffix.lower() != ".parquet":
        raise InputError(
            f"signals are parquet, not {out.suffix or 'a file without an ending'}",
            where=out,
            remedy="name a .parquet file",
        )
    options = {name: value for name, value in own.items() if value is not None}
    chosen = check_request(kind, options, ratings=arena is not None, rewards=rewards is not None)
    own = {row.name: given.model_dump() for row, given in chosen}
    named = scorer[0] if scorer and len(scorer) == 1 else scorer or None
    if control is not None:
        check_word(control, CONTROLS, "control", where="--control")
    if seed and control != "permute":
        raise InputError("it has no effect without --control permute", where="--seed", remedy="leave it out")
    asked = {} if control is None else {"control": [control, seed]}
    settings = {"kinds": own, "scorer": named, **asked, "votes": versions(votes, reading), **reading.config()}
    inputs = [*named_inputs(votes), *filter(None, (arena, rewards))]
    with own_signals(out, inputs=inputs):
        told = identities(votes, reading)
        record = provenance(inputs=provenance_inputs(votes, arena, rewards), config=settings, identities=told)
        if not overwrite and is_of(out, record):
            say(f"{out} is finished")
            ends(out, training(kind, votes, reading, out))
            return
        faults: list[Quarantined] = []
        prefs = Preferences(data=votes, reading=reading, quarantine=faults)
        table = vote_table(prefs, named_images=any(row.images(given) for row, given in chosen))
        signals = signals_of(
            table,
            kind,
            options=options,
            ratings=None if arena is None else load_ratings(arena),
            rewards=rewards_for(chosen, rewards, table, scorer),
        )
        signals = signals if control is None else controlled(signals, control, seed=seed)
        write_signals(out, signals, provenance={**record, "votes_sha256": _hash(table)})
    _summarise(signals, faults)
    ends(out, training(kind, votes, reading, out))


def _hash(table: Any) -> str:
    """Of everything that was read."""
    import hashlib

    import numpy as np

    from finepref.formats.textcolumn import content_of

    digest = hashlib.sha256()
    for name in table.__slots__:
        column = getattr(table, name)
        digest.update(name.encode())
        pieces = [] if column is None else [column.tobytes()] if isinstance(column, np.ndarray) else content_of(column)
        for piece in pieces:
            digest.update(piece)
    return digest.hexdigest()


NOTHING = 0.005
"""Share of the way from a coin to certainty below which votes are not foretold at all."""
PLAIN = [each for each in signature(command, eval_str=True).parameters.values() if each.name != "own"]


def declare(rows: Iterable[SignalRow] = ()) -> None:
    """Give the command the options of these kinds of signal.

    Raises:
        InputError: a kind has an option with the name of one of the command's.
    """
    own = list(PLAIN)
    taken = {each.name for each in own}
    kinds: dict[str, list[str]] = {}
    fields: dict[str, FieldInfo] = {}
    for row in rows:
        for name, field in row.options.model_fields.items():
            if name in taken:
                raise InputError(f"option {name} is the command's", where=f"signal {row.name!r}", remedy="rename it")
            kinds.setdefault(name, []).append(row.name)
            fields[name] = field
    for name, field in fields.items():
        words = typer.Option(help=f"{', '.join(kinds[name])}: {field.description} [{field.default}]", metavar="VALUE")
        kind: Any = bool | None if field.annotation is bool else str | None
        own.append(Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, words]))
    command.__signature__ = Signature(own)  # type: ignore[attr-defined]


def _summarise(signals: Signals, faults: list[Quarantined]) -> None:
    from finepref.core.progress import say

    for kind in signals.kinds:
        if f"{kind}.coefficients" in signals.meta:
            say(_card(kind, {key.removeprefix(f"{kind}."): value for key, value in signals.meta.items()}))

    for fault in faults[:3]:
        say(f"row {fault.row} (pair {fault.pair_id}) left out: {fault.reason}")
    counts = signals.meta
    say(
        f"{counts['pairs']} pairs of {counts['votes']} votes: {counts['ties']} ties, {counts['no_value']} without a "
        f"value, {len(faults)} unusable rows; mean margin {signals.margin.mean():.3f}, mean weight "
        f"{signals.weight.mean():.3f}"
    )


def _card(kind: str, about: Mapping[str, Any]) -> str:
    """What votes, ratings and rewards told of the images."""
    parts = []
    for name, found in about["coefficients"].items():
        (low, high), missing = found["interval"], found["unscored"]
        lacking = f", {missing} images without a score" if missing else ""
        value, low, high = (round(number, 2) + 0.0 for number in (found["value"], low, high))
        parts.append(f"{name} {value:.2f} [{low:.2f}, {high:.2f}]{lacking}")
    told = f"{kind}: what counts of an image before its votes: {'; '.join(parts) or 'nothing'}; rho {about['rho']:.2f}"
    if "overruled" in about:
        told += f"; {about['overruled']:.1%} of the votes overruled; votes foretold {about['explained']:.1%} of the way"
        told += " from a coin to certainty"
        told += "; nothing tells these pictures apart" if about["explained"] < NOTHING else ""
    return told
