"""The commands of an alignment in order: nothing but what a person would type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finepref.align.choice import Choice
from finepref.core.rows import BASES

PROMPTS, LAYER = "prompts.json", "align.yaml"
JUDGED = 32  # held-out prompts that pictures are made of, at most: two each, so that one sees how alike they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an alignment was asked for. reading: how the data are read, as words of a command. run: the run folder.
    judges: scorers of the pictures before and after; rewards among them are marked as trained on by the comparison.
    """

    data: tuple[str, ...]
    reading: tuple[str, ...]
    layers: tuple[str, ...]
    own: tuple[str, ...]
    out: Path
    run: Path
    prompts: str | None
    judges: tuple[str, ...]
    sampling: tuple[str, ...]
    seed: int


def signal_stages(asked: Request, choice: Choice) -> list[list[str]]:
    """What makes the signal: ratings, rewards, the sidecar; nothing for the votes alone."""
    if not choice.kinds:
        return []
    out, read = asked.out, [*asked.data, *asked.reading]
    found, words = [], list[str]()
    if choice.arena:
        found.append(["arena", *read, "--out", str(out / "arena")])
        words += ["--arena", str(out / "arena")]
    if choice.scorers:
        scorers = [word for name in choice.scorers for word in ("--scorer", name)]
        found.append(["score", *read, *scorers, "--out", str(out / "rewards.parquet")])
        words += ["--rewards", str(out / "rewards.parquet")]
    kinds = [word for kind in choice.kinds for word in ("--kind", kind)]
    options = [
        word
        for name, value in choice.options.items()
        for word in (f"--{name.replace('_', '-')}", value if isinstance(value, str) else f"{value:g}")
    ]
    found.append(["signals", *read, *kinds, *words, *options, "--out", str(out / "signals.parquet")])
    return found


def training_stages(asked: Request) -> list[list[str]]:
    """Cache and run."""
    words = [*(word for layer in asked.layers for word in ("-c", layer)), *asked.own]
    return [["cache", *words], ["train", *words, "--out", str(asked.run), "--resume", "auto"]]


def judging_stages(asked: Request) -> list[list[str]]:
    """Pictures before and after, their scores, the comparison and the report."""
    out, models = asked.out, {"before": f"{asked.run}@0", "after": str(asked.run)}
    drawn = ["--limit", str(JUDGED), *asked.sampling]
    prompts = asked.prompts or str(out / PROMPTS)
    compared = comparing_stages(models, prompts, out / "eval", judges=asked.judges, drawn=drawn, seed=asked.seed)
    return [*compared, ["report", str(out), "--out", str(out / "report.html")]]


def comparing_stages(
    models: Mapping[str, str], prompts: str, out: Path, *, judges: Sequence[str], drawn: Sequence[str], seed: int
) -> list[list[str]]:
    """Two pictures of a prompt by every model, their scores, and the comparison with the first model.

    drawn: further words of `generate`. Without judges there are the pictures alone.
    """
    named = [word for name, model in models.items() for word in ("--model", f"{name}={model}")]
    seeds = ["--seeds", f"{seed},{seed + 1}"]
    found = [["generate", *named, "--prompts", prompts, *seeds, *drawn, "--out", str(out)]]
    if judges:
        scorers = [word for name in judges for word in ("--scorer", name)]
        found += [["score", str(out), *scorers], ["compare", str(out), "--baseline", next(iter(models))]]
    return found


def loading(run: Path, *, lora: bool, base: str) -> Sequence[str]:
    """How the result is loaded elsewhere, as lines to print."""
    if lora and base not in BASES:
        diffusers = f'DiffusionPipeline.from_pretrained("{base}").load_lora_weights("{run}")'
        comfy = f"finepref export {run} --format comfyui --out LORA.safetensors"
    else:
        diffusers = f'finepref export {run} --format merged --out X; DiffusionPipeline.from_pretrained("X")'
        comfy = f"finepref export {run} --format {'comfyui' if lora else 'single-file'} --out MODEL.safetensors"
    return (f"in diffusers: {diffusers}", f"in ComfyUI:   {comfy}")
