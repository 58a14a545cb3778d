"""A checkpoint that a thread writes while the run goes on: one at a time, whole or absent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from finepref.core.errors import first_line
from finepref.core.progress import say


@dataclass(slots=True)
class Writing:
    """What is being written, if anything is, and what is called on the run's own thread when it is whole."""

    pool: ThreadPoolExecutor
    running: Future[None] | None = None
    then: Callable[[], None] | None = None

    def begin(self, write: Callable[[], None], then: Callable[[], None]) -> None:
        """Write beside the run; what was begun before has ended."""
        self.running, self.then = self.pool.submit(write), then

    def end(self, *, wait: bool = True) -> None:
        """End what was begun: wait until it is whole, or with `wait` false only see whether it is.

        Raises:
            Exception: what its writer raised.
        """
        running, then = self.running, self.then
        if running is not None and then is not None and (wait or running.done()):
            self.running = None
            running.result()
            then()


@contextmanager
def writing() -> Iterator[Writing]:
    """What writes beside the run; left only when nothing is being written."""
    with ThreadPoolExecutor(1, "checkpoint") as pool:
        held = Writing(pool)
        try:
            yield held
        except BaseException:
            failed = None if held.running is None else held.running.exception()
            if failed is not None:
                say(f"the checkpoint that was being written is not kept: {first_line(failed)}")
            raise
