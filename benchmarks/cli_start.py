"""What `finepref --help` and its neighbours cost: CPU-seconds of a fresh process, the median of some runs.

    python benchmarks/cli_start.py [--runs 9]

The bar is 0.7 CPU-seconds for `finepref --help` (exit 1 above it). A run before the first one that counts warms the
file cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

BAR = 0.7
COMMANDS = (("--help",), ("methods",), ("arena", "--help"), ("train", "--help"))


def cpu_seconds(words: tuple[str, ...]) -> float:
    """User and system time of one process."""
    process = subprocess.Popen([sys.executable, "-m", "finepref", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"finepref {' '.join(words)} failed")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    failed = False
    for words in COMMANDS:
        cpu_seconds(words)
        median = statistics.median(cpu_seconds(words) for _ in range(runs))
        failed |= words == COMMANDS[0] and median > BAR
        print(f"{'finepref ' + ' '.join(words):32}{median:8.3f} CPU-s")
    sys.exit(failed)


if __name__ == "__main__":
    main()
