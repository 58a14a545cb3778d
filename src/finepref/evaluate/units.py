"""Images that any number of processes make in one folder: who makes what, and what each has made.

The work is cut into units: a model, a seed and a block of prompts, always the same ones. A process takes a unit that
nobody holds or has made, makes all of it, and lists it in its own part of the manifest. What a process held that was
killed is free again, and is made whole by another. The last process to leave joins the parts.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from finepref.core.locks import LOCK, collect, is_held, locked
from finepref.core.outfolders import own_folder
from finepref.core.ownership import remove_empty
from finepref.core.provenance import hash_config, sha256_file
from finepref.formats import manifest
from finepref.formats.folders import EVALUATION
from finepref.formats.manifest import FolderRecord, ImageRow, Key


@dataclass(frozen=True, slots=True)
class Unit:
    """The images of a block of prompts by one model from one seed."""

    model: str
    prompt_set: str
    seed: int
    rows: tuple[int, ...]

    @property
    def keys(self) -> list[Key]:
        """Its images."""
        return [(self.model, self.prompt_set, row, self.seed) for row in self.rows]


def units_of(model: str, prompt_set: str, *, rows: int, seeds: Sequence[int], block: int) -> list[Unit]:
    """The units of a model: `block` prompts each, but for the last ones of `rows`."""
    blocks = [tuple(range(start, min(start + block, rows))) for start in range(0, rows, block)]
    return [Unit(model, prompt_set, seed, each) for each in blocks for seed in seeds]


@dataclass(slots=True)
class Writer:
    """One of the processes that make images in a folder.

    rows: what is known to be made. read: of the parts of others, up to which byte they are in it.
    """

    folder: Path
    name: str
    rows: dict[Key, ImageRow] = field(default_factory=dict)
    read: dict[Path, int] = field(default_factory=dict)

    @property
    def part(self) -> Path:
        """Its part of the manifest."""
        return self.folder / manifest.PARTS / f"{self.name}.jsonl"

    def is_alone(self) -> bool:
        """Whether no other process makes images here."""
        others = [path for path in self.folder.glob(f"{LOCK}-w*") if path.name != f"{LOCK}-{self.name}"]
        return not any(map(is_held, others))

    @contextmanager
    def record(self) -> Iterator[FolderRecord]:
        """What the folder was made with, while no other process changes it; `rows` are as they are in it."""
        with locked(self.folder / f"{LOCK}-manifest", place=self.folder, wait=True):
            there = (self.folder / manifest.LINES).is_file()
            self.rows = {row.key: row for row in manifest.read_rows(self.folder, partial=True)} if there else {}
            self.read = {part: manifest.read_part(part)[1] for part in manifest.parts_of(self.folder)}
            yield manifest.read_record(self.folder)

    def keep(self, record: FolderRecord) -> None:
        """Write the manifest, within `record`; the parts are joined where no other process adds to one."""
        if self.is_alone() or not (self.folder / manifest.LINES).is_file():
            place = {name: number for number, name in enumerate(record.models)}
            ordered = sorted(self.rows.values(), key=lambda row: (*row.key[1:], place.get(row.model, -1)))
            manifest.write_rows(self.folder, ordered)
            self.rows = {row.key: row for row in ordered}
            for part in manifest.parts_of(self.folder):
                part.unlink()
            remove_empty(self.folder / manifest.PARTS)
            self.read = {}
        manifest.write_record(self.folder, record)

    def news(self) -> None:
        """Read what other processes have made since."""
        for part in manifest.parts_of(self.folder):
            if part != self.part:
                rows, self.read[part] = manifest.read_part(part, self.read.get(part, 0))
                self.rows |= {row.key: row for row in rows}

    def add(self, rows: Sequence[ImageRow]) -> None:
        """List images that this process made."""
        manifest.append_rows(self.part, rows)
        self.rows |= {row.key: row for row in rows}

    def is_made(self, unit: Unit) -> bool:
        """Whether every image of a unit is listed."""
        return all(key in self.rows for key in unit.keys)

    def forget_lost(self, units: Iterable[Unit]) -> None:
        """Forget images that are not there any more, or not as they were listed."""
        for key in [key for unit in units for key in unit.keys]:
            row = self.rows.get(key)
            path = None if row is None else self.folder / row.path
            if path is not None and row is not None and not (path.is_file() and sha256_file(path) == row.image_sha256):
                del self.rows[key]

    def work(self, units: Sequence[Unit], make: Callable[[Unit], Sequence[ImageRow]]) -> Iterator[Unit]:
        """Make what nobody else makes, until all units are made; yields every one when it is.

        Each process begins elsewhere, by its rank; what others hold is waited for last.
        """
        todo = self._turned(units)
        while todo:
            held = []
            for unit in todo:
                self.news()
                if self.is_made(unit) or self._make(unit, make, wait=False):
                    yield unit
                else:
                    held.append(unit)
            if len(held) == len(todo):
                self._make(held[0], make, wait=True)
            todo = held

    def _make(self, unit: Unit, make: Callable[[Unit], Sequence[ImageRow]], *, wait: bool) -> bool:
        """Make a unit, if it is not made yet; False where another process holds it."""
        lock = self.folder / f"{LOCK}-{hash_config({'unit': [list(key) for key in unit.keys]})[:12]}"
        if not wait and is_held(lock):
            return False
        with locked(lock, place=self.folder, wait=True):
            self.news()
            if not self.is_made(unit):
                self.add(make(unit))
        return True

    def _turned(self, units: Sequence[Unit]) -> list[Unit]:
        """The units, beginning with those of this process's share under torchrun."""
        rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
        at = len(units) * rank // world
        return [*units[at:], *units[:at]]


@contextmanager
def writer(out: str | Path) -> Iterator[Writer]:
    """Be one of the processes that make images in a folder; the last one to leave joins the parts of the manifest.

    Raises:
        InputError: see `outfolders.check_folder`.
    """
    name = f"w{uuid.uuid4().hex[:11]}"
    with own_folder(out, EVALUATION, part=name) as folder:
        hand = Writer(folder, name)
        try:
            yield hand
        finally:
            if manifest.parts_of(folder):
                with hand.record() as record:
                    hand.keep(record)
            collect(folder, deep=True)
