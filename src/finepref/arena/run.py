"""The whole of `finepref arena`: read, rate, gaps, page."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from finepref import files
from finepref.arena import folder, tables
from finepref.arena.imagegap import image_gaps
from finepref.arena.page import write_page
from finepref.arena.rate import rate
from finepref.arena.ratings import Ratings, save_ratings
from finepref.arena.read import VoteTable, read_votes
from finepref.arena.rho import RhoCurve, estimate_rho
from finepref.errors import InputError
from finepref.progress import say


@dataclass(frozen=True, slots=True)
class Options:
    """What `finepref arena` was asked for; the names are those of its options and of `rate`."""

    columns: Mapping[str, str] = field(default_factory=dict)
    engine: str = "batch"
    preset: str | None = None
    link: str | None = None
    prior: str | None = None
    ties: str | None = None
    order: str = "given"
    passes: int = 1
    seed: int = 0
    rho: float | None = None
    skip_bad_rows: bool = False
    overwrite: bool = False

    def rating(self) -> dict[str, Any]:
        """The arguments of `rate`."""
        names = ("engine", "preset", "link", "prior", "ties", "order", "passes", "seed")
        return {name: getattr(self, name) for name in names}


def run_arena(votes: Sequence[str | Path], out: str | Path, options: Options) -> Ratings | None:
    """Rate the votes and write the arena folder; None if it holds exactly this result already.

    Raises:
        InputError: the votes cannot be used; nothing has been written then.
    """
    out = Path(out)
    paths = tables.find_files(votes)
    config = asdict(options) | {"overwrite": None}
    made = folder.record(paths, config)
    if folder.finished(out, made["fingerprint"], folder.ALWAYS, overwrite=options.overwrite):
        say(f"{out}: already holds the arena of these votes and settings")
        return None
    with _scratch(out) as scratch:
        table = read_votes(votes, columns=options.columns, skip_bad_rows=options.skip_bad_rows, spill=scratch)
        ratings = rate(table.votes, **options.rating())
        kinds, curve, warnings = _gap_kinds(table, ratings, options, scratch)
        ratings = replace(ratings, warnings=ratings.warnings + warnings)
        _write(out, table, ratings, kinds, made)
    return ratings


def _gap_kinds(
    table: VoteTable, ratings: Ratings, options: Options, scratch: Path
) -> tuple[dict[str, Any], RhoCurve | None, tuple[str, ...]]:
    """Kind -> its rho (kinds that are a table of models) or its values; the curve of rho; what to warn of."""
    kinds: dict[str, Any] = {"uniform": None, "paper": None, "truncated": None}
    votes = table.votes
    if not votes.has_images:
        return {**kinds, "selection": options.rho or 1.0}, None, ()
    try:
        curve = estimate_rho(votes, ratings, seed=options.seed)
        rho = curve.rho if options.rho is None else options.rho
        if rho == 1.0:
            return {**kinds, "selection": 1.0, "image": 1.0}, curve, ()
        values = np.memmap(scratch / "image-gaps.bin", dtype=np.float64, mode="w+", shape=(len(votes),))
        return {**kinds, "selection": rho, "image": image_gaps(votes, ratings, rho, out=values)}, curve, ()
    except InputError as error:
        return {**kinds, "selection": options.rho or 1.0}, None, (f"No image-level gaps: {error}.",)


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A folder beside `out` for what does not fit in memory; removed at the end."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(out: Path, table: VoteTable, ratings: Ratings, kinds: dict[str, Any], made: dict[str, Any]) -> None:
    meta = {**made, "engine": ratings.engine, "settings": dict(ratings.settings), "layout": asdict(table.layout)}
    folder.write_gaps(out / "gaps.parquet", table, ratings, kinds, meta=meta)
    folder.write_leaderboard(out / "leaderboard.csv", ratings)
    write_page(out / "arena.html", table, ratings, made)
    if table.rejected:
        lines = "".join(f'{{"where": {_quote(place)}, "reason": {_quote(why)}}}\n' for place, why in table.rejected)
        files.write_text(out / "quarantine.jsonl", lines)
        say(f"{len(table.rejected)} rows left out, listed in {out / 'quarantine.jsonl'}")
    save_ratings(out / "ratings.json", ratings, provenance=made)  # last: it says that the folder is whole


def _quote(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)
