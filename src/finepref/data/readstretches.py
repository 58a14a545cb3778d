"""The stretches of a data set, dealt among processes that read it into one folder; each leaves there what it read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from finepref.core.errors import InputError
from finepref.core.ownership import remove_empty
from finepref.data.sharing import Hand
from finepref.formats.readparts import ReadPart, read_part
from finepref.formats.stretches import OpenedPairs, Stretch, named
from finepref.formats.writerparts import Parts

READ = "read"
STAMP = 12
"""Characters of a stamp that the names of its pieces of work begin with."""
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Made:
    """What was made of the work, by name, and how many images or prompts were encoded for it."""

    unit: str
    encoded: int = 0


@dataclass(frozen=True, slots=True)
class ReadUnit:
    """A stretch as work."""

    name: str
    stretch: Stretch

    @property
    def keys(self) -> list[str]:
        """Its name."""
        return [self.name]


Readers = Hand[Made]


def readers(folder: Path, file: str) -> Readers:
    """This process as one of those that read data into a folder. file: what they make, in a word."""
    return Hand(folder, file, Parts(folder / READ, Made, "remove it and run again"), lambda row: row.unit)


def read_units(opened: OpenedPairs, stamp: str) -> list[ReadUnit]:
    """All stretches of a data set, which `stamp` names.

    Raises:
        InputError: it has no row.
    """
    stretches = opened.stretches()
    if not stretches:
        raise InputError("the data set has no usable preference", where=named(opened), remedy="give one row")
    return [ReadUnit(unit_name(stamp, number), stretch) for number, stretch in enumerate(stretches)]


def unit_name(stamp: str, number: int) -> str:
    """The name of a piece of work. stamp: hash of what decides all of it."""
    return f"{stamp[:STAMP]}n{number:05d}"


def share(items: Sequence[Item], shard: tuple[int, int]) -> Sequence[Item]:
    """What falls to share i of n, (i, n).

    Raises:
        InputError: i is not from 0 to n-1.
    """
    index, count = shard
    if not 0 <= index < count:
        raise InputError(f"shard {index} of {count}", where="shard", remedy="count from 0: 0/4 to 3/4")
    return items[index::count]


def begin(
    hand: Readers, keep: Callable[[str], bool], *, again: Collection[str] = (), only: Collection[str] | None = None
) -> None:
    """Know what others have made; where none is at work, what they left is kept by name, the rest goes.

    Args:
        again: what this process makes anew, whoever else is at work.
        only: stamps and names of this work, where parts of another one do not go: they may be hours of other processes.

    Raises:
        InputError: there are such parts; nothing was changed.
    """
    if hand.is_alone():
        if only is not None:
            _refuse_others(hand, {name[:STAMP] for name in only})
        kept = {row.unit: Made(row.unit) for row in hand.parts.rows() if keep(row.unit)}
        hand.parts.replace([*kept.values()])
        for path in _files(hand):
            if path.name.split(".")[0] not in kept:
                path.unlink()
        remove_empty(hand.parts.place)
    hand.begin_with([])
    for name in again:
        hand.known.pop(name, None)


def _refuse_others(hand: Readers, ours: Collection[str]) -> None:
    others = [row.unit for row in hand.parts.rows() if row.unit[:STAMP] not in ours]
    if others:
        what = f"it holds {len(others)} finished parts of other data, of these under another path or as they were "
        what += "before they were written again, or of other options"
        raise InputError(what, where=hand.folder, remedy="ask for the same, or remove it; nothing was changed")


def _joined(stamp: str) -> Made:
    return Made(f"{stamp[:STAMP]}joined")


@contextmanager
def joining(hand: Readers, stamp: str) -> Iterator[bool]:
    """While no other process writes: whether the parts of this work are still to be joined, which is done within."""
    with hand.writing():
        hand.news()
        is_first = _joined(stamp).unit not in hand.known
        yield is_first
        if is_first:
            hand.parts.append(hand.parts.place / f"{hand.name}.jsonl", [_joined(stamp)])


def leave(hand: Readers, stamp: str) -> None:
    """Remove what was read, where it is joined and no other process is at work."""
    if hand.is_alone() and _joined(stamp) in hand.parts.rows():
        clear(hand)


def clear(hand: Readers) -> None:
    """Remove what was read."""
    for path in _files(hand):
        path.unlink()
    hand.parts.replace([])


def _files(hand: Readers) -> list[Path]:
    """What was made, each file named after its piece of work."""
    return sorted(path for path in hand.parts.place.glob("[0-9a-f]*.*") if path.suffix != ".jsonl")


def read_parts(folder: Path, units: Sequence[ReadUnit]) -> list[ReadPart]:
    """What was read of all stretches, in order."""
    return [read_part(folder / READ, unit.name) for unit in units]
