"""What `finepref arena` costs as votes grow: CPU seconds and peak memory of whole runs on a parquet file.

    python benchmarks/arena_cost.py [--votes 100000,1000000,10000000] [--in-memory ROWS] [--out FILE.json]

Each run is a process of its own: read the file, rate, estimate rho, infer images, write the folder with its page. The
votes look like Pick-a-Pic's: prompts of 10 images with 14 votes each, 13 models, voters, ties. --in-memory sets how
many votes may stay in memory; beyond it codes live in files. own MB: the peak without the pages of mapped files, which
the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from finepref.arena.ratings import BETA
from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator

IMAGES, VOTES, MODELS = 10, 14, 13
BLOCK = 20_000  # prompts written at one time

CHILD = """
import json, resource, sys, threading, time
from pathlib import Path
from finepref.arena.whole import ArenaRequest, run_arena
from finepref.formats.store import IN_MEMORY
own = [0]
def watch():
    while True:
        lines = Path("/proc/self/status").read_text().splitlines()
        own[0] = max(own[0], *(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))
        time.sleep(0.05)
threading.Thread(target=watch, daemon=True).start()
started = time.perf_counter()
run_arena([sys.argv[1]], sys.argv[2], ArenaRequest(), in_memory=int(sys.argv[3]) or IN_MEMORY)
used = resource.getrusage(resource.RUSAGE_SELF)
cpu, wall = used.ru_utime + used.ru_stime, time.perf_counter() - started
print(json.dumps({"cpu": cpu, "wall": wall, "peak_mb": used.ru_maxrss / 1024, "own_mb": own[0] / 1024}))
"""


def write_votes(path: Path, n: int) -> int:
    """A parquet file of about n votes in the Pick-a-Pic schema without the images' bytes; returns the exact number."""
    prompts = max(1, n // VOTES)
    mu = numpy_generator(0, "cost models").normal(25.0, 1.3, MODELS)
    names = pa.array([f"maker/model-{k}" for k in range(MODELS)])
    writer = None
    for first in range(0, prompts, BLOCK):
        size = min(BLOCK, prompts - first)
        rng = numpy_generator(0, "cost", first)
        model = rng.integers(0, MODELS, (size, IMAGES))
        quality = mu[model] + BETA * np.sqrt(0.5) * rng.normal(size=model.shape)
        a = rng.integers(0, IMAGES, (size, VOTES))
        b = (a + rng.integers(1, IMAGES, a.shape)) % IMAGES
        row = np.arange(size)[:, None]
        lead = (quality[row, a] - quality[row, b] + BETA * rng.normal(size=a.shape)).ravel()
        label = np.where(np.abs(lead) < 0.7, 0.5, np.where(lead > 0, 1.0, 0.0))

        def name(codes: np.ndarray, prefix: str) -> Any:
            return pc.binary_join_element_wise(prefix, pa.array(codes.ravel()).cast(pa.string()), "-")

        prompt = np.repeat(first + np.arange(size), VOTES)
        table = pa.table({
            "caption": name(prompt, "a picture of thing number"),
            "image_0_uid": name((first + row) * IMAGES + a, "image"),
            "image_1_uid": name((first + row) * IMAGES + b, "image"),
            "label_0": label, "label_1": 1.0 - label,
            "model_0": names.take(pa.array(model[row, a].ravel())),
            "model_1": names.take(pa.array(model[row, b].ravel())),
            "user_id": rng.integers(0, 5000, size * VOTES),
        })  # fmt: skip
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    return prompts * VOTES


def main() -> int:
    """Run the sizes one after the other and print the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", default="100000,1000000,10000000")
    parser.add_argument("--in-memory", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    print("| votes | CPU s | CPU microseconds per vote | wall s | peak MB | own MB | file MB |\n" + "|---" * 7 + "|")
    for n in map(int, options.votes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "votes.parquet"
            exact = write_votes(path, n)
            size = path.stat().st_size / 2**20
            command = [sys.executable, "-c", CHILD, str(path), str(Path(folder) / "arena"), str(options.in_memory)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = {"votes": exact, "file_mb": size, **json.loads(done.stdout.splitlines()[-1])}
        rows.append(row)
        per_vote = 1e6 * row["cpu"] / exact
        print(
            f"| {exact:,} | {row['cpu']:.1f} | {per_vote:.2f} | {row['wall']:.1f} | {row['peak_mb']:.0f} "
            f"| {row['own_mb']:.0f} | {size:.0f} |",
            flush=True,
        )
    if options.out is not None:
        command = " ".join(["python benchmarks/arena_cost.py", *sys.argv[1:]])
        write_json(options.out, {"command": command, "versions": versions(), "runs": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
