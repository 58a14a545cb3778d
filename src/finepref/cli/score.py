"""`finepref score`: numbers for generated images, or for the images of a preference data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from finepref.cli.asked import share_of, with_reading, words_of
from finepref.cli.ending import ends
from finepref.core.errors import InputError
from finepref.formats.reading import AS_IT_IS, Reading


@with_reading()
def command(
    data: Annotated[list[Path], typer.Argument(help="One evaluation folder, or the files of a preference data set.")],
    scorer: Annotated[
        list[str] | None, typer.Option(help="Scorer name, repeatable; `finepref scorers list` names them.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Use the scorers of a protocol.")] = None,
    out: Annotated[Path | None, typer.Option(help="Rewards file of a preference data set.")] = None,
    precision: Annotated[str, typer.Option(help="no (float32), bf16 or fp16, of scorers on a network.")] = "no",
    batch_size: Annotated[int, typer.Option(min=1, help="Images per call; does not change a score.")] = 16,
    shard: Annotated[str, typer.Option(help="INDEX/COUNT: this share of the data alone.")] = "0/1",
    reading: Reading = AS_IT_IS,
    overwrite: Annotated[bool, typer.Option(help="Score again what has a score.")] = False,
) -> None:
    """Score images.

    DIR/scores.parquet of an evaluation folder, or the rewards of a preference data set.
    """
    from finepref.formats.manifest import LINES, read_rows
    from finepref.formats.preferences import Preferences, Quarantined

    specs = _scorers(scorer or [], protocol)
    how: dict[str, Any] = {"precision": precision, "batch_size": batch_size, "overwrite": overwrite}
    if (data[0] / LINES).is_file():
        from finepref.evaluate.score import score
        from finepref.formats.scores import SCORES

        if len(data) > 1 or out is not None or shard != "0/1" or reading != AS_IT_IS:
            what = "an evaluation folder is scored alone and into itself"
            raise InputError(what, where=data[0], remedy="leave out --out, --shard, and how data are read")
        score(data[0], specs, **how)
        models = list(dict.fromkeys(row.model for row in read_rows(data[0])))
        ends(data[0] / SCORES, ("compare", data[0], "--baseline", models[0]) if models[1:] else ("report", data[0]))
        return
    if out is None:
        what = "neither an evaluation folder nor a data set with a place for its rewards"
        remedy = "run `finepref generate` into it, or give --out rewards.parquet"
        raise InputError(what, where=data[0], remedy=remedy)
    from finepref.core.progress import say
    from finepref.evaluate.scored_pairs import score_preferences

    dropped: list[Quarantined] = []
    written = score_preferences(
        Preferences(data=data, reading=reading, quarantine=dropped),
        specs,
        out,
        inputs=data,
        shard=share_of(shard),
        **how,
    )
    if dropped:
        say(f"{len(dropped)} rows were left out, first row {dropped[0].row}: {dropped[0].reason}")
    if not written.is_file() or written.with_name(f"{written.name}.parts").exists():
        return  # others' shares are still to be scored
    signals = ("--kind", "posterior", "--rewards", written, "--out", "signals.parquet")
    ends(written, ("signals", *data, *words_of(reading), *signals))


def _scorers(given: list[str], protocol: str | None) -> list[str]:
    from finepref.evaluate.protocols import choose_scorers, load_protocol

    if protocol is not None:
        return choose_scorers(load_protocol(protocol), given)
    if not given:
        raise InputError("no scorer", where="--scorer", remedy="name at least one, or a --protocol")
    return given
