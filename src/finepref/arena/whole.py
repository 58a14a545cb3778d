"""The whole of `finepref arena`: read, rate, gaps, checks, page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from finepref.arena.agreement import agreement
from finepref.arena.boards import load_board
from finepref.arena.engines import has_sides, rate_by
from finepref.arena.findings import Findings, examine
from finepref.arena.gap import NORMALISE
from finepref.arena.ratings import Ratings, save_ratings
from finepref.arena.selection import merged, read_merges, without_voters
from finepref.arena.settings import DEFAULTS, RatingOptions
from finepref.arena.validate import validate
from finepref.arena.votegaps import KindOfGap, Places, gap_chunks, kinds_of_gap, mean_gaps
from finepref.core.errors import InputError, check_word
from finepref.core.locks import temporary
from finepref.core.memory import give_back
from finepref.core.outfolders import check_folder, settle, whole_folder
from finepref.core.progress import say
from finepref.core.provenance import fingerprint_of, fingerprinted
from finepref.formats.folders import ARENA
from finepref.formats.gaps import GAPS, GapsRecord, write_gaps
from finepref.formats.quarantine import QUARANTINE, LeftOut, write_quarantine
from finepref.formats.ratings import LEADERBOARD, RATINGS, read_ratings, write_leaderboard
from finepref.formats.reading import AS_IT_IS, Reading
from finepref.formats.revisited import places
from finepref.formats.sources import find_files, identities
from finepref.formats.store import IN_MEMORY
from finepref.formats.validation import VALIDATION, write_validation
from finepref.formats.votefiles import VoteTable, read_as

PAGE = "arena.html"
SHOWN = 20  # notes on the terminal
SAY_EVERY = 10_000_000  # rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ArenaRequest:
    """What `finepref arena` was asked for; the names are those of its options."""

    reading: Reading = AS_IT_IS
    rating: RatingOptions = DEFAULTS
    rho: float | None = None
    normalise: str = "none"
    validate: int | None = None
    compare_board: str | None = None
    drop_voter: tuple[str, ...] = ()
    merge: tuple[str, ...] = ()
    skip_bad_rows: bool = False
    overwrite: bool = False
    gaps: bool = True

    def config(self) -> dict[str, Any]:
        """All that decides the result, by name."""
        held = asdict(self) | {"overwrite": None}
        del held["reading"], held["gaps"]
        return {**held.pop("rating"), **held, **self.reading.config()}


def run_arena(
    votes: Sequence[str | Path],
    out: str | Path,
    options: ArenaRequest,
    *,
    page: Callable[[Path, Findings, Mapping[str, Any]], None] | None = None,
    in_memory: int = IN_MEMORY,
    shown: Path | None = None,
) -> Ratings | None:
    """Rate the votes and write the arena folder; None if it holds exactly this result already.

    Args:
        votes: files and folders. out: folder to write. options: as on the command line.
        page: writes the page that people read (`report.arena_page.write_page`); None leaves it out.
        in_memory: votes beyond which their codes are kept in files in `out` until the end.
        shown: what `out` will be called, where it is made elsewhere.

    Raises:
        InputError: the votes cannot be used; nothing has been written then.
    """
    out, seed = Path(out), options.rating.seed
    files = find_files(votes, options.reading)
    check_folder(out, ARENA, inputs=[*votes, *files])
    settle(out, ARENA)
    made = fingerprinted(inputs=files, config=options.config(), identities=identities(votes, options.reading))
    if (out / RATINGS).exists() and not options.overwrite:
        if not read_ratings(out).is_of(made):
            remedy = "give another --out, or --overwrite to replace it"
            raise InputError("holds an arena of other votes or settings", where=out, remedy=remedy)
        asked = {PAGE: page is not None, VALIDATION: options.validate is not None, GAPS: options.gaps}
        wanted = (RATINGS, LEADERBOARD, *(name for name, is_asked in asked.items() if is_asked))
        if all((out / name).exists() for name in wanted):
            say(f"{out}: already holds the arena of these votes and settings")
            return None
    check_word(options.normalise, NORMALISE, "normalisation")
    board = None if options.compare_board is None else load_board(options.compare_board)
    with (
        whole_folder(out, ARENA, fingerprint=fingerprint_of(made)) as folder,
        temporary(folder.parent, folder=True) as scratch,
    ):
        read = read_as(
            votes, options.reading, skip_bad_rows=options.skip_bad_rows, spill=scratch, in_memory=in_memory,
            on_rows=_tell(), repeated=_may_repeat(options),
        )  # fmt: skip
        give_back()  # what reading took
        _say_what_was_read(read)
        say(f"{read.votes.total:,} votes on {len(read.votes.models):,} models ({read.layout.schema})")

        def again() -> Places:
            return places(votes, options.reading, read, skip_bad_rows=options.skip_bad_rows)

        table, ratings = _rated(read, options, again)
        kinds, curve, warnings = kinds_of_gap(table, ratings, scratch, rho=options.rho, seed=seed)
        ratings = replace(ratings, warnings=ratings.warnings + warnings)
        validation = None
        if options.validate is not None:
            validation = validate(table.votes, folds=options.validate, chosen=options.rating, seed=seed)
        found = examine(table, ratings, kinds, curve=curve, validation=validation, board=board, seed=seed)
        _write(folder, found, made)
        if options.gaps:
            _write_gaps(folder, found, kinds, made, normalise=options.normalise, places=again())
        if page is not None:
            page(folder / PAGE, found, made)
        save_ratings(folder / RATINGS, ratings, provenance=made, outcome_words=table.outcome_words)
    if table.rejected:
        say(f"{len(table.rejected)} rows left out, listed in {(shown or out) / QUARANTINE}")
    return ratings


def _say_what_was_read(table: VoteTable) -> None:
    """How the words were taken, what was left out, and what was read otherwise than it stands."""
    for source in table.sources if len(table.sources) > 1 else ():
        say(f"{source.path}: {source.rows:,} rows, {source.used:,} used")
    for reason, count in table.left_out.items():
        say(f"{count:,} rows left out: {reason}")
    for note in table.notes[:SHOWN]:
        say(f"note: {note}")
    if len(table.notes) > SHOWN:
        say(f"note: and {len(table.notes) - SHOWN} more such notes")


def _rated(table: VoteTable, options: ArenaRequest, again: Callable[[], Places]) -> tuple[VoteTable, Ratings]:
    """The votes without dropped voters and with models renamed, and their ratings with what became of every row.

    again: reads the files again, where equal votes are one row.
    """
    left_out = dict(table.left_out)
    renames = read_merges(options.merge, table.votes.models)
    table = replace(table, votes=merged(table.votes, renames)) if renames else table
    if options.drop_voter:
        table, dropped = without_voters(table, options.drop_voter)
        left_out |= {f"by voter {voter!r} (--drop-voter)": rows for voter, rows in dropped.items()}
    turns = None if table.votes.repeats is None else lambda: (at for _, at in again())
    ratings = rate_by(table.votes, options.rating, sides=has_sides(table), turns=turns)
    found = ratings.counted
    assert found is not None
    counted = replace(found, read=found.read + sum(left_out.values()), left_out=left_out, sources=table.sources)
    settings = replace(ratings.settings, drop_voter=options.drop_voter or None, merge=renames or None)
    agreed = agreement(table.votes, seed=options.rating.seed)
    return table, replace(ratings, counted=counted, settings=settings, agreement=agreed)


def _tell() -> Callable[[int], None]:
    told = [SAY_EVERY]

    def on_rows(rows: int) -> None:
        if rows >= told[0]:
            say(f"{rows:,} rows read")
            told[0] += SAY_EVERY

    return on_rows


def _may_repeat(options: ArenaRequest) -> bool:
    """Whether equal votes may be one row: it is enough to know how often each was cast, or to read them again."""
    rating = options.rating
    in_turn = rating.engine == "online" and rating.order == "given"
    counts = rating.engine == "batch" and rating.interval in ("auto", "laplace")
    return (in_turn or counts) and options.validate is None


def _write(out: Path, found: Findings, made: Mapping[str, Any]) -> None:
    table, ratings = found.table, found.ratings
    write_leaderboard(out / LEADERBOARD, ratings.table())
    if found.validation is not None:
        write_validation(out / VALIDATION, found.validation, provenance=made)
    if table.rejected:
        write_quarantine(out / QUARANTINE, [LeftOut(where, reason) for where, reason in table.rejected])


def _write_gaps(
    out: Path,
    found: Findings,
    kinds: Sequence[KindOfGap],
    made: Mapping[str, Any],
    *,
    normalise: str,
    places: Places,
) -> None:
    table, ratings = found.table, found.ratings
    means = mean_gaps(table, ratings, kinds) if normalise == "mean" else {kind.name: 1.0 for kind in kinds}
    record = GapsRecord(
        engine=ratings.engine, settings=ratings.settings.given(), layout=table.layout.about(),
        rho={kind.name: kind.rho for kind in kinds if kind.rho is not None}, normalise=normalise, divided_by=means,
    )  # fmt: skip
    write_gaps(out / GAPS, gap_chunks(table, ratings, kinds, means, places=places), record, provenance=made)
