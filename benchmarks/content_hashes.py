"""What content hashes find and cost: flipped bytes, hashing a shard at its first use, identifying a base again.

    OMP_NUM_THREADS=1 python benchmarks/content_hashes.py [--flips 200] [--seed 1] [--gigabytes 4] [--out FILE.json]

flips: single bits at random places of everything that finepref writes and reads numbers from (tests/flips.py), by kind.
shard: one of 1 GB, random; CPU seconds and bytes read (/proc/self/io) until its first row is there, and the second
time. base: a made-up pipeline folder of random bytes; seconds until it is identified, cold and warm.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import flips
from finepref.core.files import write_json
from finepref.core.provenance import sha256_folder, versions
from finepref.data.shards import ShardSet, write_shard
from finepref.formats.frozenfolder import draws_table

GB = 10**9


def find(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Outcomes of flips by kind of file."""
    found = list(flips.flips(flips.make(folder), count, seed=seed))
    kinds = Counter((each.kind, each.outcome) for each in found)
    wrong = [f"{each.kind}, {each.file}, byte {each.place}" for each in found if each.outcome == "accepted"]
    by_kind = {f"{kind}: {outcome}": number for (kind, outcome), number in sorted(kinds.items())}
    return {**Counter(each.outcome for each in found), "by_kind": by_kind, "accepted_at": wrong}


def used(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds, CPU seconds and bytes that read() returned while something works."""

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    clock, cpu, read = time.perf_counter(), time.process_time(), bytes_read()
    work()
    return {
        "seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu,
        "bytes": bytes_read() - read,
    }  # fmt: skip


def shard(folder: Path) -> dict[str, Any]:
    """First and second use of a shard of 1 GB."""
    rows = GB // (4 * 65536)
    tensor = torch.randn(rows, 65536)
    write_shard(folder, "a", {"x": tensor}, draws_table([("a", row) for row in range(rows)]))
    del tensor
    size = (folder / "a.safetensors").stat().st_size

    def use() -> None:
        ShardSet(folder, ["a"], np.zeros(rows, np.int8), np.arange(rows)).gather(np.array([7]))

    found = {"first": used(use), "second": used(use), "bytes_of_the_file": size}
    found["cpu_seconds_per_gb"] = found["first"]["cpu_seconds"] / (size / GB)
    found["share_read"] = found["first"]["bytes"] / size
    return found


def base(folder: Path, gigabytes: float) -> dict[str, Any]:
    """Identifying a base cold and warm, as `train.opened.about_base` does."""
    for part, share in (("unet", 0.8), ("text_encoder", 0.12), ("vae", 0.08)):
        (folder / part).mkdir(parents=True)
        with open(folder / part / "model.safetensors", "wb") as file:
            for _ in range(int(gigabytes * share * GB) >> 24):
                file.write(os.urandom(1 << 24))
    return {"cold": used(lambda: sha256_folder(folder)), "warm": used(lambda: sha256_folder(folder))}


def main() -> int:
    """Run; exit 1 if a bar fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["FINEPREF_HOME"] = str(Path(name) / "home")
        record = {
            "flips": find(Path(name) / "flips", asked.flips, asked.seed),
            "shard": shard(Path(name) / "shard"),
            "base": base(Path(name) / "base", asked.gigabytes),
            "versions": versions(),
        }
    bars = {
        "no flip is accepted": not record["flips"]["accepted_at"],
        "at most 1 CPU-second per GB of a shard": record["shard"]["cpu_seconds_per_gb"] <= 1,
        "at most 1.02 times its bytes": record["shard"]["share_read"] <= 1.02,
        "at most 1 s for a warm base": record["base"]["warm"]["seconds"] <= 1,
    }
    record["bars"] = bars
    print(record)
    if asked.out:
        write_json(asked.out, record)
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
