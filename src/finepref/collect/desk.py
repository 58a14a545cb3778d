"""A study that is open: who votes, which sets are out, and every answer kept before the page is told so.

One process and one thread work at a desk, so that nothing here waits for a lock.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finepref.collect.chooser import Chooser
from finepref.collect.fitting import shown_file
from finepref.collect.refusal import Refused
from finepref.collect.tally import VoteTally
from finepref.core.errors import InputError
from finepref.formats import answers as kept
from finepref.formats.answers import Answer, PictureRow, ShownSet, StudyVoter
from finepref.formats.collection import OUTCOMES, SKIP, CollectionRecord, read_study

OPEN, PAUSED, CLOSED, DONE = "open", "paused", "closed", "done"
REMEMBERED = 200  # last sets of a voter, of which one is asked again
AHEAD = 4
"""Sets that a voter may have at most: the one that is looked at, and those that are loaded."""


@dataclass(slots=True)
class Seat:
    """What is known of a voter while the study is open. waiting: the sets that are out with them, oldest first."""

    voter: StudyVoter
    waiting: list[ShownSet] = field(default_factory=list)
    shown: int = 0
    done: int = 0
    plain: deque[ShownSet] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    gold: set[tuple[int, ...]] = field(default_factory=set)


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
        self.pictures: Sequence[PictureRow] = kept.pictures_of(connection)
        self._take_up()

    def commit(self) -> None:
        """Put everything that was written on disk.

        Raises:
            Refused: the disk is full, or gone; nothing since the last commit has happened then.
        """
        if not self.connection.in_transaction:
            return
        try:
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            self.give_up()
            raise Refused(503, f"it could not be kept ({error})", "it is sent again by itself") from None

    def give_up(self) -> None:
        """Forget what was not committed, and read again what was."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self._take_up()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Write within the open transaction, or begin one; a disk that is full ends it."""
        try:
            if not self.connection.in_transaction:
                self.connection.execute("BEGIN IMMEDIATE")
            yield
        except sqlite3.Error as error:
            self.give_up()
            raise Refused(503, f"it could not be kept ({error})", "it is sent again by itself") from None

    def _take_up(self) -> None:
        """What was shown and answered before."""
        self.chooser, self.tally = self.make_chooser(self.pictures), VoteTally(self.about, self.pictures)
        self.seats = {each.id: Seat(each) for each in kept.voters_of(self.connection)}
        self.by_token = {each.voter.token: number for number, each in self.seats.items()}
        stand = {shown.id for shown in kept.open_sets(self.connection)}
        for number, seat in self.seats.items():
            for shown in kept.shown_to(self.connection, number):
                self._note(seat, shown)
                self.chooser.out(shown)
                if shown.id in stand:
                    seat.waiting.append(shown)
                else:
                    seat.done += 1
        for answer, shown in kept.answered_after(self.connection):
            if not answer.undone:
                self.chooser.answered(answer, shown)
                self.tally.add(answer, shown)

    def _note(self, seat: Seat, shown: ShownSet) -> None:
        seat.shown += 1
        if shown.kind == "plain":
            seat.plain.append(shown)
        elif shown.kind == "gold":
            seat.gold.add(tuple(sorted(shown.pictures)))

    # Voters

    def invite(self, name: str) -> tuple[StudyVoter, str]:
        """(a new voter, the secret token of the personal link, which is kept nowhere)."""
        self.commit()
        token = secrets.token_urlsafe(16)
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
        """Set the name, token hash or state of a voter."""
        if number not in self.seats:
            raise Refused(404, f"no voter {number}")
        self.commit()
        seat = self.seats[number]
        kept.change_voter(self.connection, number, **changes)
        self.by_token.pop(seat.voter.token, None)
        seat.voter = next(each for each in kept.voters_of(self.connection) if each.id == number)
        self.by_token[seat.voter.token] = number

    def renew(self, number: int) -> str:
        """A new secret token for a voter whose link was lost; the old one is no link any more."""
        token = secrets.token_urlsafe(16)
        self.change(number, token=hashed(token))
        return token

    def set_state(self, state: str) -> None:
        """Open, pause or close the study."""
        self.commit()
        kept.put_setting(self.connection, "state", state)

    # Sets

    def state(self, seat: Seat | None = None) -> str:
        """Whether the study is open, paused or closed, or done for this voter."""
        said = kept.setting(self.connection, "state", OPEN)
        enough = seat is not None and self.about.votes is not None and seat.done >= self.about.votes
        return DONE if said == OPEN and enough else said

    def sets(self, seat: Seat, count: int) -> list[ShownSet]:
        """The sets that are out with a voter, filled up to `count` with new ones; fewer where nothing is left."""
        if self.state(seat) != OPEN:
            return []
        most = min(count, AHEAD)
        if self.about.votes is not None:
            most = min(most, self.about.votes - seat.done)
        while len(seat.waiting) < most and (shown := self._next(seat)) is not None:
            self._put(seat, shown)
        return seat.waiting[:most]

    def show(self, seat: Seat, pictures: tuple[int, ...]) -> ShownSet:
        """Put just these pictures before a voter, in this order."""
        shown = ShownSet(secrets.token_hex(16), seat.voter.id, pictures, "plain", "", self.clock(), seat.shown)
        self.chooser.out(shown)
        self._put(seat, shown)
        return shown

    def _put(self, seat: Seat, shown: ShownSet) -> None:
        with self._writing():
            kept.add_shown(self.connection, shown)
        self._note(seat, shown)
        seat.waiting.append(shown)

    def _next(self, seat: Seat) -> ShownSet | None:
        number, about = seat.shown, self.about
        kind, known, pictures = "plain", "", None
        if about.gold_every and number % about.gold_every == about.gold_every - 1:
            kind, known, pictures = self._gold(seat)
        elif about.repeat_every and number % about.repeat_every == about.repeat_every - 1:
            kind, known, pictures = self._repeat(seat)
        if pictures is None:
            kind, known, pictures = "plain", "", self.chooser.choose(seat.voter.id)
        if pictures is None:
            return None
        name = secrets.token_hex(16)
        return ShownSet(name, seat.voter.id, pictures, kind, known, self.clock(), number)

    def _gold(self, seat: Seat) -> tuple[str, str, tuple[int, ...] | None]:
        free = [each for each in self.about.gold if tuple(sorted(each.pictures)) not in seat.gold]
        if not free:
            return "plain", "", None
        one, turned = secrets.choice(free), secrets.randbelow(2)
        pictures = one.pictures[::-1] if turned else one.pictures
        return "gold", "right" if one.better != turned else "left", pictures

    def _repeat(self, seat: Seat) -> tuple[str, str, tuple[int, ...] | None]:
        """An earlier set in another order, the voter's answer to which stands; not one of the last few."""
        waiting = {each.id for each in seat.waiting}
        free = [each for each in list(seat.plain)[:-AHEAD] if each.id not in waiting]
        if not free:
            return "plain", "", None
        earlier = secrets.choice(free)
        order = list(earlier.pictures)
        secrets.SystemRandom().shuffle(order)
        return "repeat", earlier.id, tuple(order)

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
        return shown_file(self.folder, self.pictures[pictures[position]])

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
        values = [self._checked(shown, said, question.name) for question in self.about.questions]
        if len(said) != len(values):
            raise Refused(422, "answers to other questions than those of the study")
        held = kept.answers_of_set(self.connection, name)
        same = [each.answer for each in held if each.revision == revision]
        if same:
            if same == values:
                return False
            raise Refused(409, "another answer to this set is there already", "go on to the next set")
        if revision != (max(each.revision for each in held) + 1 if held else 0):
            raise Refused(409, "this set was answered or undone elsewhere", "load the page again")
        if self.state() != OPEN or seat.voter.state != "active":
            raise Refused(409, f"the study is {self.state()}", "ask its owner")
        now = self.clock()
        new = [
            Answer(0, name, number, value, revision, now, **measured)  # type: ignore[arg-type]
            for number, value in enumerate(values)
        ]
        with self._writing():
            new = kept.add_answers(self.connection, new)
        seat.waiting = [each for each in seat.waiting if each.id != name]
        seat.done += 1
        for answer in new:
            self.chooser.answered(answer, shown)
            self.tally.add(answer, shown)
        return True

    def undo(self, seat: Seat) -> ShownSet:
        """Take the last answer of a voter back; the set is out again."""
        shown = kept.last_answered(self.connection, seat.voter.id)
        if shown is None or self.state() != OPEN:
            raise Refused(409, "there is nothing to take back")
        held = kept.answers_of_set(self.connection, shown.id)
        self.tally.undone([each.id for each in held])
        with self._writing():
            kept.undo_set(self.connection, shown.id)
        self.chooser.taken_back([each for each in held if not each.undone], shown)
        seat.waiting.insert(0, shown)
        seat.done -= 1
        return shown

    def last_answers(self, name: str) -> dict[str, Any] | None:
        """Question -> answer, as it was before it was undone last."""
        held = kept.answers_of_set(self.connection, name)
        newest = max((each.revision for each in held), default=0)
        last = [each for each in held if each.revision == newest]
        return {self.about.questions[each.question].name: json.loads(each.answer) for each in last} or None

    def _checked(self, shown: ShownSet, said: Mapping[str, Any], question: str) -> str:
        """An answer as it is kept."""
        value, size = said.get(question), len(shown.pictures)
        fits = value == SKIP
        if self.about.mode == "pair":
            fits = fits or (isinstance(value, str) and value in OUTCOMES)
        elif self.about.mode == "best":
            fits = fits or (type(value) is int and 0 <= value < size)
        else:
            ranks = value if isinstance(value, list) else []
            whole = len(ranks) == size and all(type(each) is int and 1 <= each <= size for each in ranks)
            fits = fits or (whole and 1 in ranks)
        if not fits:
            raise Refused(422, f"an answer to {question!r} that does not fit mode {self.about.mode}")
        assert value is not None
        return kept.as_json(value)


def hashed(token: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def open_desk(
    folder: Path, make_chooser: Callable[[Sequence[PictureRow]], Chooser], clock: Callable[[], float]
) -> Desk:
    """Open a study whose folder the caller holds.

    Raises:
        InputError: it cannot be read.
    """
    connection = kept.connect(folder / kept.VOTES)
    try:
        return Desk(folder, connection, make_chooser, clock)
    except (sqlite3.DatabaseError, ValueError) as error:
        connection.close()
        raise InputError(f"it cannot be read ({error})", where=folder / kept.VOTES, remedy=kept.REMEDY) from None
