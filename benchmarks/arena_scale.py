"""`finepref arena` on very many votes beside a plain scanner, DuckDB and polars on the same files.

    python benchmarks/arena_scale.py --votes 100000000 --work DIR [--gaps] [--online] [--peers] [--out FILE.json]

CPU seconds and peak memory of whole processes, one after the other, one thread each. Votes between 15 models with ties,
parquet in parts of ten million, names as dictionaries. --gaps: with gaps.parquet too, against the time of writing it.
--online: the online engine too. Votes with images: arena_cost.py.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finepref.arena.ratings import BETA
from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator

MODELS, PART = 15, 10_000_000
SCANNER = """
import sys
import numpy as np
import pyarrow.parquet as pq
total, names = np.zeros(0, dtype=np.int64), ["left", "right", "winner"]
for path in sys.argv[1:]:
    file = pq.ParquetFile(path, read_dictionary=names, pre_buffer=False)
    for batch in file.iter_batches(1 << 18, columns=names, use_threads=False):
        left, right, winner = (batch.column(name) for name in names)
        key = (left.indices.to_numpy() * 15 + right.indices.to_numpy()) * 3 + winner.indices.to_numpy()
        found = np.bincount(key, minlength=15 * 15 * 3)
        total = found if not len(total) else total + found
print(total.sum())
"""
DUCKDB = """
import sys
import duckdb
duckdb.sql("set threads = 1")
query = "select sum(n) from (select count(*) n from read_parquet($1) group by left_model, right_model, winner)"
query = query.replace("left_model", '"left"').replace("right_model", '"right"')
print(duckdb.execute(query, [sys.argv[1:]]).fetchall())
"""
POLARS = """
import sys
import polars as pl
found = pl.scan_parquet(sys.argv[1:]).group_by("left", "right", "winner").len()
print(found.collect(engine="streaming")["len"].sum())
"""
WRITER = """
import sys, time
import pyarrow.parquet as pq
from finepref.core.files import sealed_parquet
from pathlib import Path
file = pq.ParquetFile(sys.argv[1], pre_buffer=False)
spent = 0.0
with sealed_parquet(Path(sys.argv[2]), file.schema_arrow) as writer:
    for group in range(file.num_row_groups):
        table = file.read_row_group(group)
        started = time.process_time()
        writer.write_table(table)
        spent += time.process_time() - started
print(spent)
"""


def make(votes: int, folder: Path) -> list[Path]:
    """The parts that are not there yet, and all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    names, words = pa.array([f"model {k}" for k in range(MODELS)]), pa.array(["right", "tie", "left"])
    mu = numpy_generator(0, "scale ratings").normal(25.0, 2.0, MODELS)
    parts = []
    for part, start in enumerate(range(0, votes, PART)):
        path, n = folder / f"votes-{part:04}.parquet", min(PART, votes - start)
        parts.append(path)
        if path.is_file():
            continue
        chance = numpy_generator(0, "scale votes", part)
        left = chance.integers(0, MODELS, n)
        right = (left + chance.integers(1, MODELS, n)) % MODELS
        lead = mu[left] - mu[right] + np.sqrt(2.0) * BETA * chance.normal(size=n)
        outcome = np.where(np.abs(lead) < 0.75, 1, 1 + np.sign(lead))
        columns = {"left": (left, names), "right": (right, names), "winner": (outcome, words)}
        coded = {
            name: pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), held)
            for name, (codes, held) in columns.items()
        }
        pq.write_table(pa.table(coded), path.with_suffix(".tmp"))
        path.with_suffix(".tmp").rename(path)
    return parts


def measured(*command: str | Path) -> dict[str, Any]:
    """CPU seconds, peak memory in MB and the figure that a process said last."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, env=environment, text=True) as child:
        assert child.stdout is not None
        said = child.stdout.read().strip().splitlines()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        return {"failed": child.returncode}
    seconds = round(used.ru_utime + used.ru_stime, 2)
    return {
        "cpu_seconds": seconds,
        "peak_mb": round(used.ru_maxrss / 1000),
        "said": said[-1] if said and not said[-1].startswith("page") else "",
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--votes", type=float, default=1e8)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--gaps", action="store_true")
    parser.add_argument("--online", action="store_true")
    parser.add_argument("--peers", action="store_true", help="DuckDB and polars too")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # a child's peak begins with its parent's
        parts = pool.submit(make, int(asked.votes), asked.work).result()
    python, arena = sys.executable, asked.work / "arena"
    finepref = (python, "-m", "finepref", "arena", *parts, "--out", arena)
    scripts = {"scanner": SCANNER} | ({"duckdb": DUCKDB, "polars": POLARS} if asked.peers else {})
    found = {}
    shutil.rmtree(arena, ignore_errors=True)
    found["ratings, board and page"] = measured(*finepref, "--no-gaps")
    if asked.online:
        shutil.rmtree(arena)
        found["online, without gaps.parquet"] = measured(*finepref, "--no-gaps", "--engine", "online")
    for name, code in scripts.items():
        found[name] = measured(python, "-c", textwrap.dedent(code), *parts)
    if asked.gaps:
        shutil.rmtree(arena, ignore_errors=True)
        found["with gaps.parquet"] = measured(*finepref)
        found["writing gaps.parquet alone"] = measured(
            python, "-c", WRITER, arena / "gaps.parquet", asked.work / "again"
        )
    for name, row in found.items():
        print(name, row)
    if asked.out is not None:
        words = ["DIR" if word == str(asked.work) else word for word in sys.argv[1:]]
        command = " ".join(["python benchmarks/arena_scale.py", *words])
        write_json(asked.out, {"command": command, "votes": asked.votes, "versions": versions(), "rows": found})


if __name__ == "__main__":
    main()
