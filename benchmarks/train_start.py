"""What the start of a run on many pairs costs: CPU time and peak memory above the start of the same run on 4,200 pairs.

    python benchmarks/train_start.py [--pairs 1000000] [--work DIR] [--signal] [--out FILE.json]

The cache is made by this script: the lab's VAE as its maker, every pair with two images of its own, 50,000 prompts, ids
that are 32 hexadecimal digits, as pairs without ids of their own have them. The run is `finepref train` of one step
through the front door, in a process of its own; with --signal its winners stand in a file of signals.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.data.building import CacheSettings
from finepref.data.cache import shaping_of
from finepref.data.shards import write_shard
from finepref.formats import cache as stored
from finepref.formats import cachetables
from finepref.formats.signals import from_columns, write_signals
from finepref.train.config import load_config
from finepref.train.opened import load_encoder

FEW, PROMPTS, SHARD = 4200, 50_000, 1 << 16


def digests(kind: str, count: int) -> list[str]:
    """Content hashes."""
    return [hashlib.sha256(f"{kind} {number}".encode()).hexdigest() for number in range(count)]


def make_cache(folder: Path, pairs: int) -> Path:
    """A finished cache of this many pairs."""
    config = load_config("lab/dpo", ["data.paths=[nothing]"])
    encoder = load_encoder(config, device="cpu")
    mean, _ = encoder.encode_images(torch.zeros(1, 3, encoder.resolution, encoder.resolution, dtype=torch.uint8))
    embedded = {name: value.half() for name, value in encoder.encode_prompts([""]).items()}
    images = digests("image", 2 * pairs)
    texts = [hashlib.sha256(b"").hexdigest(), *digests("prompt", min(pairs, PROMPTS))]
    size = {"original_height": 64, "original_width": 64, "crop_top": 0, "crop_left": 0}
    bucket = str(encoder.buckets[0])
    for kind, held in ((stored.IMAGES, images), (stored.PROMPTS, texts)):
        (folder / kind.name).mkdir(parents=True)
        tables = []
        for number, at in enumerate(range(0, len(held), SHARD)):
            some = held[at : at + SHARD]
            if kind is stored.IMAGES:
                latent = mean[0].half().expand(len(some), *mean.shape[1:])
                tensors = {"mean": latent, "std": latent}
                index = {"image_sha256": some, "flip": [False] * len(some), "bucket": [bucket] * len(some)}
                index |= {"row": [*range(len(some))], **{name: [value] * len(some) for name, value in size.items()}}
            else:
                tensors = {name: value[0].expand(len(some), *value.shape[1:]) for name, value in embedded.items()}
                tokens = [1] * len(some)
                index = {"prompt_sha256": some, "row": [*range(len(some))], "tokens": tokens}
            table = pa.table(index, schema=kind.schema).replace_schema_metadata({stored.SECONDS: "1.0"})
            write_shard(folder / kind.name, f"r0-{number:05d}", tensors, table)
            tables.append(table.append_column(stored.SHARD, pa.array([f"r0-{number:05d}"] * len(some))))
        cachetables.write_items(folder, kind, pa.concat_tables([each.replace_schema_metadata(None) for each in tables]))
    ids = [each[:32] for each in digests("pair", pairs)]
    named = [texts[1 + number % (len(texts) - 1)] for number in range(pairs)]
    labels = np.arange(pairs, dtype=np.float64) % 2
    columns = [ids, named, images[0::2], images[1::2], [bucket] * pairs, labels]
    cachetables.write_pairs(folder, pa.table(dict(zip(cachetables.CachedRow._fields, columns, strict=True))))
    shaping = shaping_of(encoder, CacheSettings(posterior=config.cache.posterior, dtype=config.cache.dtype))
    counts = stored.CacheCounts(pairs=pairs, images=2 * pairs, prompts=len(texts))
    stored.write_cache(folder, stored.CacheRecord(shaping=shaping, complete=True, summary=counts, device_seconds=1.0))
    sidecar = folder.with_suffix(".signals.parquet")
    winner = {"winner": (np.arange(pairs) % 2).astype(np.int8), "weight": np.ones(pairs)}
    write_signals(sidecar, from_columns(ids, winner, {"kinds": ["binary"]}), provenance={})
    return folder


def start(cache: Path, out: Path, *, signal: bool) -> tuple[float, float]:
    """(CPU seconds, peak MB) of a run of one step in a process of its own."""
    words = [
        "data.paths=[]",
        f"cache.folder={cache}",
        "train.max_steps=1",
        "train.pairs_per_step=4",
        "train.micro_batch=4",
    ]
    words += [f"signal.file={cache.with_suffix('.signals.parquet')}"] if signal else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "finepref", "train", "-c", "lab/dpo", *words, "--out", str(out)]
    ready = [sys.executable, "-c", "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
             "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"]  # fmt: skip
    told = subprocess.run([*ready, *command], check=True, stdout=subprocess.PIPE, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, int(told.stdout.split()[-1]) / 1024


def main() -> None:
    """Make, start, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--signal", action="store_true")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        for pairs in (FEW, asked.pairs):
            cache = work / f"cache-{pairs}"
            if not cache.is_dir():
                make_cache(cache, pairs)
            runs = [start(cache, Path(temporary) / f"run-{pairs}-{n}", signal=asked.signal) for n in range(2)]
            cpu, memory = min(runs)  # the first one has read all files whole
            rows[pairs] = {"cpu_s": round(cpu, 2), "peak_mb": round(memory, 1)}
            print(pairs, rows[pairs], flush=True)
    more = rows[asked.pairs]["peak_mb"] - rows[FEW]["peak_mb"]
    found = {"starts": rows, "bytes a pair": round(more * 2**20 / (asked.pairs - FEW), 1)}
    found["cpu_s more"] = round(rows[asked.pairs]["cpu_s"] - rows[FEW]["cpu_s"], 2)
    print(found)
    if asked.out is not None:
        command = " ".join(["python benchmarks/train_start.py", *sys.argv[1:]])
        write_json(asked.out, {"command": command, "versions": versions(), **found})


if __name__ == "__main__":
    main()
