"""All kinds with their shares, one input after the other, and the table of what failed."""

from __future__ import annotations

import os
import random
import resource
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzz import made, settings, written
from fuzz.calls import python_calls
from fuzz.made import damaged
from fuzz.outputs import again, outputs
from fuzz.running import COUNTS, Failure, Kind, failures, run, snapshot
from fuzz.world import make_world

# kind -> (inputs of 1,000, what makes one)
KINDS: Mapping[str, tuple[int, Kind]] = {
    "votes": (300, written.arena_of_votes),
    "damaged votes": (110, written.damaged_votes),
    "folders": (50, written.folder_of_votes),
    "next": (50, written.next_of_votes),
    "preferences": (120, written.preference_sets),
    "pictures": (30, written.pictures),
    "prompts": (25, written.prompt_sets),
    "config": (60, settings.layers),
    "training": (8, settings.configured_training),
    "boards": (30, made.boards),
    "signals": (
        15,
        damaged(
            "votes.parquet",
            "cache",
            "signals.parquet",
            among=["signals.parquet"],
            ours=["cache"],
            out=["r"],
            resumes=True,
            steps=lambda draw: [[*made.ANEW, "signal.file=signals.parquet"]],
        ),
    ),
    "rewards": (
        30,
        damaged(
            "votes.parquet",
            "rewards.parquet",
            among=["rewards.parquet"],
            out=["s.parquet"],
            steps=lambda draw: [
                [
                    "signals",
                    "votes.parquet",
                    "--kind",
                    draw.choice(("smoothed", "relabel", "reward-margin")),
                    "--rewards",
                    "rewards.parquet",
                    "--out",
                    "s.parquet",
                ]
            ],
        ),
    ),
    "cache": (
        15,
        damaged(
            "votes.parquet",
            "cache",
            among=["cache/**/*"],
            out=["r", "cache"],
            ours=["cache"],
            resumes=True,
            steps=lambda draw: [
                draw.choice((made.ANEW, ["cache", "-c", "lab/dpo", "data.paths=[votes.parquet]", "--out", "cache"]))
            ],
        ),
    ),
    "checkpoints": (15, made.checkpoints),
    "loras": (15, made.loras),
    "weights": (20, made.weights),
    "runs": (
        20,
        damaged(
            "lora",
            "prompts.txt",
            among=["lora/*", "lora/unet/*", "lora/*lora*/*"],
            resumes=True,
            out=["k.safetensors", "d", "r.html", "r.md", "e"],
            steps=lambda draw: [draw.choice(made.RUNS)],
        ),
    ),
    "evaluations": (
        45,
        damaged(
            "eval",
            "prompts.txt",
            among=["eval/*", "eval/images/*/*/*"],
            ours=["eval"],
            resumes=True,
            out=["r.html", "r.md", "pairs"],
            steps=lambda draw: [draw.choice(made.ON_EVAL)],
        ),
    ),
    "reports": (25, made.sources_of_report),
    "pages": (25, written.hostile_pages),
    "transcripts": (20, made.transcripts),
    "counts": (15, written.counts),
    "outputs": (65, outputs),
    "again": (15, again),
    "python": (40, python_calls),
}


@dataclass
class Tally:
    """Of one kind."""

    inputs: int = 0
    fine: int = 0
    refused: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


@dataclass(frozen=True)
class Found:
    """A failure and where it is found again."""

    kind: str
    index: int
    words: Sequence[str]
    failure: Failure


def schedule(inputs: int, only: str | None) -> list[tuple[str, int]]:
    """(kind, index within the kind), every kind by its share and at least once, spread evenly."""
    if only is not None:
        return [(only, index) for index in range(inputs)]
    total = sum(share for share, _ in KINDS.values())
    places = []
    for name, (share, _) in KINDS.items():
        count = max(1, round(inputs * share / total))
        places += [((index + 0.5) / count, name, index) for index in range(count)]
    return [(name, index) for _, name, index in sorted(places)]


