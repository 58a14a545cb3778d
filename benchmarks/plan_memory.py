"""What `finepref plan` says of memory against the peak of the process that trains, SD1.5 at its true size.

    OMP_NUM_THREADS=1 python benchmarks/plan_memory.py [--out FILE.json] [--arch sd15|tiny]

Random weights in float32 on the CPU, pictures of 256 x 256: LoRA of rank 8, and full training with Adafactor, with and
without checkpointing. The peak is the operating system's (ru_maxrss) of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from finepref.core.files import write_json
from finepref.core.provenance import versions

SIDE = {"sd15": 256, "tiny": 64}
RUNS = {
    "LoRA": ["lora={rank: 8}"],
    "LoRA, checkpointing": ["lora={rank: 8}", "train.gradient_checkpointing=true"],
    "full, Adafactor": ["train.optimizer=adafactor"],
    "full, Adafactor, checkpointing": ["train.optimizer=adafactor", "train.gradient_checkpointing=true"],
}


def make(folder: Path, arch: str) -> None:
    """base/ with random weights, pairs/ (in a process of its own, whose memory its children would inherit)."""
    import rehearsal

    rehearsal.make_base(folder, arch)
    rehearsal.make_pairs(folder / "few", 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=[*SIDE], default="sd15")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--runs", default=",".join(str(n) for n in range(len(RUNS))), help="numbers of runs")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), []
        maker = multiprocessing.get_context("spawn").Process(target=make, args=(folder, asked.arch))
        maker.start()
        maker.join()
        given = [
            *("-c", "sd15", "-c", "dpo", "model.base=checkpoint.safetensors", "model.config=configs"),
            *("data.paths=[few]", "data.format=auto", f"data.resolution={SIDE[asked.arch]}", "signal.file=null"),
            *("cache.folder=cache", "cache.batch_size=2", "train.mixed_precision=no", "train.max_steps=2"),
            *("train.pairs_per_step=1", "train.micro_batch=1", "train.lr_warmup_steps=0", "train.scale_lr=false"),
        ]
        command(folder, "cache", *given)
        for number in map(int, asked.runs.split(",")):
            which = list(RUNS)[number]
            peak = command(folder, "train", *given, *RUNS[which], "--out", f"run-{number}")
            out = subprocess.run(
                [sys.executable, "-m", "finepref", "plan", *given, *RUNS[which], "--gpu", "cpu", "--json"],
                cwd=folder, capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
            plan: dict[str, Any] = json.loads(out)
            said = plan["gpus"][0]["needed_gb"]
            rows.append({"run": which, "peak_gb": peak, "plan_gb": said, "parts_gb": plan["memory_gb"]})
            print(f"{which:32} peak {peak:6.2f} GB, plan {said:6.2f} GB, {said / peak - 1:+.0%}", flush=True)
    if asked.out is not None:
        write_json(asked.out, {"arch": asked.arch, "rows": rows, "versions": versions()})


def command(folder: Path, *words: str) -> float:
    """Run a finepref command; the peak of its memory in GB."""
    process = subprocess.Popen([sys.executable, "-m", "finepref", *words], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{words[0]} failed")
    return used.ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
