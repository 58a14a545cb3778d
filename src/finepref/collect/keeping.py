"""What an owner does with the votes of a study: export, backup, forgetting a voter."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from finepref.collect.studychecks import check_study
from finepref.collect.tally import VoteTally
from finepref.core.errors import InputError, check_word
from finepref.core.files import atomic_file, followed
from finepref.core.outfolders import own_folder
from finepref.core.ownership import check_file
from finepref.core.provenance import provenance
from finepref.core.text import inert
from finepref.formats import answers as kept
from finepref.formats.answerfile import has_log, log_of
from finepref.formats.collection import PICTURES, STUDY, read_study
from finepref.formats.folders import COLLECTION
from finepref.formats.preferences import Preferences, made_of, write_pairs
from finepref.formats.reading import AS_IT_IS
from finepref.formats.studyvotes import COLUMNS, checked_answers, study_table, with_files
from finepref.formats.voterchecks import QuestionChecks, is_checks, write_checks

MADE = "study "


def export_votes(folder: Path, out: Path, *, question: str | None = None) -> int:
    """Write the votes as preferences: parquet with the pictures in it, or csv with their files; how many rows.

    The checks on all voters go beside, into `checks_beside(out)`.

    Raises:
        InputError: another kind of file, several questions, an unknown one, or no vote yet.
    """
    questions = [each.name for each in read_study(folder).questions]
    if question is not None:
        check_word(question, questions, "question", where="--question")
    check_file(out, _is_export, inputs=[folder], what="an export")
    beside = check_file(checks_beside(out), is_checks, inputs=[folder], what="checks on voters")
    count = _write_votes(folder, out, questions, question)
    write_checks(beside, checks_of(folder), provenance())
    return count


def checks_beside(out: Path) -> Path:
    """Where the checks on voters go that belong to exported votes."""
    return out.with_name(f"{out.stem}.checks.json")


def checks_of(folder: Path) -> tuple[QuestionChecks, ...]:
    """The checks on the voters of a study, with boards as `finepref arena` gives them."""
    about = read_study(folder)
    with kept.reading_votes(folder / kept.VOTES) as connection:
        tally = VoteTally(about, kept.pictures_of(connection))
        for answer, shown in checked_answers(connection, about):
            tally.add(answer, shown)
        out = {each.id for each in kept.voters_of(connection) if each.state != "active"}
        boards = [tally.board(number, excluded=out) for number in range(len(about.questions))]
        return check_study(connection, about, boards)


def _write_votes(folder: Path, out: Path, questions: Sequence[str], question: str | None) -> int:
    if out.suffix == ".parquet":
        if question is None and len(questions) > 1:
            remedy = f"choose one with --question: {', '.join(questions)}"
            raise InputError("a pair cannot have the answers to several questions", where=out, remedy=remedy)
        pairs = Preferences(data=[folder], reading=replace(AS_IT_IS, question=question))
        return write_pairs(pairs, out, made=f"{MADE}{folder.name} {question or ''}".strip())
    if out.suffix != ".csv":
        raise InputError(f"unknown kind of file {out.suffix!r}", where=out, remedy="write .parquet or .csv")
    buffer, count = io.StringIO(), 0
    writer = csv.DictWriter(buffer, fieldnames=COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in study_table(folder).lines(None):
        if question is None or line.cells["question"] == question:
            cells = with_files(line.cells, folder)
            writer.writerow({name: inert("" if value is None else value) for name, value in cells.items()})
            count += 1
    if not count:
        raise InputError("nobody has voted yet", where=folder, remedy=f"see {PICTURES}/ and the owner's page")
    with atomic_file(out) as temporary:
        temporary.write_text(buffer.getvalue(), encoding="utf-8")
    return count


def _is_export(path: Path) -> bool:
    if path.suffix == ".parquet":
        return made_of(path).startswith(MADE)
    return path.read_text(encoding="utf-8").partition("\n")[0] == ",".join(COLUMNS)


def copy_votes(folder: Path, out: Path) -> None:
    """A whole copy of votes.sqlite, also while a server writes.

    Raises:
        InputError: something else is at `out`, such as the votes of another study, or it lies in a study.
    """

    def is_copy(path: Path) -> bool:
        """Of this study: with its pictures, and no voter who was never there."""
        with kept.reading_votes(folder / kept.VOTES) as here, kept.reading_votes(path) as there:
            made = {(each.id, each.made_at) for each in kept.voters_of(here)}
            known = made >= {(each.id, each.made_at) for each in kept.voters_of(there)}
            return known and kept.pictures_of(here) == kept.pictures_of(there)

    beside = followed(out).parent / STUDY
    if os.path.lexists(beside):
        raise InputError(f"it lies beside a {STUDY}, in a study", where=out, remedy="name a file in another folder")
    place = check_file(out, is_copy, inputs=[folder], what="a copy of this study's votes")
    if has_log(place):
        raise InputError("it is in use, or was: a log lies beside it", where=log_of(place), remedy="name another file")
    with atomic_file(out) as temporary:
        temporary.unlink(missing_ok=True)
        kept.backup(folder / kept.VOTES, temporary)


def forget_voter(folder: Path, name: str, *, votes: bool) -> str:
    """Remove a voter's name, and the votes where that is asked; what was done, in words.

    name: the pseudonym, or `forgotten voter 3` of one whose name is removed already.

    Raises:
        InputError: no such voter, or the study is served now.
    """
    if not name.strip():
        raise InputError("no name", where="--forget", remedy="write the name of a voter")
    with own_folder(folder, COLLECTION):
        connection = kept.connect(folder / kept.VOTES)
        try:
            voters = kept.voters_of(connection)
            found = [each for each in voters if each.name == name] or [each for each in voters if each.called == name]
            if not found:
                check_word(name, [each.called for each in voters], "voter", where="--forget")
            for voter in found:
                kept.change_voter(connection, voter.id, name="", token=f"forgotten {voter.id}")
                if votes:
                    kept.remove_votes(connection, voter.id)
            connection.execute("VACUUM")
        finally:
            connection.close()
    if votes:
        return f"{name!r} is forgotten; the votes are removed"
    return f"{name!r} is forgotten; the votes stay, of {', '.join(repr(f'forgotten voter {v.id}') for v in found)}"
