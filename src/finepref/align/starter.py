"""Commands as processes that have their imports: `cli.starting` imports once, and forks for every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any


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
    words = [sys.executable, "-m", "finepref.cli.starting"]
    piped: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, env={**os.environ, **variables}, **piped)
