"""Processes wait for one that works, and not for one that has ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from finepref.core.interrupt import at_safe_places
from finepref.train import meeting
from finepref.train.meeting import Meeting, meet

PATIENCE = 1.5


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[TCPStore]]:
    """A store's server, and its clients, which see a sign of life every 50 ms."""
    monkeypatch.setattr(meeting, "BEAT", 0.05)
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
    yield [TCPStore("127.0.0.1", server.port, timeout=timedelta(seconds=60)) for _ in range(3)]
    del server


def test_one_that_works_longer_than_the_limit_is_waited_for(stores: list[TCPStore]) -> None:
    """Three threads in the place of three processes; they meet twice."""
    begun = threading.Barrier(3)
    came: list[tuple[int, int]] = []

    def process(rank: int) -> None:
        with Meeting(stores[rank], rank, 3, PATIENCE).attended() as place:
            begun.wait()
            for time_ in range(2):
                if rank == time_:
                    time.sleep(2 * PATIENCE)
                    assert all(one == time_ - 1 for one, _ in came[-3:]), "nobody went on without it"
                place.wait()
                came.append((time_, rank))
                begun.wait()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(process, range(3)))
    assert sorted(came) == [(time_, rank) for time_ in range(2) for rank in range(3)]


def test_one_that_ended_early_is_not_waited_for(stores: list[TCPStore]) -> None:
    with Meeting(stores[0], 0, 2, 600.0).attended() as place:
        with pytest.raises(KeyError), Meeting(stores[1], 1, 2, 600.0).attended():
            raise KeyError
        with pytest.raises(DistError, match="process 1 ended"):
            place.wait()


def _killed(port: int) -> None:
    store = TCPStore("127.0.0.1", port, timeout=timedelta(seconds=60))
    with Meeting(store, 1, 2, PATIENCE).attended():
        os.kill(os.getpid(), signal.SIGKILL)


def test_one_that_was_killed_is_not_waited_for(stores: list[TCPStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot say that it ended, but it shows no sign of life; one waits less where one is to end oneself."""
    child = multiprocessing.get_context("fork").Process(target=_killed, args=(stores[0].port,))
    child.start()
    child.join(60)
    with Meeting(stores[0], 0, 2, PATIENCE).attended() as place:
        began = time.monotonic()
        with pytest.raises(DistError, match=r"process 1 showed no sign of life for 1\.5 seconds"):
            place.wait()
        assert time.monotonic() - began > PATIENCE
        monkeypatch.setattr(meeting, "ENDING", 0.5)
        with at_safe_places("it ends"):
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(DistError, match=r"for 0\.5 seconds"):
                place.wait()


def test_an_attempt_does_not_take_the_one_before_for_its_own(stores: list[TCPStore]) -> None:
    """In the first one a process is missing; what the others wrote is still there in the second."""

    def join(rank: int, size: int, seconds: float) -> str:
        return meet(stores[rank], rank, size, timedelta(seconds=seconds))

    with ThreadPoolExecutor(3) as pool:
        late = [pool.submit(join, rank, 3, 0.5) for rank in range(2)]
        with pytest.raises(DistError, match="3 processes were started, and not all of them came"):
            late[0].result()
        first = late[1].result()
        names = [found.result() for found in [pool.submit(join, rank, 3, 60.0) for rank in (2, 1, 0)]]
    assert len({*names}) == 1
    assert names[0] != first
