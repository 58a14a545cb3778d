"""What two processes read of one data set together: bytes of both over the bytes of its files, and CPU time.

    python benchmarks/shared_reads.py [--shards 4] [--rows 1800] [--work DIR] [--out FILE.json]

Parquet files of pairs with two JPEGs of about 123 KB each, in row groups of 1,000 rows, as Pick-a-Pic has them (442 MB
a file by default). Commands: cache (the lab's VAE), score (its reward), validate, convert. Bytes are those that the
system's read calls returned to each process (`rchar`), less what the same process reads for a data set of one pair.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator
from finepref.data.convertedparts import convert_together
from finepref.data.inspect import inspect_together
from finepref.evaluate.scored_pairs import score_preferences
from finepref.formats.preferences import Preferences
from finepref.train.config import load_config
from finepref.train.opened import make_cache
from finepref.train.processes import World

FORK = multiprocessing.get_context("fork")
PICTURES = 64  # that differ in their pixels; every image of a row differs by a comment


def picture(number: int) -> bytes:
    """A JPEG of about 123 KB."""
    pixels = numpy_generator(number, "shared reads").integers(0, 256, (288, 288, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def make_shards(folder: Path, shards: int, rows: int) -> int:
    """Write the files; their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [picture(number) for number in range(PICTURES)]

    def image(number: int) -> bytes:  # the end of a JPEG is not read by decoders
        return drawn[number % PICTURES] + number.to_bytes(8, "little")

    for shard in range(shards):
        path = folder / f"train-{shard:05d}-of-{shards:05d}.parquet"
        if path.is_file():
            continue
        numbers = range(shard * rows, (shard + 1) * rows)
        table = {
            "caption": [f"prompt {number // 4}" for number in numbers],
            "jpg_0": [image(2 * number) for number in numbers],
            "jpg_1": [image(2 * number + 1) for number in numbers],
            "label_0": [float(number % 2) for number in numbers],
            "label_1": [float(1 - number % 2) for number in numbers],
        }
        pq.write_table(pa.table(table), path, row_group_size=1000, compression="none")
    return sum(path.stat().st_size for path in folder.glob("*.parquet"))


def cache(data: Path, out: Path) -> None:
    """`finepref cache`."""
    config = load_config("lab/dpo", [f"data.paths=[{data}]"])
    make_cache(config, out, world=World(rank=0, size=1, device=torch.device("cpu")))


def score(data: Path, out: Path) -> None:
    """`finepref score`."""
    score_preferences(Preferences(data=data, quarantine=[]), ["lab-reward"], out.with_suffix(".parquet"))


def validate(data: Path, out: Path) -> None:
    """`finepref data validate --parts`."""
    assert inspect_together(data, out, full=True) is not None


def convert(data: Path, out: Path) -> None:
    """`finepref data convert --parts`."""
    assert convert_together(data, out) is not None


def read_bytes() -> int:
    """Bytes that read calls returned to this process so far."""
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


def one(command: Callable[[Path, Path], None], data: Path, out: Path, rank: int, world: int, told: Any) -> None:
    """One of the processes: what it reads, and its CPU seconds."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    torch.set_num_threads(1)
    before, began = read_bytes(), time.process_time()
    command(data, out)
    told.put((read_bytes() - before, time.process_time() - began))


def run(command: Callable[[Path, Path], None], data: Path, out: Path, world: int) -> list[tuple[int, float]]:
    """(bytes, CPU seconds) of processes side by side."""
    told = FORK.Queue()
    children = [FORK.Process(target=one, args=(command, data, out, rank, world, told)) for rank in range(world)]
    for child in children:
        child.start()
    found = [told.get() for _ in children]
    for child in children:
        child.join()
    return found


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rows", type=int, default=1800)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory(dir=asked.work) as folder:
        work = Path(folder)
        size, small = make_shards(work / "data", asked.shards, asked.rows), make_shards(work / "small", 1, 1)
        for command in (cache, score, validate, convert):
            name = command.__name__
            ((loading, seconds),) = run(command, work / "small", work / f"{name}-small", 1)
            ((alone, alone_seconds),) = run(command, work / "data", work / f"{name}-1", 1)
            two = run(command, work / "data", work / f"{name}-2", 2)
            rows[name] = {
                "bytes of one, of the data": (alone - loading + small) / size,
                "bytes of two together, of the data": sum(each - loading + small for each, _ in two) / size,
                "CPU seconds of one": alone_seconds,
                "busier of two, of one, without loading": (max(s for _, s in two) - seconds)
                / (alone_seconds - seconds),
            }
            print(name, rows[name], flush=True)
    if asked.out is not None:
        command_line = " ".join(["python benchmarks/shared_reads.py", *sys.argv[1:]])
        found = {"command": command_line, "bytes of the data": size, "versions": versions(), "rows": rows}
        write_json(asked.out, found)


if __name__ == "__main__":
    main()
