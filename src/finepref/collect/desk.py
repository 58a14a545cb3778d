"""A study that is open: who votes, which sets are out, and every answer kept before the page is told so.

One process and one thread work at a desk, so that nothing here waits for a lock.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finepref.collect.chooser import Chooser
from finepref.collect.fitting import shown_file
from finepref.collect.refusal import Refused, checked_answer
from finepref.collect.seats import ACTIVE, AHEAD, ME, REMEMBERED, Seat, fault_of_voter, gold_for, repeat_for
from finepref.collect.tally import VoteTally
from finepref.collect.transaction import Transaction
from finepref.core.errors import InputError
from finepref.core.regular import read_regular
from finepref.formats import answers as kept
from finepref.formats.answers import Answer, PictureRow, ShownSet, StudyVoter
from finepref.formats.collection import PICTURES, CollectionRecord, read_study
from finepref.formats.studyvotes import check_pictures, checked_pictures, checked_sets

OPEN, PAUSED, CLOSED, DONE = "open", "paused", "closed", "done"
PICTURE_NAME = re.compile(r"[0-9a-f]{24}\.png")


class Desk:
    """An open study. clock: seconds, such as `time.time`.

    What is written waits in an open transaction, which this desk sees, until `commit`: only then may anybody be told.
    Several requests share one commit, since a disk may take a fifth of a second for each.
    """

    def __init__(
        self,
        folder: Path,
        connection: sqlite3.Connection,
        make_chooser: Callable[[Sequence[PictureRow]], Chooser],
        clock: Callable[[], float],
    ) -> None:
        self.folder, self.connection, self.clock, self.make_chooser = folder, connection, clock, make_chooser
        self.about: CollectionRecord = read_study(folder)
        self.pictures: Sequence[PictureRow] = checked_pictures(connection, self.about)
        self.transaction = Transaction(connection)
        self._take_up()

    def commit(self) -> None:
        """Put everything that was written on disk.

        Raises:
            Refused: the disk is full, or gone; nothing since the last commit has happened then.
        """
        self.transaction.commit()

    def give_up(self) -> None:
        """Take back what was not committed."""
        self.transaction.give_up()

    def _take_up(self) -> None:
        """What was shown and answered before."""
        self.chooser, self.tally = self.make_chooser(self.pictures), VoteTally(self.about, self.pictures)
        self.seats = {each.id: Seat(each) for each in kept.voters_of(self.connection)}
        self.by_token = {each.voter.token: number for number, each in self.seats.items()}
        for shown, answers in checked_sets(self.connection, self.about):
            seat = self.seats[shown.voter]
            seat.note(shown)
            if answers:
                seat.done += 1
            else:
                seat.waiting.append(shown)
            for answer in answers:
                self.tally.add(answer, shown)
            if seat.voter.state == ACTIVE:
                self.chooser.out(shown, answers)
            else:
                self.chooser.out(shown)
                self.chooser.left(shown)

    # Voters

    def invite(self, name: str) -> tuple[StudyVoter, str]:
        """(a new voter, the secret token of the personal link, which is kept nowhere).

        Raises:
            Refused: the name of another voter, or one that is kept for this machine; or the disk is full.
        """
        fault = fault_of_voter(name, (seat.voter for seat in self.seats.values()))
        if fault:
            raise Refused(409, fault, "give another name")
        return self._add(name)

    def local(self) -> Seat:
        """The seat of who votes on this machine without a link."""
        there = next((seat for seat in self.seats.values() if seat.voter.name == ME), None)
        return there or self.seats[self._add(ME)[0].id]

    def _add(self, name: str) -> tuple[StudyVoter, str]:
        token = secrets.token_urlsafe(16)
        with self.transaction.alone():
            voter = kept.add_voter(self.connection, name=name, token=hashed(token), at=self.clock())
        self.seats[voter.id] = Seat(voter)
        self.by_token[voter.token] = voter.id
        return voter, token

    def voter_of(self, token: str) -> Seat | None:
        """The seat that a token is for."""
        found = self.by_token.get(hashed(token))
        seat = None if found is None else self.seats[found]
        return seat if seat is not None and hmac.compare_digest(seat.voter.token, hashed(token)) else None

    def change(self, number: int, **changes: str) -> None:
        """Set the name, token hash or state of a voter; the answers of one who is excluded choose no sets any more."""
        if number not in self.seats:
            raise Refused(404, f"no voter {number}")
        seat = self.seats[number]
        with self.transaction.alone():
            kept.change_voter(self.connection, number, **changes)
        before = seat.voter
        seat.voter = next(each for each in kept.voters_of(self.connection) if each.id == number)
        self.by_token.pop(before.token, None)
        self.by_token[seat.voter.token] = number
        if (before.state == ACTIVE) != (seat.voter.state == ACTIVE):
            self._steer(number, counts=seat.voter.state == ACTIVE)

    def _steer(self, number: int, *, counts: bool) -> None:
        """Let the answers of a voter choose sets, or not; what the voter saw stays seen."""
        for shown, answers in checked_sets(self.connection, self.about, number):
            if counts:
                self.chooser.out(shown, answers)
            else:
                self.chooser.taken_back(answers, shown)
                self.chooser.left(shown)

    def renew(self, number: int) -> str:
        """A new secret token for a voter whose link was lost; the old one is no link any more."""
        token = secrets.token_urlsafe(16)
        self.change(number, token=hashed(token))
        return token

    def set_state(self, state: str) -> None:
        """Open, pause or close the study."""
        self.set("state", state)

    def set(self, name: str, value: str) -> None:
        """Keep a setting of the owner."""
        with self.transaction.alone():
            kept.put_setting(self.connection, name, value)

    # Sets

    def state(self, seat: Seat | None = None) -> str:
        """Whether the study is open, paused or closed, or done for this voter."""
        said = kept.setting(self.connection, "state", OPEN)
        enough = seat is not None and self.about.votes is not None and seat.done >= self.about.votes
        return DONE if said == OPEN and enough else said

    def sets(self, seat: Seat, count: int) -> list[ShownSet]:
        """The sets that are out with a voter, filled up to `count` with new ones; fewer where nothing is left."""
        if self.state(seat) != OPEN or seat.voter.state != ACTIVE:
            return []
        most = min(count, AHEAD)
        if self.about.votes is not None:
            most = min(most, self.about.votes - seat.done)
        while len(seat.waiting) < most and (shown := self._next(seat)) is not None:
            self._put(seat, shown)
        return seat.waiting[:most]

    def show(self, seat: Seat, pictures: tuple[int, ...]) -> ShownSet:
        """Put just these pictures before a voter, in this order."""
        self._check_open(seat)
        shown = ShownSet(secrets.token_hex(16), seat.voter.id, pictures, "plain", "", self.clock(), seat.shown)
        self.chooser.out(shown)
        self._put(seat, shown)
        return shown

    def _put(self, seat: Seat, shown: ShownSet) -> None:
        """Put a set before a voter; the chooser knows of it already."""
        if shown.kind == "plain":
            self.transaction.back(lambda: self.chooser.unseen(shown), lambda: self.chooser.left(shown))
        with self.transaction.writing():
            kept.add_shown(self.connection, shown)
        self.transaction.back(seat.as_now())
        seat.note(shown)
        seat.waiting.append(shown)

    def _next(self, seat: Seat) -> ShownSet | None:
        number, about = seat.shown, self.about
        kind, known, pictures = "plain", "", None
        if about.gold_every and number % about.gold_every == about.gold_every - 1:
            kind, known, pictures = gold_for(seat, about.gold)
        elif about.repeat_every and number % about.repeat_every == about.repeat_every - 1:
            earlier = kept.plain_before(self.connection, seat.voter.id, skip=AHEAD, most=REMEMBERED)
            kind, known, pictures = repeat_for(seat, earlier)
        if pictures is None:
            kind, known, pictures = "plain", "", self.chooser.choose(seat.voter.id)
        if pictures is None:
            return None
        name = secrets.token_hex(16)
        return ShownSet(name, seat.voter.id, pictures, kind, known, self.clock(), number)

    def shown(self, seat: Seat, name: str) -> ShownSet:
        """A set of this voter by its id."""
        waiting = next((each for each in seat.waiting if each.id == name), None)
        found = waiting or kept.shown_by_id(self.connection, name)
        if found is None or found.voter != seat.voter.id:
            raise Refused(404, "no such set")
        return found

    def picture(self, seat: Seat, name: str, position: int) -> Path:
        """The file of a picture of a set."""
        pictures = self.shown(seat, name).pictures
        if not 0 <= position < len(pictures):
            raise Refused(404, "no such picture")
        picture = self.pictures[pictures[position]]
        found = shown_file(self.folder, picture)
        if not PICTURE_NAME.fullmatch(picture.name) or found.is_symlink():
            raise Refused(404, "this picture is no file of the study", "tell the owner of the study")
        return found

    def picture_bytes(self, seat: Seat, name: str, position: int) -> bytes:
        """What is in it."""
        try:
            return read_regular(self.picture(seat, name, position), root=self.folder / PICTURES, what="picture")
        except InputError:
            raise Refused(410, "this picture is not there any more", "tell the owner of the study") from None

    def revision(self, name: str) -> int:
        """How often the answers to a set were undone."""
        found = [each.revision for each in kept.answers_of_set(self.connection, name)]
        return max(found) + 1 if found else 0

    # Answers

    def store(self, seat: Seat, name: str, revision: int, said: Mapping[str, Any], measured: Mapping[str, Any]) -> bool:
        """Keep the answers to a set; False where just these were kept before.

        Raises:
            Refused: no such set, an answer that does not fit it, the study is not open, or other answers are there.
        """
        shown = self.shown(seat, name)
        mode, size = self.about.mode, len(shown.pictures)
        values = [checked_answer(mode, size, said.get(each.name), each.name) for each in self.about.questions]
        if len(said) != len(values):
            raise Refused(422, "answers to other questions than those of the study")
        held = kept.answers_of_set(self.connection, name)
        same = [each for each in held if each.revision == revision]
        if same:
            if [each.answer for each in same] == values:
                return False
            raise Refused(409, "another answer to this set is there already", "go on to the next set")
        stands = any(not each.undone for each in held)
        if stands or revision != (max(each.revision for each in held) + 1 if held else 0):
            raise Refused(409, "this set was answered or undone elsewhere", "load the page again")
        self._check_open(seat)
        now = self.clock()
        new = [
            Answer(0, name, number, value, revision, now, **measured)  # type: ignore[arg-type]
            for number, value in enumerate(values)
        ]
        with self.transaction.writing():
            new = kept.add_answers(self.connection, new)
        cut = self.tally.as_now()
        self.transaction.back(seat.as_now(), cut, lambda: self.chooser.taken_back(new, shown))
        seat.waiting = [each for each in seat.waiting if each.id != name]
        seat.done += 1
        for answer in new:
            self.chooser.answered(answer, shown)
            self.tally.add(answer, shown)
        return True

    def _check_open(self, seat: Seat) -> None:
        if self.state() != OPEN:
            raise Refused(409, f"the study is {self.state()}", "ask its owner")
        if seat.voter.state != ACTIVE:
            raise Refused(403, "this link is closed", "ask the owner of the study")

    def undo(self, seat: Seat, name: str | None = None) -> ShownSet:
        """Take the last answer of a voter back; the set is out again.

        Args:
            name: of the set that the voter means: where its answer was taken back already, nothing happens.

        Raises:
            Refused: nothing to take back, or another set was answered last.
        """
        shown = kept.last_answered(self.connection, seat.voter.id)
        if name is not None and (shown is None or shown.id != name):
            again = next((each for each in seat.waiting if each.id == name), None)
            if again is not None and self.revision(name):
                return again
            raise Refused(409, "this set was not answered last", "load the page again")
        if shown is None or self.state() != OPEN or seat.voter.state != ACTIVE:
            raise Refused(409, "there is nothing to take back")
        held = [each for each in kept.answers_of_set(self.connection, shown.id) if not each.undone]
        with self.transaction.writing():
            kept.undo_set(self.connection, shown.id)
        self.transaction.back(seat.as_now(), lambda: self._count_again(held, shown))
        self.tally.undone([each.id for each in held])
        self.chooser.taken_back(held, shown)
        seat.waiting.insert(0, shown)
        seat.done -= 1
        return shown

    def _count_again(self, answers: Sequence[Answer], shown: ShownSet) -> None:
        self.tally.undone([each.id for each in answers], stands=1)
        for answer in answers:
            self.chooser.answered(answer, shown)

    def last_answers(self, name: str) -> dict[str, Any] | None:
        """Question -> answer, as it was before it was undone last."""
        held = kept.answers_of_set(self.connection, name)
        newest = max((each.revision for each in held), default=0)
        last = [each for each in held if each.revision == newest]
        return {self.about.questions[each.question].name: json.loads(each.answer) for each in last} or None


def hashed(token: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def open_desk(
    folder: Path, make_chooser: Callable[[Sequence[PictureRow]], Chooser], clock: Callable[[], float]
) -> Desk:
    """Open a study whose folder the caller holds.

    Raises:
        InputError: it cannot be read, something in it cannot be, or a picture is gone.
    """
    connection = kept.connect(folder / kept.VOTES)
    try:
        desk = Desk(folder, connection, make_chooser, clock)
        check_pictures(folder, desk.pictures)
        return desk
    except InputError:
        connection.close()
        raise
    except (sqlite3.DatabaseError, ValueError) as error:
        connection.close()
        raise InputError(f"it cannot be read ({error})", where=folder / kept.VOTES, remedy=kept.REMEDY) from None
