"""A process that imports once what commands need, and forks for every command: those imports take ten seconds.

It is a process of its own, since the one that plans may have opened a GPU, and what has opened one cannot fork. A
command runs as `python -m finepref WORDS` would: with the folder, variables and stderr of who started this.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from finepref.cli.main import main, prepare
from finepref.core.progress import BAR

NEEDED = (
    "finepref.train.run", "finepref.evaluate.generate", "finepref.evaluate.score",
    "finepref.evaluate.compare", "finepref.models.load", "finepref.signals.make", "finepref.report.page",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", "transformers.models.clip.modeling_clip",
)  # fmt: skip


def serve() -> None:
    """Read batches from stdin, a line each, and write how their commands ended to stdout."""
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
                signal.signal(signal.SIGTERM, signal.SIG_DFL)  # this process's own would end the others
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

    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nothing, stream)
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    os.environ.update(variables)
    threads = variables["OMP_NUM_THREADS"].partition(",")[0].strip()  # 4,2: four, and two below each
    if threads.isdecimal() and int(threads) not in (0, torch.get_num_threads()):
        torch.set_num_threads(int(threads))
    sys.argv = ["finepref", *words]
    main()
    sys.exit(0)


if __name__ == "__main__":
    serve()
