"""From a checkpoint in one file to LoRA files for other tools, at the true size of SD1.5: times and peak memory.

    OMP_NUM_THREADS=1 python benchmarks/rehearsal.py [--arch sd15|tiny] [--out FILE.json]

Everything is made up and seeded: a checkpoint of random weights in the original layout, and pairs of 512 x 512 pictures
with the spectrum of photographs (1 / frequency). Commands run in processes of their own, whose use the operating system
counts. Checked at the end: the names of both LoRA files against ComfyUI's key map of UNets (each module's name with `_`
for every dot after `lora_unet_`, facts of its comfy/lora.py and comfy/utils.py), alphas, and the merged file, read by
plain diffusers, against W + alpha / r up down.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from architectures import UNETS, write_configs
from PIL import Image
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import tiny
from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator
from finepref.models.packed import write_checkpoint

PAIRS, CACHED, SIDE, RANK, ALPHA = 50, 8, 512, 4, 16
ENDS = ("to_q", "to_k", "to_v", "to_out.0")
Rows = list[dict[str, Any]]


def make_base(folder: Path, arch: str) -> None:
    """configs/ and checkpoint.safetensors."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    configs, tokenizer = write_configs(folder / "configs", arch), tiny.clip_tokenizer()
    tokenizer.save_pretrained(str(configs / "tokenizer"))
    index = json.loads((configs / "model_index.json").read_text())
    write_json(configs / "model_index.json", {**index, "tokenizer": ["transformers", "CLIPTokenizer"]})
    place = configs / "text_encoder" / "config.json"  # of the words that the tests' tokenizer has
    write_json(place, {**json.loads(place.read_text()), "vocab_size": len(tokenizer)})
    text, vae = CLIPTextConfig.from_pretrained(place.parent), AutoencoderKL.load_config(configs / "vae")
    unet = UNet2DConditionModel.load_config(configs / "unet")
    pipe = StableDiffusionPipeline(
        vae=tiny.seeded(1, lambda: AutoencoderKL.from_config(vae)),
        text_encoder=tiny.seeded(2, lambda: CLIPTextModel(text)),
        tokenizer=tokenizer,
        unet=tiny.seeded(3, lambda: UNet2DConditionModel.from_config(unet)),
        scheduler=DDIMScheduler.from_pretrained(configs / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    write_checkpoint(pipe, folder / "checkpoint.safetensors", half=False, metadata={})


def make_pairs(folder: Path, pairs: int) -> None:
    """Pictures and metadata.csv."""
    draws, frequency = numpy_generator(0, "rehearsal"), np.fft.fftfreq(SIDE)
    fall = 1.0 / np.maximum(np.hypot(frequency[:, None], frequency[None]), 1.0 / SIDE)
    folder.mkdir()
    names = [[f"{side}-{i:03d}.jpg" for side in ("chosen", "rejected")] for i in range(pairs)]
    for name in (name for row in names for name in row):
        noise = np.fft.fft2(draws.normal(size=(3, SIDE, SIDE))) * fall
        pixels = np.real(np.fft.ifft2(noise)).transpose(1, 2, 0)
        pixels = 127 + 60 * (pixels - pixels.mean((0, 1))) / pixels.std((0, 1))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name, quality=92)
    with (folder / "metadata.csv").open("w", newline="") as handle:
        rows = [(*row, tiny.WORDS[i % len(tiny.WORDS)]) for i, row in enumerate(names)]
        csv.writer(handle).writerows([("chosen_file_name", "rejected_file_name", "prompt"), *rows])


def command(folder: Path, name: str, *words: object) -> dict[str, Any]:
    """Run a finepref command; what it used."""
    started = time.perf_counter()
    environment = {**os.environ, "FINEPREF_HOME": str(folder / "home")}
    process = subprocess.Popen(
        [sys.executable, "-m", "finepref", *map(str, words)], cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{name} failed")
    cpu, seconds = used.ru_utime + used.ru_stime, time.perf_counter() - started
    return {"step": name, "seconds": seconds, "cpu_seconds": cpu, "peak_mb": used.ru_maxrss / 1024}


def check(folder: Path) -> dict[str, Any]:
    """Names, alphas and merged weights; raises where one is wrong."""
    from diffusers import UNet2DConditionModel

    def read(name: str) -> Any:
        place, configs = str(folder / name), str(folder / "configs")
        return UNet2DConditionModel.from_single_file(place, config=configs, subfolder="unet")

    base = read("checkpoint.safetensors").state_dict()
    modules = [name.removesuffix(".weight") for name in base if name.endswith(tuple(f"{end}.weight" for end in ENDS))]
    named = {name: f"lora_unet_{name.replace('.', '_')}" for name in modules}
    ends = ("lora_down.weight", "lora_up.weight", "alpha")
    wanted = {f"{name}.{end}" for name in named.values() for end in ends}
    for tool in ("comfyui", "kohya"):
        tensors = load_file(folder / f"{tool}.safetensors")
        assert set(tensors) == wanted, tool
        assert {tensors[f"{name}.alpha"].item() for name in named.values()} == {ALPHA}, tool
    merged, farthest = read("merged.safetensors").state_dict(), 0.0
    for name, weight in merged.items():
        change: Any = 0.0
        if (module := named.get(name.removesuffix(".weight"))) is not None and name.endswith(".weight"):
            down, up = tensors[f"{module}.lora_down.weight"], tensors[f"{module}.lora_up.weight"]
            change = (ALPHA / RANK) * up @ down
            assert up.abs().max() > 0, name
        difference = (weight - base[name] - change).abs().max().item()
        assert difference == 0.0 or module is not None, name
        farthest = max(farthest, difference)
    assert farthest < 1e-6
    return {"modules": len(modules), "tensors": len(wanted), "merged_farthest": farthest}


def rehearse(folder: Path, arch: str) -> tuple[Rows, dict[str, Any]]:
    """Every step's use, and what was checked."""
    make_base(folder, arch)
    make_pairs(folder / "pairs", PAIRS)
    make_pairs(folder / "few", CACHED)
    side = 256 if arch == "sd15" else 64
    given = [
        *("-c", "sd15", "-c", "dpo", "model.base=checkpoint.safetensors", "model.config=configs", "data.paths=[few]"),
        *(
            f"data.resolution={side}",
            "data.format=auto",
            "cache.folder=cache",
            "cache.batch_size=2",
            "signal.file=null",
        ),
        *(f"lora={{rank: {RANK}, alpha: {ALPHA}}}", "train.mixed_precision=no", "train.max_steps=2"),
        *("train.pairs_per_step=1", "train.micro_batch=1", "train.learning_rate=1e-3", "train.lr_warmup_steps=0"),
    ]
    rows = [
        command(folder, f"inspect {PAIRS} pairs", "data", "inspect", "pairs"),
        command(folder, f"cache {CACHED} pairs at {side}", "cache", *given),
        command(folder, "train 2 LoRA steps", "train", *given, "--out", "run"),
    ]
    for format, name in (("comfyui", "comfyui"), ("kohya", "kohya"), ("single-file", "merged")):
        words = ("export", "run", "--format", format, "--out", f"{name}.safetensors")
        rows.append(command(folder, f"export {format}", *words))
    return rows, check(folder)


def main() -> int:
    """Run; a failed check raises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=sorted({*UNETS} - {"sdxl"}), default="sd15")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        rows, checked = rehearse(Path(folder), options.arch)
        size = (Path(folder) / "checkpoint.safetensors").stat().st_size / 1e6
    for row in rows:
        print(f"{row['step']:28} {row['seconds']:8.1f} s {row['cpu_seconds']:8.1f} CPU-s {row['peak_mb']:8.0f} MB")
    print(f"checkpoint {size:.0f} MB; {checked}")
    if options.out is not None:
        record = {
            "arch": options.arch,
            "checkpoint_mb": size,
            "steps": rows,
            "checked": checked,
            "versions": versions(),
        }
        write_json(options.out, record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
