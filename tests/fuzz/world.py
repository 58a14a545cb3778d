"""A folder with one finished thing of every kind, made once by the commands themselves; inputs copy and damage it."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from fuzz.preferences import picture
from fuzz.running import Command, run

PROMPTS = ("a red circle on a black background", "a blue square on a white background")
JUDGE = {
    "base_url": "http://127.0.0.1:9/v1",
    "model": "judge-1",
    "question": "How good is this for {prompt}?",
    "retries": 0,
    "number_after": "Score:",
    "low": 0,
    "high": 9,
    "timeout": 5,
    "attempts": 2,
    "workers": 1,
}
TRAIN = (
    "data.paths=[votes.parquet]",
    "cache.folder=cache",
    "train.max_steps=2",
    "train.pairs_per_step=2",
    "train.checkpoint_every=1",
)


class BrokenWorld(Exception):
    """A command failed that must not: nothing can be tried then."""


def make_world(folder: Path) -> Path:
    """votes, arena, signals, rewards, cache, run, lora, evaluation, transcripts, report; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    rows = []
    for number in range(12):
        left, right = draw.sample(range(3), 2)
        share = draw.choice((1.0, 0.0))
        rows.append(
            {
                "ranking_id": number,
                "caption": PROMPTS[number % 2],
                "jpg_0": picture(left),
                "jpg_1": picture(3 + right),
                "label_0": share,
                "label_1": 1 - share,
                "model_0": "abc"[left],
                "model_1": "abc"[right],
                "user_id": number % 4,
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / "votes.parquet")
    lines = [f"{'abc'[k % 3]},{'abc'[(k + 1) % 3]},{('left', 'right', 'tie')[k % 5 % 3]},v{k % 3}" for k in range(20)]
    (folder / "v.csv").write_text("\n".join(["left,right,winner,voter", *lines]) + "\n")
    (folder / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
    (folder / "rates.csv").write_text("comparison,metric,prompts,n,win_rate\nours,pick,p,400,56.2\nours,hps,p,400,48\n")
    (folder / "board.csv").write_text("model,mu\na,25\nb,24.5\nc,23\n")
    (folder / "judge.yaml").write_text(yaml.safe_dump(JUDGE))
    for words in _stages():
        done = run(Command(words), folder)
        if done.code != 0:
            raise BrokenWorld(f"finepref {' '.join(words)}: exit {done.code}\n{done.err}{done.error}")
    _answer(folder)
    return folder


def _stages() -> list[tuple[str, ...]]:
    models = ("--model", "b=lab", "--model", "n=run")
    return [
        ("arena", "v.csv", "--out", "arena"),
        ("signals", "votes.parquet", "--kind", "uniform", "--out", "signals.parquet"),
        ("score", "votes.parquet", "--scorer", "lab-reward", "--out", "rewards.parquet"),
        ("data", "convert", "votes.parquet", "--out", "pairs.parquet"),
        ("train", "-c", "lab/dpo", "--out", "run", *TRAIN),
        ("train", "-c", "lab/dpo", "--out", "lora", *TRAIN, "lora.rank=2", "lora.alpha=2"),
        ("export", "lora", "--format", "kohya", "--out", "kohya.safetensors"),
        ("lab", "model", "--out", "base"),
        ("generate", *models, "--prompts", "prompts.txt", "--steps", "1", "--out", "eval"),
        ("score", "eval", "--scorer", "lab-reward", "--scorer", "lab-true"),
        ("compare", "eval", "--baseline", "b", "--resamples", "100"),
    ]


def _answer(folder: Path) -> None:
    """Transcripts of the judge for every picture of the evaluation, as its endpoint would have written them."""
    from PIL import Image

    from finepref.evaluate.scorers.judge import Endpoint, Transcript, picture
    from finepref.evaluate.scorers.judge_scorer import JudgeSettings, read_settings
    from finepref.formats.manifest import read_rows

    settings = read_settings(folder / "judge.yaml", JudgeSettings)
    endpoint = Endpoint(settings, folder / "judge.transcripts")
    for row in read_rows(folder / "eval"):
        text = str(JUDGE["question"]).replace("{prompt}", row.prompt)
        with Image.open(folder / "eval" / row.path) as image:
            shown = [picture(image)]
        path = endpoint.transcripts / f"{endpoint.key(text, shown)}.json"
        path.parent.mkdir(exist_ok=True)
        asked = tuple({"label": each.label, "sha256": each.sha256} for each in shown)
        record = Transcript(text, asked, ("Score: 7",))
        path.write_text(json.dumps({"settings": settings.model_dump(), **asdict(record)}), encoding="utf-8")


def copy(world: Path, folder: Path, *names: str) -> None:
    """Copy things of the world into the folder of an input."""
    for name in names:
        source = world / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, dirs_exist_ok=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