def try_input(
    kind: str, index: int, seed: int, folder: Path, world: Path
) -> tuple[str, list[tuple[Sequence[str], Failure]]]:
    """One input in an empty folder: (fine or refused, what failed with the words of its command)."""
    draw = random.Random(f"{seed}/{kind}/{index}")
    found: list[tuple[Sequence[str], Failure]] = []
    state = "fine"
    for step in KINDS[kind][1](draw, folder, world):
        before = snapshot(folder)
        done = run(step.command, folder)
        found += [(step.command.words, each) for each in failures(step.command, done, before, snapshot(folder))]
        if done.code == 0 and step.check is not None:
            try:
                found += [(step.command.words, each) for each in step.check(done)]
            except Exception:
                said = traceback.format_exc().strip().splitlines()[-1]
                found.append((step.command.words, Failure("wrong", f"the result cannot be read: {said}")))
        if done.code != 0:
            state = "refused"
            break
    return state, found


def try_all(
    places: Sequence[tuple[str, int]],
    *,
    seed: int,
    keep: Path | None = None,
    tell: Callable[[Found], None] | None = None,
) -> tuple[dict[str, Tally], list[Found]]:
    """Every input in a folder of its own; the world is made first and must be the same afterwards."""
    tallies: dict[str, Tally] = {}
    found: list[Found] = []
    with _work() as work:
        world = make_world(work / "world")
        whole = snapshot(world)
        for kind, index in places:
            folder = work / "in" / f"{kind.replace(' ', '-')}-{index}"
            folder.mkdir(parents=True)
            start = time.process_time()
            state, failed = try_input(kind, index, seed, folder, world)
            if _touched(world, whole):
                failed.append(((), Failure("changed", "something of the world of all inputs")))
                shutil.rmtree(world)
                make_world(world)
                whole = snapshot(world)
            tally = tallies.setdefault(kind, Tally())
            tally.inputs += 1
            tally.seconds += time.process_time() - start
            tally.fine += state == "fine"
            tally.refused += state == "refused"
            for name in {failure.count for _, failure in failed}:
                tally.failed[name] += 1
            for words, failure in failed:
                found.append(Found(kind, index, words, failure))
                if tell is not None:
                    tell(found[-1])
            if failed and keep is not None:
                shutil.copytree(folder, keep / folder.name, symlinks=True, dirs_exist_ok=True, ignore=_pipes)
            shutil.rmtree(folder)
    return tallies, found


def _touched(world: Path, whole: dict[str, str]) -> bool:
    """Whether the world changed: by names, sizes and times, which costs little."""
    now = {os.path.relpath(path, world): os.lstat(path) for path in _walk(world)}
    if set(now) != set(whole):
        return True
    stamp = _STAMPS.setdefault(
        str(world), {name: (s.st_mtime_ns, s.st_size) for name, s in now.items() if s.st_mode & 0o100000}
    )
    fresh = {name: (s.st_mtime_ns, s.st_size) for name, s in now.items() if s.st_mode & 0o100000}
    if fresh == stamp:
        return False
    _STAMPS[str(world)] = fresh
    return snapshot(world) != whole


_STAMPS: dict[str, dict[str, tuple[int, int]]] = {}


def _walk(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        yield from (os.path.join(place, name) for name in (*folders, *files))


def _pipes(place: str, names: list[str]) -> list[str]:
    paths = [(name, Path(place, name)) for name in names]
    return [name for name, path in paths if not (path.is_symlink() or path.is_file() or path.is_dir())]


class _work:
    """A folder for the work, removed afterwards whatever happens in it."""

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp(prefix="fuzz-"))
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def table(tallies: Mapping[str, Tally]) -> str:
    """A line a kind: inputs, fine, refused, and how many inputs had each kind of failure."""
    heads = (
        "kind",
        "inputs",
        "fine",
        "refused",
        *(name if name != "refused" else "no reason" for name in COUNTS),
        "CPU-s",
    )
    rows = [
        (kind, tally.inputs, tally.fine, tally.refused, *(tally.failed[name] for name in COUNTS), round(tally.seconds))
        for kind, tally in sorted(tallies.items(), key=lambda item: list(KINDS).index(item[0]))
    ]
    total = ("all", *(sum(row[at] for row in rows) for at in range(1, len(heads))))
    texts = [tuple(map(str, row)) for row in (heads, *rows, total)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join(
            word.ljust(w) if at == 0 else word.rjust(w) for at, (word, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in texts
    )


def cpu_seconds() -> float:
    """Of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
