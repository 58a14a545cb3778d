"""A person's files: no command changes one byte of them, with --overwrite or without; its own older result it replaces."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import own_pairs
import tiny
import tiny_ksort
from finepref.core.outfolders import MARKER

VOTES = "model_a,model_b,winner\na,b,model_a\nb,c,model_a\nc,a,model_b\na,b,model_b\n"
PROMPT = "a blue square on a navy background"
COUNTS = "comparison,metric,prompts,n,win_rate\nnew/old,pickscore,papv2,500,0.61\n"
MINE = (  # 24 and more, many of them with names that we use ourselves
    "notes.txt", "README.md", "config.yaml", ".git/HEAD", ".git/config", "votes/a.csv", "ask.csv", "votes.csv",
    "manifest.jsonl", "manifest.json", "leaderboard.csv", "quarantine.jsonl", "validation.json", "ratings.json",
    "comparison.json", "run.json", "cache.json", "summary.json", "report.html", "arena.html", "lora.safetensors",
    "images/cat.png", "images/base/lab-eval/00000_s0.png", "prompts/list.txt", "checkpoints/step-000500/state.json",
    "samples/step-000500/000-0.png", "unet/config.json", "cache/notes.txt", "runs/run/notes.txt", "base/notes.txt",
    "finepref_scorer.json", "lab.json", "reference.json", "trajectories.json", "ksort.json", ".finepref-mine",
)  # fmt: skip
TABLES = ("pairs.parquet", "signals.parquet", "rewards.parquet", "scores.parquet", "gaps.parquet", "ask.parquet")


class Place:
    """What commands read, made once: a tiny pipeline, pairs, votes, and results of every stage."""

    def __init__(self, root: Path, finepref: Callable[..., None]) -> None:
        self.root, self.finepref = root, finepref
        tiny.sd15(root / "model")
        self.pairs = own_pairs.make_folder(root / "pairs", pairs=4)
        table = self.pairs / "metadata.csv"
        for prompt in own_pairs.PROMPTS:
            table.write_text(table.read_text().replace(prompt, PROMPT))
        tiny_ksort.write_data(root / "benchmark")
        (root / "votes.csv").write_text(VOTES)
        (root / "counts.csv").write_text(COUNTS)
        (root / "prompts.txt").write_text(f"{PROMPT}\na green heart on a lavender background\n")
        self.config = root / "run.yaml"
        train = {"max_steps": 1, "pairs_per_step": 2, "micro_batch": 2, "learning_rate": 1e-4, "lr_warmup_steps": 0}
        self.config.write_text(
            yaml.safe_dump(
                {
                    "model": {"base": str(root / "model")},
                    "data": {"paths": [str(self.pairs)], "resolution": 32},
                    "cache": {"folder": str(root / "cache")},
                    "objective": {"name": "dpo", "beta": 500},
                    "lora": {"rank": 2},
                    "train": train,
                }
            )
        )

    def words(self, name: str, out: object) -> tuple[object, ...]:
        """The words of a command that writes to `out`."""
        r = self.root
        model = ("--model", f"base={r / 'model'}", "--model", f"run={r / 'run'}")
        return {
            "arena": ("arena", r / "votes.csv", "--out", out),
            "cache": ("cache", "-c", self.config, "--out", out),
            "reference": (
                "cache", "-c", self.config, "--reference", f"train.reference_cache={out}", "--out", r / "cache",
            ),
            "train": ("train", "-c", self.config, "--out", out),
            "resume": ("train", "-c", self.config, "--resume", "--out", out),
            "generate": ("generate", *model, "--prompts", r / "prompts.txt", "--steps", 1, "--out", out),
            "diffusers": ("export", r / "run", "--format", "diffusers", "--out", out),
            "merged": ("export", r / "run", "--format", "merged", "--out", out),
            "pair": ("data", "pair", r / "eval", "--scorer", "lab-true", "--out", out),
            "lab model": ("lab", "model", "--out", out),
            "scorer": ("scorers", "convert", r / "model", "--scorer", "hpsv2.1", "--out", out),
            "ksort": (
                "scorers", "ksort", r / "benchmark", "--images", r / "eval", "--model", "base", "--judge",
                r / "run.yaml", "--out", out,
            ),
            "demo": ("demo", "--quick", "--out", out),
            "study": ("lab", "study", "--minutes", 0, "--work", r / "work", "--out", out),
            "study work": ("lab", "study", "--minutes", 0, "--out", r / "rows", "--work", out),
            "signals": ("signals", self.pairs, "--kind", "uniform", "--margin", 1, "--out", out),
            "convert": ("data", "convert", self.pairs, "--out", out),
            "score": ("score", self.pairs, "--scorer", "lab-true", "--out", out),
            "next": ("next", r / "votes.csv", "--out", out),
            "compare": ("compare", r / "eval", "--baseline", "base", "--resamples", 100, "--out", out),
            "counts": ("compare", "--from-counts", r / "counts.csv", "--out", out),
            "report": ("report", r / "eval", "--out", out),
            "lab votes": ("lab", "votes", "--count", 4, "--prompts", 1, "--out", out),
            "kohya": ("export", r / "run", "--format", "kohya", "--out", out),
            "prompts": ("scorers", "ksort", r / "benchmark", "--write-prompts", out),
            "study page": ("lab", "study", "--out", r / "rows", "--report", out),
        }[name]  # fmt: skip


FOLDERS = (
    "arena", "cache", "reference", "train", "resume", "generate", "diffusers", "merged", "pair", "lab model", "scorer",
    "ksort", "demo", "study", "study work",
)  # fmt: skip
FILES = {
    "signals": (".parquet", ""), "convert": (".parquet", ""), "score": (".parquet",), "lab votes": (".parquet", ""),
    "next": (".csv", ".jsonl", ".parquet"), "compare": (".json", ""), "counts": (".json", ""), "report": (".html", ""),
    "kohya": (".safetensors",), "prompts": (".json", ""), "study page": (".md", ""),
}  # fmt: skip
OVERWRITES = {
    "arena", "cache", "reference", "train", "generate", "diffusers", "merged", "pair", "scorer", "study", "study work",
    "signals", "convert", "score", "lab votes", "kohya",
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("place")
    made = Place(root, must)
    must(*made.words("cache", root / "cache"))
    must(*made.words("train", root / "run"))
    must(*made.words("generate", root / "eval"))
    must("score", root / "eval", "--scorer", "lab-true")
    must("compare", root / "eval", "--baseline", "base", "--resamples", 100)
    yield made


def call(*words: object) -> tuple[int, str]:
    """A command in this process: its exit code, and what it said on stderr."""
    import contextlib
    import io

    from finepref.cli.main import main

    said, argv = io.StringIO(), sys.argv
    sys.argv = ["finepref", *map(str, words)]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = argv
    return code, said.getvalue()


def must(*words: object) -> None:
    code, said = call(*words)
    assert code == 0, (words, said)


def make_mine(folder: Path) -> Path:
    """A person's project."""
    for name in MINE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{{\"mine\": \"{name}\"}}\n")
    for name in TABLES:
        pq.write_table(pa.table({"pair_id": ["a"], "mine": [name]}), folder / name)
    return folder


def content(folder: Path) -> dict[str, str]:
    """Relative name -> hash, or target, of everything below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        held = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b"folder"
        found[name] = hashlib.sha256(held).hexdigest()
    return found


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    before = content(folder)
    yield
    assert content(folder) == before


def places_of(name: str, mine: Path) -> list[Path]:
    """Where the person may point the command: his folder and those in it; or every file of his that it can name."""
    if name in FOLDERS:
        inside = {mine / Path(each).parts[0] for each in MINE if "/" in each}
        return [mine, *sorted(inside), mine / "notes.txt"]
    suffixes = FILES[name]
    names = [each for each in (*MINE, *TABLES) if Path(each).suffix in suffixes or ("" in suffixes and "/" not in each)]
    return [*(mine / each for each in names), *([mine / "images"] if "" in suffixes else [])]


@pytest.mark.parametrize("name", [*FOLDERS, *FILES])
def test_nothing_of_a_person_is_changed(place: Place, tmp_path: Path, name: str) -> None:
    mine = make_mine(tmp_path / "mine")
    outside = content(place.root)
    with untouched(tmp_path):
        for out in places_of(name, mine):
            for more in ((), ("--overwrite",)) if name in OVERWRITES else ((),):
                code, said = call(*place.words(name, out), *more)
                assert code == 2, (out, more, said)
                last = said.strip().splitlines()[-1]
                assert str(out) in last or str(out.with_suffix(".md")) in last, last
                assert "Traceback" not in said
    assert content(place.root) == outside
