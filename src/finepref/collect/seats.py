"""Who votes: their seats, what they may be called, and which earlier or known sets they may be shown."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from finepref.core.text import clean_name, fault_of_name
from finepref.formats.answers import ShownSet, StudyVoter
from finepref.formats.collection import GoldSet

ACTIVE = "active"
ME = "me"
"""Who votes on the machine itself, without a link."""
FORGOTTEN = re.compile(r"forgotten voter [0-9]+")
LONGEST = 100  # characters of a name
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
    gold: set[tuple[int, ...]] = field(default_factory=set)

    def note(self, shown: ShownSet) -> None:
        """A set that is put before the voter."""
        self.shown += 1
        if shown.kind == "gold":
            self.gold.add(tuple(sorted(shown.pictures)))

    def as_now(self) -> Callable[[], None]:
        """What makes it again as it is now."""
        held = [*self.waiting], self.shown, self.done, {*self.gold}

        def restore() -> None:
            self.waiting, self.shown, self.done, self.gold = held

        return restore


def gold_for(seat: Seat, gold: Sequence[GoldSet]) -> tuple[str, str, tuple[int, ...] | None]:
    """(kind, right answer, pictures) of a known pair that the voter did not see."""
    free = [each for each in gold if tuple(sorted(each.pictures)) not in seat.gold]
    if not free:
        return "plain", "", None
    one, turned = secrets.choice(free), secrets.randbelow(2)
    pictures = one.pictures[::-1] if turned else one.pictures
    return "gold", "right" if one.better != turned else "left", pictures


def repeat_for(seat: Seat, earlier: Sequence[ShownSet]) -> tuple[str, str, tuple[int, ...] | None]:
    """(kind, its id, pictures) of one of some earlier sets in another order, whose answer stands."""
    waiting = {each.id for each in seat.waiting}
    free = [each for each in earlier if each.id not in waiting]
    if not free:
        return "plain", "", None
    one = secrets.choice(free)
    order = list(one.pictures)
    secrets.SystemRandom().shuffle(order)
    return "repeat", one.id, tuple(order)


def clean_voter(name: str) -> tuple[str, str]:
    """(a voter's name as it is kept, what is wrong with it; empty: nothing)."""
    cleaned = clean_name(name)
    fault = fault_of_name(cleaned) if cleaned else "it is empty"
    return cleaned, fault or ("it is longer than 100 characters" if len(cleaned) > LONGEST else "")


def fault_of_voter(name: str, voters: Iterable[StudyVoter]) -> str:
    """What is wrong with the name of a new voter beside these; empty: nothing."""
    if name == ME:
        return f"{ME!r} is kept for who votes on this machine without a link"
    if FORGOTTEN.fullmatch(name):
        return f"{name!r} is how a forgotten voter is called"
    if any(name == each.called for each in voters):
        return f"{name!r} is the name of another voter"
    return ""
