"""One open transaction for what several requests write, and what takes it back in memory where it fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from finepref.collect.refusal import Refused


class Transaction:
    """What is written waits until `commit`. given_up: how often it was taken back instead.

    What fails is taken back step by step, the last one first: nothing is read again, however much there is.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection, self.given_up, self._steps = connection, 0, list[Callable[[], None]]()

    def back(self, *steps: Callable[[], None]) -> None:
        """What is to be done, the last one first, should this not be kept; nothing where it was kept."""
        self._steps += steps

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
            raise _unkept(error) from None
        self._steps.clear()

    def give_up(self) -> None:
        """Take back what was not committed."""
        steps, self._steps = self._steps, []
        for back in reversed(steps):
            back()
        self.given_up += 1
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write within the open transaction, or begin one; a disk that is full ends it.

        Raises:
            Refused: it could not be written; nothing since the last commit has happened then.
        """
        try:
            if not self.connection.in_transaction:
                self.connection.execute("BEGIN IMMEDIATE")
            yield
        except sqlite3.Error as error:
            self.give_up()
            raise _unkept(error) from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Write and commit, after what others wrote.

        Raises:
            Refused: it could not be kept.
        """
        self.commit()
        with self.writing():
            yield
        self.commit()


def _unkept(error: sqlite3.Error) -> Refused:
    return Refused(503, f"it could not be kept ({error})", "it is sent again by itself; the owner may make room")
