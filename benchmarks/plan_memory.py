"""What `finepref plan` says of memory against the peak of the process, SD1.5 at its true size.

    OMP_NUM_THREADS=1 python benchmarks/plan_memory.py [--out FILE.json] [--arch sd15|tiny] [--work DIR] [--rows NAME..]

Random weights in float32 on the CPU, pictures of 256 x 256: LoRA of rank 8, and full training with Adafactor, with and
without checkpointing; the cache before it; eight pictures of 128 x 128 drawn after it and scored by PickScore at its
true size. The peak is the operating system's (ru_maxrss) of a process of its own. The plan is asked twice: by configs
alone, as before weights and data are downloaded, and when they are there.

With sd15 also: the host's memory while the networks are loaded for a GPU (torch's meta device stands for it), the most
that is the process's own (RssAnon) beyond its imports.
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
ROWS = ("cache", *RUNS, "generate", "score")
LOADS = {"LoRA": ("bf16", True), "full": ("bf16", False), "full, float32": ("no", False)}
LOAD = """
import sys, threading, time
from pathlib import Path
import torch, diffusers, transformers, peft
from finepref.models.load import load_adapter
from finepref.models.lora import LoraSettings

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("RssAnon"))

base, precision, lora = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
start, held = own(), []
threading.Thread(target=lambda: [(held.append(own()), time.sleep(0.01)) for _ in iter(int, 1)], daemon=True).start()
lora = LoraSettings(rank=8) if lora else None
load_adapter(base, config="configs", lora=lora, mixed_precision=precision, device="meta")
print(max(held) - start)
"""


def make(folder: Path, arch: str) -> None:
    """A base with random weights, pairs, a scorer; in a process of its own, whose memory its children would inherit."""
    import rehearsal
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPModel

    import tiny
    import tiny_scorers
    from finepref.evaluate.scorers import clip

    rehearsal.make_base(folder, arch)
    rehearsal.make_pairs(folder / "few", 2)
    with torch.device("meta"):
        network = CLIPModel(clip.clip_config(clip.SHAPES["vit-h-14"]))
    names = [name for name in network.state_dict() if not name.endswith("position_ids")]
    draws = torch.Generator().manual_seed(0)
    weights = {name: 0.02 * torch.randn(network.state_dict()[name].shape, generator=draws) for name in names}
    (folder / "scorer").mkdir()
    save_file(weights, folder / "scorer" / "model.safetensors", metadata={"format": "pt"})
    tiny_scorers.clip_vocabulary(folder / "scorer")
    (folder / "prompts.txt").write_text("\n".join(tiny.WORDS[:8]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=[*SIDE], default="sd15")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, help="where bases and runs stay, to go on with other rows")
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=ROWS, metavar="NAME", help=", ".join(ROWS))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = asked.work or Path(name)
        if not (folder / "prompts.txt").is_file():
            maker = multiprocessing.get_context("spawn").Process(target=make, args=(folder, asked.arch))
            maker.start()
            maker.join()
        rows = [measured(folder, row, SIDE[asked.arch]) for row in ROWS if row in asked.rows]
        loads = [loaded(folder, row) for row in LOADS] if asked.arch == "sd15" else []
    if asked.out is not None:
        write_json(asked.out, {"arch": asked.arch, "rows": rows, "loads": loads, "versions": versions()})


def measured(folder: Path, row: str, side: int) -> dict[str, Any]:
    """The peak of a row, and what the plan says before and after the download."""
    stage = row if row in ("cache", "generate", "score") else "train"
    own = RUNS.get(row, RUNS["LoRA"])
    given = [
        *("-c", "sd15", "-c", "dpo", "data.format=auto", "signal.file=null", "train.mixed_precision=no"),
        *("cache.folder=cache", "cache.batch_size=2", "train.max_steps=2", "train.pairs_per_step=1"),
        *("train.micro_batch=1", "train.lr_warmup_steps=0", "train.scale_lr=false", *own),
        f"data.resolution={side // 2 if stage == 'generate' else side}",
    ]
    here = ["model.base=checkpoint.safetensors", "model.config=configs", "data.paths=[few]"]
    run = f"run-{list(RUNS).index(row) if row in RUNS else 0}"
    words = {
        "cache": [*given, *here],
        "train": [*given, *here, "--out", run],
        "generate": ["--model", f"a={run}", "--prompts", "prompts.txt", "--steps", "1", "--size",
                     f"{side // 2}x{side // 2}", "--out", "pictures"],
        "score": ["pictures", "--scorer", "pickscore@scorer"],
    }  # fmt: skip
    before = planned(folder, *given, "model.base=configs", "data.paths=[nobody/pairs]")
    after = planned(folder, *given, *here)  # a single file is unpacked by it
    peak = command(folder, stage, *words[stage])
    found = {"run": row, "peak_gb": peak, "plan_gb": after["host"][stage]["cpu_gb"]}
    found |= {"before_gb": before["host"][stage]["cpu_gb"], "parts_gb": after["memory_gb"] if stage == "train" else {}}
    said = ", ".join(f"{found[key]:.2f} GB ({found[key] / peak - 1:+.1%})" for key in ("before_gb", "plan_gb"))
    print(f"{row:32} peak {peak:6.2f} GB, plan before and after {said}", flush=True)
    return found


def planned(folder: Path, *words: str) -> dict[str, Any]:
    """What the plan says."""
    asked = [sys.executable, "-m", "finepref", "plan", *words, "--gpu", "cpu", "--json"]
    out = subprocess.run(asked, cwd=folder, env=home(folder), capture_output=True, text=True, check=True).stdout
    return json.loads(out)  # type: ignore[no-any-return]


def loaded(folder: Path, row: str) -> dict[str, Any]:
    """GB of the process's own while a run's networks are loaded for another device."""
    precision, lora = LOADS[row]
    words = [sys.executable, "-c", LOAD, "checkpoint.safetensors", precision, str(lora)]
    out = subprocess.run(words, cwd=folder, env=home(folder), capture_output=True, text=True, check=True).stdout
    print(f"{row:32} own memory while it is loaded {float(out):.2f} GB", flush=True)
    return {"run": row, "own_gb": float(out)}


def home(folder: Path) -> dict[str, str]:
    """The environment of a command that keeps what it makes of a checkpoint in the folder."""
    return {**os.environ, "FINEPREF_HOME": str(folder / "home")}


def command(folder: Path, *words: str) -> float:
    """Run a finepref command; the peak of its memory in GB."""
    asked = [sys.executable, "-m", "finepref", *words]
    process = subprocess.Popen(asked, cwd=folder, env=home(folder), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{words[0]} failed")
    return used.ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
