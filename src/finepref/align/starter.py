"""A process that imports once what commands need, and forks for every command: those imports take ten seconds.

It is a process of its own, since the one that plans may have opened a GPU, and what has opened one cannot fork. A
command runs as `python -m finepref WORDS` would: with the folder, variables and stderr of who started this.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, NoReturn

from finepref.core.progress import BAR

NEEDED = (
    "finepref.cli.main", "finepref.train.run", "finepref.evaluate.generate", "finepref.evaluate.score",
    "finepref.evaluate.compare", "finepref.models.load", "finepref.signals.make", "finepref.report.page",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", "transformers.models.clip.modeling_clip",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit code, negative for a signal; its CPU seconds, and its peak memory in MB."""

    code: int
    cpu_seconds: float
    peak_mb: float


class Starter:
    """Runs commands in processes that have their imports. It begins with the first one, and ends with the block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Starter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.communicate()

    def run(self, batch: Sequence[Sequence[str]], variables: Mapping[str, str]) -> list[Ended]:
        """Run commands (the words after `finepref`) side by side until all have ended; one that fails ends the others.

        Args:
            variables: of the environment, beside those that are there.

        Returns:
            How each ended; nothing where the process that starts them was killed.
        """
        if self._process is None:
            self._process = _begin(variables)
        said, heard = self._process.stdin, self._process.stdout
        assert said is not None
        assert heard is not None
        try:
            said.write(json.dumps([[list(words) for words in batch], dict(variables)]) + "\n")
            said.flush()
            line = heard.readline()
        except BrokenPipeError:  # it was killed
            return []
        except BaseException:
            self._process.terminate()
            self._process.wait()
            raise
        return [Ended(*each) for each in json.loads(line or "[]")]


def _begin(variables: Mapping[str, str]) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "finepref.align.starter"]
    piped: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, env={**os.environ, **variables}, **piped)


def serve() -> None:
    """Read batches from stdin, a line each, and write how their commands ended to stdout."""
    from finepref.cli.main import prepare

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the commands get it too, and end
    running: dict[int, int] = {}
    asked_to_end: list[int] = []

    def end(number: int, frame: object) -> None:
        asked_to_end.append(number)
        _end(running)

    prepare()
    signal.signal(signal.SIGTERM, end)
    for name in NEEDED:
        import_module(name)
    for line in sys.stdin:
        batch, variables = json.loads(line)
        ended = [(0, 0.0, 0.0)] * len(batch)
        for place, words in enumerate(batch):
            pid = os.fork()
            if not pid:
                signal.signal(signal.SIGINT, before)
                _carry(words, variables | {BAR: str(place)})
            running[pid] = place
        while running:
            if asked_to_end:
                _end(running)
            pid, status, usage = os.wait4(-1, 0)
            code = os.waitstatus_to_exitcode(status)
            ended[running.pop(pid)] = (code, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
            if code:
                _end(running)
        sys.stdout.write(json.dumps(ended) + "\n")
        sys.stdout.flush()
        if asked_to_end:
            break


def _end(running: Mapping[int, int]) -> None:
    for pid in list(running):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _carry(words: Sequence[str], variables: Mapping[str, str]) -> NoReturn:
    """Run a command as the process that was forked for it, and end."""
    import torch

    from finepref.cli.main import main

    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nothing, stream)
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    os.environ.update(variables)
    threads = int(variables["OMP_NUM_THREADS"])
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    sys.argv = ["finepref", *words]
    main()
    sys.exit(0)


if __name__ == "__main__":
    serve()
