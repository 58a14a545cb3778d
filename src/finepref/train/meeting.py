"""Where the processes of a run wait for each other, for as long as those that are missing show that they live.

A collective call has a time limit, which also ends the wait for one that writes or encodes for long. So they meet in
the store in which they found each other: each counts up there every few seconds, whatever it is at.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from torch.distributed import DistError, Store  # type: ignore[attr-defined]

from finepref.core.interrupt import is_asked_to_end

BEAT = 5.0
"""Seconds between two signs of life of a process."""
ENDING = 4 * BEAT
"""Seconds without one that a process waits which is to end itself: torchrun kills 30 s after its signal."""
LEFT = "left"
"""What stands for the signs of life of a process that ended early."""


def meet(store: Store, rank: int, size: int, wait: timedelta) -> str:
    """A name for this attempt that only its processes know.

    torchrun keeps its store over restarts, with all that the ended processes wrote (pytorch/pytorch#135712), and each
    machine counts its restarts by itself. So the first process answers the call of each other one, which is new.

    Raises:
        DistError: not all came in time.
    """
    own, until = uuid.uuid4().hex, time.monotonic() + wait.total_seconds()
    if rank:
        store.set(f"call/{rank}", own)
        store.wait([f"answer/{own}"], wait)
        name = store.get(f"answer/{own}").decode()
        store.add(f"heard/{name}", 1)
        return name
    answered: dict[int, bytes] = {}
    while store.add(f"heard/{own}", 0) < size - 1:
        for other in range(1, size):
            call = store.get(f"call/{other}") if store.check([f"call/{other}"]) else None
            if call is not None and call != answered.get(other):
                store.set(f"answer/{call.decode()}", own)
                answered[other] = call
        if time.monotonic() > until:
            raise DistError(f"{size} processes were started, and not all of them came")
        time.sleep(0.05)
    return own


@dataclass(slots=True)
class Meeting:
    """A process among those that meet.

    patience: seconds without a sign of life after which a process is taken for lost. met: how often they have met.
    """

    store: Store
    rank: int
    size: int
    patience: float
    met: int = 0

    @contextmanager
    def attended(self) -> Iterator[Meeting]:
        """Show signs of life inside; say so where it is left by an error. Enter it before the first `wait`."""
        own: Store = self.store.clone()  # type: ignore[attr-defined]  # a store serves one thread at a time
        ended = threading.Event()
        own.set(_life(self.rank), "0")
        own.set(_place(self.rank), "0")

        def live() -> None:
            beats = 0
            with suppress(DistError):  # without the store there is nobody to tell
                while not ended.wait(BEAT):
                    own.set(_life(self.rank), str(beats := beats + 1))

        thread = threading.Thread(target=live, name="signs of life", daemon=True)
        thread.start()
        try:
            yield self
        except BaseException:
            ended.set()
            thread.join(BEAT)  # else its next sign could come later
            with suppress(DistError):
                self.store.set(_life(self.rank), LEFT)
            raise
        finally:
            ended.set()
            thread.join(BEAT)

    def wait(self) -> None:
        """Wait until all have come here.

        Raises:
            DistError: one of those that are missing ended, or showed no sign of life for `patience` seconds.
        """
        self.met += 1
        self.store.set(_place(self.rank), str(self.met))
        come = f"come/{self.met}"
        self.store.add(come, 1)
        seen: dict[int, tuple[bytes, float]] = {}
        pause, look = 0.001, time.monotonic() + BEAT
        while self.store.add(come, 0) < self.size:
            time.sleep(pause)
            pause = min(2 * pause, 0.25)
            if time.monotonic() > look:
                self._look(seen)
                look = time.monotonic() + BEAT

    def _look(self, seen: dict[int, tuple[bytes, float]]) -> None:
        """Look for signs of life of those that are missing. seen: the last of each, and when it was first seen."""
        ranks, now = range(self.size), time.monotonic()
        patience = min(self.patience, ENDING) if is_asked_to_end() else self.patience
        places, lives = (self.store.multi_get([name(rank) for rank in ranks]) for name in (_place, _life))
        for rank in ranks:
            if int(places[rank]) >= self.met:
                continue
            if lives[rank] == LEFT.encode():
                raise DistError(f"process {rank} ended")
            if rank not in seen or seen[rank][0] != lives[rank]:
                seen[rank] = lives[rank], now
            elif now - seen[rank][1] > patience:
                raise DistError(f"process {rank} showed no sign of life for {patience:g} seconds")


def _life(rank: int) -> str:
    return f"life/{rank}"


def _place(rank: int) -> str:
    return f"place/{rank}"
