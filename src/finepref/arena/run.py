"""The whole of `finepref arena`: read, rate, gaps, page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finepref import files
from finepref.arena import folder, tables
from finepref.arena.gap import KINDS
from finepref.arena.page import write_page
from finepref.arena.rate import rate
from finepref.arena.ratings import Ratings, save_ratings
from finepref.arena.read import read_votes
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
    table = read_votes(votes, columns=options.columns, skip_bad_rows=options.skip_bad_rows)
    ratings = rate(table.votes, **options.rating())
    kinds: dict[str, Any] = dict.fromkeys(KINDS)
    meta = {**made, "engine": ratings.engine, "settings": dict(ratings.settings), "layout": asdict(table.layout)}
    folder.write_gaps(out / "gaps.parquet", table, ratings, kinds, meta=meta)
    folder.write_leaderboard(out / "leaderboard.csv", ratings)
    write_page(out / "arena.html", table, ratings, made)
    if table.rejected:
        lines = "".join(f'{{"where": {_quote(place)}, "reason": {_quote(why)}}}\n' for place, why in table.rejected)
        files.write_text(out / "quarantine.jsonl", lines)
        say(f"{len(table.rejected)} rows left out, listed in {out / 'quarantine.jsonl'}")
    save_ratings(out / "ratings.json", ratings, provenance=made)  # last: it says that the folder is whole
    return ratings


def _quote(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)
