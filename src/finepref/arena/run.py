"""The whole of `finepref arena`: read, rate, gaps, checks, page."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from finepref.arena import folder
from finepref.arena.boards import load_board
from finepref.arena.findings import Findings, examine
from finepref.arena.gap import NORMALISE
from finepref.arena.imagegap import image_gaps
from finepref.arena.rate import rate
from finepref.arena.ratings import Ratings, save_ratings
from finepref.arena.rho import RhoCurve, estimate_rho
from finepref.arena.validate import validate
from finepref.core import files
from finepref.core.errors import InputError, nearest
from finepref.core.progress import say
from finepref.formats.sources import find_files
from finepref.formats.store import IN_MEMORY
from finepref.formats.votefiles import VoteTable, read_votes

SAY_EVERY = 10_000_000  # rows


@dataclass(frozen=True, slots=True)
class Options:
    """What `finepref arena` was asked for; the names are those of its options and of `rate`."""

    columns: Mapping[str, str] = field(default_factory=dict)
    engine: str = "batch"
    preset: str = "ksort"
    link: str = "probit"
    prior: str = "normal"
    ties: str = "fit"
    interval: str = "auto"
    cluster: str | None = None
    order: str = "given"
    passes: int = 1
    seed: int = 0
    rho: float | None = None
    normalise: str = "none"
    validate: int | None = None
    compare_board: str | None = None
    skip_bad_rows: bool = False
    overwrite: bool = False

    def rating(self) -> dict[str, Any]:
        """The arguments of `rate`."""
        names = (
            "engine", "preset", "link", "prior", "ties", "interval", "cluster", "order", "passes", "seed",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}


def run_arena(
    votes: Sequence[str | Path],
    out: str | Path,
    options: Options,
    *,
    page: Callable[[Path, Findings, Mapping[str, Any]], None] | None = None,
    in_memory: int = IN_MEMORY,
) -> Ratings | None:
    """Rate the votes and write the arena folder; None if it holds exactly this result already.

    Args:
        votes: files and folders. out: folder to write. options: as on the command line.
        page: writes the page that people read (`report.arena_page.write_page`); None leaves it out.
        in_memory: votes beyond which their codes are kept in files beside `out` until the end.

    Raises:
        InputError: the votes cannot be used; nothing has been written then.
    """
    out = Path(out)
    made = folder.record(find_files(votes), asdict(options) | {"overwrite": None})
    wanted = [
        *folder.ALWAYS,
        *([] if page is None else [folder.PAGE]),
        *(["validation.json"] if options.validate is not None else []),
    ]
    if folder.finished(out, made["fingerprint"], wanted, overwrite=options.overwrite):
        say(f"{out}: already holds the arena of these votes and settings")
        return None
    if options.normalise not in NORMALISE:
        raise InputError(f"unknown normalisation {options.normalise!r}", remedy=nearest(options.normalise, NORMALISE))
    board = None if options.compare_board is None else load_board(options.compare_board)
    with _scratch(out) as scratch:
        table = read_votes(
            votes, columns=options.columns, skip_bad_rows=options.skip_bad_rows, spill=scratch, in_memory=in_memory,
            on_rows=_tell(),
        )  # fmt: skip
        say(f"{len(table.votes):,} votes on {len(table.votes.models):,} models ({table.layout.schema})")
        ratings = rate(table.votes, **options.rating())
        kinds, curve, warnings = _gap_kinds(table, ratings, options, scratch)
        ratings = replace(ratings, warnings=ratings.warnings + warnings)
        validation = None
        if options.validate is not None:
            validation = validate(table.votes, folds=options.validate, chosen=options.rating(), seed=options.seed)
        found = examine(table, ratings, kinds, curve=curve, validation=validation, board=board, seed=options.seed)
        _write(out, found, kinds, made, normalise=options.normalise)
        if page is not None:
            page(out / folder.PAGE, found, made)
        save_ratings(out / "ratings.json", ratings, provenance=made)
    return ratings


def _gap_kinds(
    table: VoteTable, ratings: Ratings, options: Options, scratch: Path
) -> tuple[dict[str, Any], RhoCurve | None, tuple[str, ...]]:
    """Kind -> its rho (kinds that are a table of models) or its values; the curve of rho; what to warn of."""
    kinds: dict[str, Any] = {"uniform": None, "paper": None, "truncated": None}
    votes = table.votes
    if not votes.has_images:
        return {**kinds, "selection": 1.0 if options.rho is None else options.rho}, None, ()
    try:
        curve = estimate_rho(votes, ratings, seed=options.seed)
        rho = curve.rho if options.rho is None else options.rho
        if rho == 1.0:
            return {**kinds, "selection": 1.0, "image": 1.0}, curve, ()
        values = np.memmap(scratch / "image-gaps.bin", dtype=np.float64, mode="w+", shape=(len(votes),))
        return {**kinds, "selection": rho, "image": image_gaps(votes, ratings, rho, out=values)}, curve, ()
    except InputError as error:
        why = f"No image-level gaps: {error}."
        return {**kinds, "selection": 1.0 if options.rho is None else options.rho}, None, (why,)


def _tell() -> Any:
    told = [SAY_EVERY]

    def on_rows(rows: int) -> None:
        if rows >= told[0]:
            say(f"{rows:,} rows read")
            told[0] += SAY_EVERY

    return on_rows


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A folder beside `out` for what does not fit in memory; removed at the end."""
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(out: Path, found: Findings, kinds: dict[str, Any], made: dict[str, Any], *, normalise: str) -> None:
    table, ratings = found.table, found.ratings
    (out / "ratings.json").unlink(missing_ok=True)  # its absence says that the folder is not whole
    rhos = {summary.kind: summary.rho for summary in found.gaps if summary.rho is not None}
    meta = {
        **made, "engine": ratings.engine, "settings": dict(ratings.settings), "rho": rhos,
        "layout": asdict(table.layout),
    }  # fmt: skip
    folder.write_gaps(out / "gaps.parquet", table, ratings, kinds, meta=meta, normalise=normalise)
    folder.write_leaderboard(out / "leaderboard.csv", ratings)
    if found.validation is None:
        (out / "validation.json").unlink(missing_ok=True)
    else:
        files.write_json(out / "validation.json", {**found.validation.record(), "provenance": made})
    (out / "quarantine.jsonl").unlink(missing_ok=True)
    if table.rejected:
        rows = (json.dumps({"where": place, "reason": why}, ensure_ascii=False) for place, why in table.rejected)
        files.write_text(out / "quarantine.jsonl", "\n".join(rows) + "\n")
        say(f"{len(table.rejected)} rows left out, listed in {out / 'quarantine.jsonl'}")
