"""Work in one folder that any number of processes share: who makes what, and what each has made.

The work is cut into units, always the same ones. A process takes a unit that nobody holds or has made, makes all of it,
and lists it in its own part of the file. What a process held that was killed is free again, and is made whole by
another. The last process to leave joins the parts.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from finepref.core.device import launched_as
from finepref.core.locks import LOCK, is_held, locked
from finepref.core.provenance import hash_config
from finepref.formats.writerparts import Parts

Row = TypeVar("Row")


class Unit(Protocol):
    """What one process makes at once."""

    @property
    def keys(self) -> Sequence[Hashable]:
        """What is in it; of no other unit."""


Work = TypeVar("Work", bound=Unit)


@dataclass(slots=True)
class Hand(Generic[Row]):
    """One of the processes that share the work in a folder.

    file: that all write, in a word. parts: of it. key: of a row, what it is in a unit. name: its own. known: what is
    known to be made, by key. read: of the parts of others, up to which byte they are in it.
    """

    folder: Path
    file: str
    parts: Parts[Row]
    key: Callable[[Row], Hashable]
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:11])
    known: dict[Hashable, Row] = field(default_factory=dict)
    read: dict[Path, int] = field(default_factory=dict)

    def is_alone(self) -> bool:
        """Whether no other process shares the work."""
        others = {*self.folder.glob(f"{self._lock('').name}*")} - {self._lock(self.name)}
        return not any(map(is_held, others))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Wait until no other process writes the file, begins or leaves."""
        with locked(self.folder / f"{LOCK}-{self.file}", place=self.folder, wait=True):
            yield

    @contextmanager
    def at_work(self, *, begin: Callable[[], None], leave: Callable[[], None]) -> Iterator[None]:
        """Be one of the processes that share the work. begin, leave: called while no other writes the file."""
        with ExitStack() as held:
            with self.writing():
                begin()
                held.enter_context(locked(self._lock(self.name), place=self.folder, wait=True))
            try:
                yield
            finally:
                with self.writing():
                    leave()
                    held.close()  # so that of two that leave one is the last

    def _lock(self, name: str) -> Path:
        return self.folder / f"{LOCK}-at{self.file}{name}"

    def begin_with(self, rows: Iterable[Row]) -> None:
        """Know of these rows, and of what other processes have listed until now."""
        self.known, self.read = {self.key(row): row for row in rows}, {}
        self.news()

    def news(self) -> None:
        """Read what other processes have made since."""
        for part in self.parts.files():
            if part.stem != self.name:
                rows, self.read[part] = self.parts.read(part, self.read.get(part, 0))
                self.known |= {self.key(row): row for row in rows}

    def is_made(self, unit: Unit) -> bool:
        """Whether all of a unit is known to be made."""
        return all(key in self.known for key in unit.keys)

    def work(self, units: Sequence[Work], make: Callable[[Work], Sequence[Row]]) -> Iterator[Work]:
        """Make what nobody else makes, until all units are made; yields every one when it is.

        Each process begins elsewhere, by its rank; what others hold is waited for last.
        """
        todo = _turned(units)
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

    def _make(self, unit: Work, make: Callable[[Work], Sequence[Row]], *, wait: bool) -> bool:
        """Make a unit, if it is not made yet; False where another process holds it."""
        lock = self.folder / f"{LOCK}-{hash_config({'unit': list(map(repr, unit.keys))})[:12]}"
        if not wait and is_held(lock):
            return False
        with locked(lock, place=self.folder, wait=True):
            self.news()
            if not self.is_made(unit):
                made = make(unit)
                self.parts.append(self.parts.place / f"{self.name}.jsonl", made)
                self.known |= {self.key(row): row for row in made}
        return True


def _turned(units: Sequence[Work]) -> list[Work]:
    """The units, beginning with those of this process's share under torchrun."""
    size, rank, _ = launched_as()
    at = len(units) * rank // size
    return [*units[at:], *units[:at]]
