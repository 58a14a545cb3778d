"""Ctrl-C and SIGTERM while work is under way that can end at its next safe place."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from finepref.core.progress import say

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_came: list[int] = []  # while work that ends at a safe place has not got there


class Interrupted(KeyboardInterrupt):
    """Work that ended early because a signal asked for it. The text says what is kept, and how to go on."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.exit_code = 128 + number


def is_asked_to_end() -> bool:
    """Whether a signal has come to work that ends at its next safe place."""
    return bool(_came)


@contextmanager
def at_safe_places(ends: str) -> Iterator[Callable[[], int]]:
    """Yield a function that says which signal has come, 0 for none. A second one ends the work where it is.

    In another thread than the main one nothing is caught, and it always says 0. A signal that is ignored, as Ctrl-C is
    by what was started in the background, stays ignored.

    Args:
        ends: what is said when the first one comes: where the work will end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {number: signal.getsignal(number) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}

    def note(number: int, frame: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        if not _came:  # a launcher passes Ctrl-C on and sends SIGTERM after it
            say(f"{ends}; {'Ctrl-C' if number == signal.SIGINT else 'the signal'} again stops at once")
        _came.append(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: _came[0] if _came else 0
    finally:
        _came.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
