"""A preference set in the house format as a folder of parquet files, made by any number of processes. No torch.

    stretch of the data -> its pairs, a file of `pairs`; what was read of it, as a part
    all parts -> the final ids of the pairs of each, where they have none of their own
    all files -> OUT/000000.parquet, ... in the order of the data; OUT.quarantine.jsonl

The processes deal the stretches, and then the parts, among themselves (`data.sharing`); the one that finds all made
gives the files their places.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finepref.core.errors import InputError
from finepref.core.files import link, parquet_rows
from finepref.core.locks import BUSY
from finepref.core.outfolders import check_folder, is_made_as, made_as, own_folder, remove_marked, whole_folder
from finepref.core.progress import progress
from finepref.data.convert import check_list, fault_of, whole_pair, write_list
from finepref.data.hashed import HashedStretch
from finepref.data.readstretches import (
    STAMP,
    Made,
    Readers,
    ReadUnit,
    begin,
    joining,
    leave,
    read_parts,
    read_units,
    readers,
    share,
)
from finepref.formats.folders import CONVERTED, READ
from finepref.formats.joinedparts import joined
from finepref.formats.preferences import Preference, rename_pairs, write_pairs
from finepref.formats.reading import AS_IT_IS, Reading
from finepref.formats.readparts import read_part, write_part
from finepref.formats.sources import named_inputs, stamp_of
from finepref.formats.stretches import OpenedPairs, hashed_id, named, open_stretches


def convert_together(
    paths: str | Path | Sequence[str | Path],
    folder: str | Path,
    *,
    reading: Reading = AS_IT_IS,
    overwrite: bool = False,
    shard: tuple[int, int] = (0, 1),
) -> tuple[int, int] | None:
    """`convert` by any number of processes, each of which takes a part of the data that no other has.

    Args:
        folder: where the parquet files are written, which are one preference set; one of the same unchanged tables
            stays. What the processes made lies in `<folder>.parts` until all is there.
        overwrite: convert again what is there.
        shard: (index, count): of count shares this one alone. The one that finds all others made writes `folder`.

    Returns:
        (pairs written, pairs left out) of the whole data set; None where a share of it is still to be converted.

    Raises:
        InputError: see `convert`.
    """
    out, inputs, stamp = Path(folder), named_inputs(paths), stamp_of(paths, reading)
    aside, place = check_list(out, inputs), check_folder(out, CONVERTED, inputs=inputs)
    share((), shard)
    parts = place.with_name(f"{place.name}.parts")
    if not overwrite:
        _refuse_other_pairs(place, stamp, where=out)
        if is_made_as(place, stamp) and not parts.exists():
            return _counts(place, aside)
    with own_folder(parts, READ, inputs=inputs, part=uuid.uuid4().hex[:12]):
        hand, opened = readers(parts, "pairs"), open_stretches(paths, reading)
        if overwrite and shard[1] == 1 and not hand.is_alone():
            raise InputError(BUSY[0], where=out, remedy=BUSY[1])
        work = _Work(hand, opened, read_units(opened, stamp), stamp)
        mine = share(work.units, shard)
        own = {unit.name for unit in mine}
        with hand.at_work(begin=lambda: work.begin(own, again=overwrite), leave=lambda: leave(hand, stamp)):
            if not overwrite and is_made_as(place, stamp):  # by those that left before this one began
                with joining(hand, stamp):
                    found: tuple[int, int] | None = _counts(place, aside)
            elif work.is_made(mine):
                found = work.join(out, inputs, aside, question=reading.question, overwrite=overwrite)
            else:
                found = None
    remove_marked(parts)
    return found


def _refuse_other_pairs(folder: Path, stamp: str, *, where: Path) -> None:
    if made_as(folder) and not is_made_as(folder, stamp):
        raise InputError("it holds other pairs already", where=where, remedy="use another name, or --overwrite")


def _counts(folder: Path, left_out: Path) -> tuple[int, int]:
    """Pairs of a folder that is there, and those left out of it."""
    lines = left_out.read_text(encoding="utf-8").splitlines() if left_out.is_file() else []
    return sum(map(parquet_rows, folder.glob("[0-9]*.parquet"))), len(lines)


@dataclass(frozen=True, slots=True)
class NamingUnit:
    """The pairs of a part as work: the part, and their final ids."""

    name: str
    part: str
    ids: tuple[str, ...]

    @property
    def keys(self) -> list[str]:
        """Its name."""
        return [self.name]


@dataclass(frozen=True, slots=True)
class _Work:
    """What this process does of a folder. stamp: hash of what decides all of it."""

    hand: Readers
    opened: OpenedPairs
    units: Sequence[ReadUnit]
    stamp: str

    def begin(self, own: set[str], *, again: bool) -> None:
        """Know what others made; images that are files are read again by the one whose share they are.

        own: names of that share. again: make all of it anew.
        """
        names = {unit.name for unit in self.units}

        def is_kept(name: str) -> bool:
            if name not in names or not (self.hand.parts.place / f"{name}.pairs.parquet").is_file():
                return False
            return name not in own or not (again or read_part(self.hand.parts.place, name).about.files)

        begin(self.hand, is_kept, again=own if again else (), only=None if again else [self.stamp])

    def is_made(self, mine: Sequence[ReadUnit]) -> bool:
        """Convert what no other process does of these; whether all of the data is converted then."""
        todo = [unit for unit in mine if not self.hand.is_made(unit)]
        for _ in progress(self.hand.work(todo, self._convert), "convert", total=len(todo), unit="part"):
            pass
        self.hand.news()
        return all(map(self.hand.is_made, self.units))

    def _convert(self, unit: ReadUnit) -> list[Made]:
        read, file = HashedStretch(self.opened, unit.stretch), self._file(unit.name)
        file.unlink(missing_ok=True)
        pairs = self._usable(read)
        if (first := next(pairs, None)) is not None:
            write_pairs(itertools.chain([first], pairs), file, made=self.stamp)
        write_part(self.hand.parts.place, unit.name, read.part())
        return [Made(unit.name)]

    def _usable(self, read: HashedStretch) -> Iterator[Preference]:
        """The pairs of a stretch, whose ids are not final where they have none of their own."""
        for pair, _, sides in read.sides():
            if not fault_of(sides, read.images):
                row = read.last
                first = (row.prompt, row.image_0, row.image_1, row.hashed_voter, 1)
                yield whole_pair(pair, row.pair_id if self.opened.own else hashed_id(*first), sides)

    def _file(self, name: str) -> Path:
        return self.hand.parts.place / f"{name}.converted.parquet"

    def join(
        self, out: Path, inputs: Sequence[Path], aside: Path, *, question: str | None, overwrite: bool
    ) -> tuple[int, int]:
        """Write the folder from all parts, and the list of the pairs left out."""
        whole = joined(read_parts(self.hand.folder, self.units), where=named(self.opened), question=question)
        if not len(whole.pairs):
            raise InputError("no pair is usable", where=out, remedy="see `finepref data validate`")
        names = [unit.name for unit in self.units]
        if not self.opened.own:
            naming = self._naming(whole.pair_ids())
            for _ in progress(self.hand.work(naming, self._name), "ids", total=len(naming), unit="part"):
                pass
            names = [unit.name for unit in naming]
        files = [file for file in map(self._file, names) if file.is_file()]
        with joining(self.hand, self.stamp) as is_first:
            if is_first:
                if not overwrite:
                    _refuse_other_pairs(out, self.stamp, where=out)  # of another, meanwhile
                made = whole_folder(out, CONVERTED, inputs=inputs, fingerprint=self.stamp, hashed=False)
                with made as folder:
                    for number, file in enumerate(files):
                        link(file, folder / f"{number:06d}.parquet")
                    write_list(aside, whole.left_out)
        return len(whole.pairs), len(whole.left_out)

    def _naming(self, ids: Sequence[str]) -> list[NamingUnit]:
        """The parts, with the final ids of the pairs that are in each."""
        files = [self._file(unit.name) for unit in self.units]
        ends = [0, *itertools.accumulate(parquet_rows(file) if file.is_file() else 0 for file in files)]
        if ends[-1] != len(ids):
            raise InputError(
                "a part was lost while it was made", where=self.hand.folder, remedy="run the command again"
            )
        return [
            NamingUnit(f"{self.stamp[:STAMP]}i{number:05d}", unit.name, tuple(ids[ends[number] : ends[number + 1]]))
            for number, unit in enumerate(self.units)
        ]

    def _name(self, unit: NamingUnit) -> list[Made]:
        if unit.ids:
            rename_pairs(self._file(unit.part), unit.ids, self._file(unit.name))
        return [Made(unit.name)]
