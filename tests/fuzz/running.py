"""A command of the person, in this process: what it said, what it cost, what it did to the files around it."""

from __future__ import annotations

import hashlib
import io
import os
import random
import re
import resource
import signal
import stat
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from finepref.formats import sources

CPU_SECONDS = 120
HANGS = 240  # wall seconds without an end: it waits for something that never comes
OFFLINE = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "COLUMNS": "100",
}
MEMORY = 3 << 30  # bytes that a command may take beyond what is there; more is a traceback
SAID_AT_MOST = 2000  # characters of a refusal
CONTROL = re.compile("[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
LEFT_OVER = re.compile(r"\.tmp|^\.finepref-|^\..+-[a-z0-9_]{8}$")


@dataclass(frozen=True)
class Command:
    """The words after `finepref`, run in the folder of the input.

    out: places below it where new files may appear. ours: results of ours that may change. resumes: what a refused run
    has finished may stay. data: stdout is for machines. expect: the only right exit code, if there is one. ascii: the
    terminal knows nothing else. call: what runs instead, of the Python interface; its words only describe it.
    """

    words: Sequence[str]
    out: Sequence[str] = ()
    ours: Sequence[str] = ()
    resumes: bool = False
    data: bool = False
    expect: int | None = None
    ascii: bool = False
    call: Callable[[], object] | None = None


@dataclass(frozen=True)
class Done:
    """What came of it. error: the traceback of an exception that reached the person."""

    code: int | None
    out: str
    err: str
    error: str
    seconds: float
    late: bool = False  # it ran for too long, or would have waited for ever


Check = Callable[["Done"], "list[Failure]"]


@dataclass(frozen=True)
class Step:
    """A command and what must be true of a run that ended with 0."""

    command: Command
    check: Check | None = None


Kind = Callable[[random.Random, Path, Path], Sequence[Step]]  # (draw, folder of the input, world) -> steps


@dataclass(frozen=True)
class Failure:
    """count: the column it belongs to. what: in a line."""

    count: str
    what: str


COUNTS = ("traceback", "sentence", "lost", "changed", "left over", "slow", "wrong", "refused")


class TooLate(BaseException):
    """The time of a run is over."""


def _stop(*_: object) -> None:
    raise TooLate


def _mapped() -> int:
    """Bytes of addresses that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@contextmanager
def _limited() -> Iterator[None]:
    kept = [(number, signal.signal(number, _stop)) for number in (signal.SIGPROF, signal.SIGALRM)]
    others = signal.setitimer(signal.ITIMER_REAL, HANGS)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    room, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_mapped() + MEMORY, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (room, most))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in kept:
            signal.signal(number, handler)
        signal.setitimer(signal.ITIMER_REAL, *others)


@contextmanager
def _watched(folder: Path, opened: list[str]) -> Iterator[None]:
    """Name the pipes below a folder that are opened to be read: without a writer that would never end."""
    pipes = [name for name, state in snapshot(folder).items() if state == "special"]
    with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
        held = [Path(aside, str(number)) for number in range(len(pipes))]
        for name, path in zip(pipes, held, strict=True):
            os.link(folder / name, path)  # there whatever becomes of the pipe

        def write_nothing(name: str, path: Path) -> None:
            os.close(os.open(path, os.O_WRONLY))  # waits until somebody reads
            opened.append(name)

        threads = [
            threading.Thread(target=write_nothing, args=both, daemon=True) for both in zip(pipes, held, strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            met = list(opened)
            for path, thread in zip(held, threads, strict=True):
                reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                thread.join()
                os.close(reader)
            opened[:] = met


@contextmanager
def _as_a_process(folder: Path, words: Sequence[str], out: io.TextIOBase, err: io.TextIOBase) -> Iterator[None]:
    """The working folder, arguments, environment and streams of one command; everything is put back."""
    kept = (os.getcwd(), sys.argv, dict(os.environ), sys.stdout, sys.stderr, sys.stdin)
    os.chdir(folder)
    sources._tell.cache_clear()  # what is said once a process is said once a command here
    os.environ.update(OFFLINE)
    sys.argv, sys.stdout, sys.stderr, sys.stdin = ["finepref", *words], out, err, io.StringIO("")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            for kind in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        os.chdir(kept[0])
        sys.argv, sys.stdout, sys.stderr, sys.stdin = kept[1], *kept[3:]
        os.environ.clear()
        os.environ.update(kept[2])


def run(command: Command, folder: Path) -> Done:
    """Run it through the real entry point, or the call as a script of the person's would."""
    from finepref.cli.main import main
    from finepref.core.errors import FineprefError

    raw = io.BytesIO(), io.BytesIO()
    encoding = "ascii" if command.ascii else "utf-8"
    out = io.TextIOWrapper(raw[0], encoding, errors="strict", newline="\n", write_through=True)
    err = io.TextIOWrapper(raw[1], encoding, errors="backslashreplace", newline="\n", write_through=True)
    code: int | None = None
    error, late, start = "", False, time.process_time()
    opened: list[str] = []
    try:
        with _watched(folder, opened), _as_a_process(folder, command.words, out, err), _limited():
            (command.call or main)()
            code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except TooLate:
        late = True
    except FineprefError as refusal:  # of a call: its text is the sentence
        code = 2
        err.write(f"finepref: {refusal}\n")
    except BaseException as problem:
        if isinstance(problem, KeyboardInterrupt):
            raise
        error = "".join(traceback.format_exception(problem))
    said = [stream.getvalue().decode("utf-8", "replace") for stream in raw]
    return Done(code, *said, error, time.process_time() - start, late or bool(opened))


def snapshot(folder: Path) -> dict[str, str]:
    """Everything below a folder: path -> what it is and the hash of its content."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(place, name)
            found[os.path.relpath(path, folder)] = _state(path)
    return found


def _state(path: str) -> str:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return f"link to {os.readlink(path)}"
    if stat.S_ISDIR(mode):
        return "folder"
    if not stat.S_ISREG(mode):
        return "special"
    with open(path, "rb") as handle:
        return hashlib.blake2b(handle.read(), digest_size=16).hexdigest()


def _below(path: str, places: Sequence[str]) -> bool:
    return any(place in ("", ".") or path == place or path.startswith(place + os.sep) for place in places)


def failures(command: Command, done: Done, before: dict[str, str], after: dict[str, str]) -> list[Failure]:
    """What was wrong with a run, whatever its input."""
    found = [*_said(command, done)]
    if done.late or done.seconds > CPU_SECONDS:
        found.append(Failure("slow", f"{done.seconds:.0f} CPU-s" if done.seconds > 1 else "it waits for ever"))
    if command.expect not in (None, done.code):
        found.append(Failure("refused", f"exit {done.code}, not {command.expect}: {done.err[-200:].strip()!r}"))
    changed = [path for path, state in before.items() if after.get(path) != state and not _below(path, command.ours)]
    if changed:
        gone = "removed" if changed[0] not in after else "changed"
        found.append(Failure("changed", f"{gone} {changed[0]}" + f" and {len(changed) - 1} more" * (len(changed) > 1)))
    new = [path for path in after if path not in before]
    stray = [path for path in new if LEFT_OVER.search(os.path.basename(path))]
    told = (*command.out, *(f"{name}.json" for name in command.out))  # what an output is made of stands beside it
    stray += [path for path in new if not _below(path, (*told, *command.ours))]
    if done.code == 2 and not command.resumes:
        stray += [path for path in new if after[path] != "folder"]
    if stray:
        found.append(Failure("left over", f"{stray[0]} after exit {done.code}"))
    return found


def _said(command: Command, done: Done) -> Iterator[Failure]:
    """Tracebacks, refusals that are no sentence, raw control characters."""
    if done.error:
        last = done.error.strip().splitlines()
        frames = [line.strip() for line in last if "/finepref/" in line and line.strip().startswith("File")]
        place = re.sub(r'File ".*?/finepref/', "", frames[-1]).replace('"', "") if frames else "?"
        yield Failure("traceback", f"{last[-1][:160]} at {place}")
        return
    if done.late:
        return
    if "Traceback (most recent call last)" in done.err or done.code not in (0, 1, 2):
        yield Failure("traceback", f"exit {done.code}: {done.err[-200:].strip()!r}")
        return
    usage = done.code == 2 and "Usage: " in done.err
    if done.code in (1, 2) and not usage:
        start = done.err.rfind("finepref: ")
        sentence = done.err[start:].removesuffix("\n")
        if start < 0 or (start and done.err[start - 1] not in "\n\r"):
            yield Failure("sentence", f"exit {done.code} without a sentence: {done.err[-200:]!r}")
        elif len(sentence.splitlines()) != 1:
            yield Failure("sentence", f"{len(sentence.splitlines())} lines: {sentence[:200]!r}")
        elif len(sentence) > SAID_AT_MOST:
            yield Failure("sentence", f"{len(sentence)} characters: {sentence[:100]!r}")
    if re.search(r"^\S+\.py:\d+: \w*Warning", done.err, re.MULTILINE):
        yield Failure("sentence", f"a warning of Python: {done.err[-300:].strip()!r}")
    for text in (done.err, "" if command.data else done.out.replace("\r", "\x1b")):
        raw = CONTROL.search(text)
        if raw:
            around = text[max(0, raw.start() - 40) : raw.end() + 20]
            yield Failure("sentence", f"a raw control character in {around!r}")
            break
