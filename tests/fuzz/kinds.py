"""The kinds of input: what is put into a folder, which commands run there, and what must be true afterwards."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from fuzz.damage import any_bytes, any_file, any_json, misplaced
from fuzz.preferences import preferences
from fuzz.reading import arena_failures, pairs_failures
from fuzz.running import Command, Done, Failure
from fuzz.tables import save
from fuzz.votes import HOSTILE, PLAIN, QUOTED, Ballot, Truth, names_of, votes
from fuzz.world import PROMPTS, TRAIN, copy

Draw = random.Random
Check = Callable[[Done], list[Failure]]


@dataclass(frozen=True)
class Step:
    """A command and what must be true of a run that ended with 0."""

    command: Command
    check: Check | None = None


Kind = Callable[[Draw, Path, Path], Sequence[Step]]  # (draw, folder of the input, world) -> steps


def arena_of_votes(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Votes of every dialect and form, rated."""
    given = votes(draw)
    (folder / given.saved.name).write_bytes(given.saved.content)
    own = draw.choice(((), (), (), ("--engine", "online"), ("--ties", "half"), ("--ties", "drop"), ("--link", "logit"),
                       ("--prior", "empirical-bayes"), ("--interval", "bootstrap"), ("--validate", "2"), ("--json",)))  # fmt: skip
    words = ("arena", given.saved.name, "--out", "arena", *given.options, *own)
    given.truth.known = given.truth.known and "--ties" not in own
    expect = 0 if given.plain and not own and len(given.truth.sure) > 1 else None
    command = Command(words, out=("arena",), expect=expect, data="--json" in words, ascii=draw.random() < 0.02)
    return [Step(command, lambda done: arena_failures(folder / "arena", done, given.truth))]


def damaged_votes(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Votes after an accident: whatever is read, in a sentence."""
    given = votes(draw)
    path = folder / given.saved.name
    path.write_bytes(any_bytes(draw, given.saved.content))
    if draw.random() < 0.1:
        misplaced(draw, path)
    skip = ("--skip-bad-rows",) if draw.random() < 0.5 else ()
    command = draw.choice((("arena", path.name, "--out", "arena", *skip), ("next", path.name, "--out", "next.csv"),
                           ("data", "inspect", path.name)))  # fmt: skip
    return [Step(Command(command, out=("arena", "next.csv")))]


def folder_of_votes(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Several files: all of them, or a refusal that names what is not read; copies and hidden files never twice."""
    truth, names = Truth(), draw.sample(PLAIN, 3)
    (folder / "f").mkdir()
    for number in range(draw.choice((1, 2, 3))):
        rows = []
        for _ in range(draw.choice((1, 4))):
            left, right = draw.sample(names, 2)
            vote = Ballot(left, right, draw.choice((1, -1)), "", "")
            rows.append({"left": left, "right": right, "winner": "left" if vote.outcome > 0 else "right"})
            truth.add(vote)
            truth.rows += 1
        saved = save(draw, rows, ["left", "right", "winner"], stem="abc"[number])
        (folder / "f" / saved.name).write_bytes(saved.content)
        if number == 0:
            _stow(draw, folder / "f", saved.name, truth)
    words = ("arena", draw.choice(("f", "f", "f/*")), "--out", "arena")
    if draw.random() < 0.2:
        name = f"f/{_visible(folder / 'f')[0]}"
        words, truth.refuse = ("arena", name, name, "--out", "arena"), "the same file twice"
    named = _visible(folder / "f")

    def check(done: Done) -> list[Failure]:
        found = arena_failures(folder / "arena", done, truth)
        unread = [name for name in named if name in done.err]
        return [] if unread and not truth.refuse else found  # what is not read is named

    return [Step(Command(words, out=("arena",)), check)]


def _stow(draw: Draw, folder: Path, name: str, truth: Truth) -> None:
    """Something else beside the first file."""
    content = (folder / name).read_bytes()
    way = draw.choice(("", "", "hidden", "checkpoints", "copy", "notes"))
    if way == "hidden":
        (folder / f".{name}").write_bytes(content)
    elif way == "checkpoints":
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / ".ipynb_checkpoints" / name).write_bytes(content)
    elif way == "copy":
        (folder / f"copy-{name}").write_bytes(content)
        truth.refuse = "a copy of a file beside it"
    elif way == "notes":
        (folder / "README.md").write_text("# votes\n")


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def next_of_votes(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """What to ask next."""
    given = votes(draw)
    (folder / given.saved.name).write_bytes(given.saved.content)
    out = draw.choice((None, "n.csv", "n.jsonl", "n.parquet", "n.txt", "d/n.csv"))
    count = draw.choice((1, 5, 20, 1000, 0, -1))
    words = ("next", given.saved.name, "--count", str(count), *(("--out", out) if out else ()), *given.options)
    return [Step(Command(words, out=("d", out or "n.csv"), data=out is None))]


def preference_sets(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Pairs with pictures: looked at, converted, made into signals."""
    given = preferences(draw)
    given.write(folder, draw)
    assert given.saved is not None
    path, truth = given.saved.name, given.truth
    expect = 0 if given.plain and truth is not None else None
    if draw.random() < 0.5:
        command = Command(("data", "convert", path, "--out", "out.parquet", *given.options), out=("out.parquet", "out.parquet.quarantine.jsonl"), expect=expect)
        known = truth is not None
        return [Step(command, lambda done: pairs_failures(folder / "out.parquet", done, truth or [], given.void) if known else [])]
    words = draw.choice(
        (
            ("data", "inspect", path), ("data", "validate", path, "--json"), ("arena", path, "--out", "arena"),
            ("signals", path, "--kind", "uniform", "--out", "s.parquet"), ("signals", path, "--kind", "kto", "--out", "s.parquet"),
        )
    )  # fmt: skip
    data = "--json" in words
    return [Step(Command((*words, *given.options), out=("arena", "s.parquet"), data=data))]


def prompt_sets(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Files of prompts, whole and damaged."""
    texts = draw.sample(["a cat", 'a "dog"', "a, b", "é 日本", "", "  ", "two\nlines", "x" * 3000, *HOSTILE], draw.randint(1, 6))
    column = draw.choice(("prompt", "Prompt", "caption", "text", "PROMPT ", "prompts"))
    saved = save(draw, [{column: text, "style": "photo"} for text in texts], [column, "style"], stem="p")
    name, content = saved.name, saved.content
    if draw.random() < 0.2:
        name, content = "p.txt", "\n".join(texts).encode("utf-8", "replace")
    if draw.random() < 0.4:
        content = any_bytes(draw, content)
    (folder / name).write_bytes(content)
    if draw.random() < 0.05:
        misplaced(draw, folder / name)
    words = ("generate", "--model", "b=lab", "--prompts", name, "--limit", "2", "--steps", "1", "--out", "eval")
    return [Step(Command(words, out=("eval",), resumes=True))]


def damaged(*names: str, among: Sequence[str], steps: Callable[[Draw], Sequence[Sequence[str]]], out: Sequence[str] = (),
             ours: Sequence[str] = (), resumes: bool = False) -> Kind:  # fmt: skip
    """Copies of these things of the world, one file of `among` (patterns) damaged, then commands on them."""

    def kind(draw: Draw, folder: Path, world: Path) -> list[Step]:
        copy(world, folder, *names)
        files = sorted(path for pattern in among for path in folder.glob(pattern) if path.is_file())
        for _ in range(draw.choice((1, 1, 1, 2))):
            path = draw.choice(files)
            if path.is_file():
                any_file(draw, path)
        if draw.random() < 0.03:
            misplaced(draw, folder / draw.choice(names))
        listed = [[word.replace("WORLD", str(world)) for word in words] for words in steps(draw)]
        return [Step(Command(tuple(words), out=out, ours=ours, resumes=resumes)) for words in listed]

    return kind


def layers(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Layers of a run config and values on the command line."""
    held = {
        "model": {"base": "lab"}, "data": {"paths": ["votes.parquet"], "resolution": 32}, "objective": {"name": "dpo", "beta": 500},
        "train": {"max_steps": 4, "learning_rate": 1e-4, "pairs_per_step": 2}, "lora": {"rank": 4}, "cache": {"folder": "c"},
        "trajectory": {"name": "forward"}, "guard": {"name": "none"},
    }  # fmt: skip
    if draw.random() < 0.7:
        held = any_json(draw, held)
    try:
        content = yaml.safe_dump(held, allow_unicode=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    except (RecursionError, yaml.YAMLError):
        content = b"train: " + b"[" * 5000
    if draw.random() < 0.4:
        content = any_bytes(draw, content)
    traps = (b"a: &a [*a]\n", b"a: !!python/object/apply:os.system [ls]\n", b"{" * 3000, b"- a\n- b\n", b"train: {max_steps: 1e999}\n",
             b"a: &x [1,1]\nb: &y [*x,*x]\nc: [*y,*y]\n", b"train: 2026-01-01\n", b"? [1]\n: 2\n", b"\t\n", b"<<: 4\n",
             b"train:\n  max_steps: 0x10\n", b"1: {2: 3}\n", b"null: null\n", b"train: {max_steps: 1, max_steps: 2}\n")  # fmt: skip
    if draw.random() < 0.15:
        content = draw.choice(traps)
    (folder / "own.yaml").write_bytes(content)
    if draw.random() < 0.03:
        misplaced(draw, folder / "own.yaml")
    keys = ("train.max_steps", "objective.beta", "objective.name", "signal.margin_scale", "data.paths", "train.mixed_precision",
            "lora", "lora.rank", "model.base", "cache.folder", "train", "trainn.max_steps", "", "a.b.c", "data.resolution")  # fmt: skip
    values = ("1", "no", "1e4", "nan", ".inf", "-1", "[", "{a: b}", "null", "x y", "'", "1e39", "\u202e", "0", "[1, 2]", "é", "9" * 5000)
    over = tuple(f"{draw.choice(keys)}={draw.choice(values)}" for _ in range(draw.choice((0, 0, 1, 2))))
    first = draw.choice((("-c", "own.yaml"), ("-c", "lab/dpo", "-c", "own.yaml"), ("-c", "lab/arenapo"), ("-c", "sdxl/dpo")))
    command = draw.choice((("config",), ("config",), ("config", "--json"), ("plan",)))
    command = ("config",) if command == ("plan",) and draw.random() < 0.8 else command
    return [Step(Command((*command, *first, "--", *over), data="--json" in command))]


def configured_training(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Options that a config accepts, in a training of one step."""
    copy(world, folder, "votes.parquet", "cache")
    values = (
        "train.learning_rate=0", "train.max_steps=1e0", "objective.beta=0", "objective.beta=1e300", "train.pairs_per_step=1000",
        "train.micro_batch=3", "train.lr_scheduler=cosine", "train.lr_warmup_steps=5", "train.mixed_precision=no", "lora.rank=1",
        "signal.margin_scale=1e30", "train.seed=-1", "train.seed=99999999999999999999", "data.flip=true", "data.resolution=1",
        "data.paths=votes.parquet", "train.ema_decay=1", "objective.name=kto", "objective.name=mapo", "guard.name=sdpo",
        "train.gradient_checkpointing=true", "data.validation_share=0.5", "lora.targets=[nothing]", "trajectory.name=ddim_inversion",
        "train.max_grad_norm=0", "model.init_from=votes.parquet", "signal.file=votes.parquet", "train.optimizer=adamw8bit",
    )  # fmt: skip
    words = ("train", "-c", "lab/dpo", "--out", "r", *TRAIN, "train.max_steps=1", "lora.rank=2", *draw.sample(values, draw.randint(1, 3)))
    return [Step(Command(words, out=("r",), ours=("cache",), resumes=True))]


def hostile_pages(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Names that are code elsewhere: inert on pages and in tables."""
    names = names_of(draw, 3, plain=True)[:2] + [draw.choice((*HOSTILE, *QUOTED))]
    rows = [
        {"left": left, "right": right, "winner": draw.choice(("left", "right", "tie")), "voter": draw.choice((*HOSTILE, "v"))}
        for left, right in (draw.sample(names, 2) for _ in range(12))
    ]
    saved = save(draw, rows, ["left", "right", "winner", "voter"], plain=True)
    (folder / saved.name).write_bytes(saved.content)
    title = draw.choice(HOSTILE)

    def inert(done: Done) -> list[Failure]:
        return [*_pages(folder), *_formulas(folder)]

    steps = [Step(Command(("arena", saved.name, "--out", "arena"), out=("arena",)), inert)]
    steps.append(Step(Command(("next", saved.name, "--out", "next.csv"), out=("next.csv",)), inert))
    page = ("report", "arena", "--out", "report.html", "--title", title.replace("\n", " "))
    return [*steps, Step(Command(page, out=("report.html", "report.md")), inert)]


def _pages(folder: Path) -> list[Failure]:
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.html"))]
    raw = ("<script>alert(1)", "</style><b>")
    return [Failure("wrong", f"a page holds {name!r} as it is") for name in raw if any(name in text for text in texts)][:1]


def _formulas(folder: Path) -> list[Failure]:
    """Cells of exported tables that a spreadsheet would run; numbers are none."""
    import csv

    for path in sorted(folder.rglob("*.csv")):
        if path.parent == folder and path.name.startswith("v."):
            continue
        with path.open(encoding="utf-8", newline="") as handle:
            for row in csv.reader(handle):
                for text in row:
                    if text[:1] in ("=", "+", "-", "@", "\t", "\r") and not _number(text):
                        return [Failure("wrong", f"{path.name} holds the formula {text!r}")]
    return []


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def sources_of_report(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """A report of things of which one is damaged."""
    copy(world, folder, "arena", "eval", "lora")
    shutil.rmtree(folder / "lora" / "checkpoints")
    listed = ["arena/ratings.json", "eval/manifest.jsonl", "eval/manifest.json", "eval/scores.parquet", "eval/comparison.json",
              "lora/run.json", "lora/metrics.jsonl", "lora/config.yaml", "lora/timing.jsonl"]  # fmt: skip
    names = [name for name in listed if (folder / name).is_file()]
    images = [str(path.relative_to(folder)) for path in sorted((folder / "eval").rglob("*.png"))]
    any_file(draw, folder / draw.choice((*names, *names, draw.choice(images))))
    inputs = draw.choice((("arena",), ("eval",), ("lora",), (".",), ("arena", "eval", "lora"), ("eval", "lora")))
    return [Step(Command(("report", *inputs, "--out", "r.html"), out=("r.html", "r.md")))]


RUNS = [["export", "lora", "--format", "kohya", "--out", "k.safetensors"], ["export", "lora", "--format", "diffusers", "--out", "d"],
        ["report", "lora", "--out", "r.html"], ["generate", "--model", "n=lora", "--prompts", "prompts.txt", "--steps", "1", "--out", "e"]]  # fmt: skip
ON_EVAL = [["compare", "eval", "--baseline", "b", "--resamples", "100"], ["compare", "eval", "--baseline", "b", "--resamples", "100"],
           ["score", "eval", "--scorer", "lab-reward"], ["report", "eval", "--out", "r.html"],
           ["data", "pair", "eval", "--scorer", "lab-reward", "--out", "pairs"],
           ["generate", "--model", "b=lab", "--prompts", "prompts.txt", "--steps", "1", "--out", "eval"]]  # fmt: skip
TRAINED = ["train", "-c", "lab/dpo", "--out", "lora", *TRAIN, "lora.rank=2", "lora.alpha=2"]
ANEW = ["train", "-c", "lab/dpo", "--out", "r", *TRAIN, "train.max_steps=1", "lora.rank=2", "lora.alpha=2"]


def checkpoints(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """A run that was stopped, something of it damaged, and gone on with."""
    copy(world, folder, "votes.parquet", "cache", "lora")
    if draw.random() < 0.9:
        (folder / "lora" / "run.json").unlink()
    files = [path for path in sorted((folder / "lora").rglob("*")) if path.is_file()]
    any_file(draw, draw.choice(files))
    more = ("train.max_steps=3",) if draw.random() < 0.5 else ()
    return [Step(Command((*TRAINED, *more, "--resume"), out=("lora",), ours=("lora", "cache"), resumes=True))]


def loras(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """LoRA files as a start."""
    copy(world, folder, "votes.parquet", "cache", "kohya.safetensors")
    any_file(draw, folder / "kohya.safetensors")
    return [Step(Command((*ANEW, "model.init_from=kohya.safetensors"), out=("r",), ours=("cache",), resumes=True))]


def weights(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """A model folder, and official weights of scorers."""
    if draw.random() < 0.3:
        copy(world, folder, "kohya.safetensors")
        any_file(draw, folder / "kohya.safetensors")
        name = f"w{draw.choice(('.pt', '.bin', '.safetensors', '.ckpt'))}"
        (folder / "kohya.safetensors").rename(folder / name)
        scorer = draw.choice(("pickscore", "hpsv2.1", "aesthetic", "imagereward", "clip", "nothing"))
        return [Step(Command(("scorers", "convert", name, "--scorer", scorer, "--out", "o"), out=("o",)))]
    copy(world, folder, "base", "prompts.txt")
    files = [path for path in sorted((folder / "base").rglob("*")) if path.is_file()]
    any_file(draw, draw.choice(files))
    words = ("generate", "--model", "m=base", "--prompts", "prompts.txt", "--limit", "1", "--steps", "1", "--out", "e")
    return [Step(Command(words, out=("e",), resumes=True))]


def transcripts(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """A judge whose every answer is on disk; its file or an answer damaged. Nothing listens at its address."""
    copy(world, folder, "eval", "judge.yaml", "judge.transcripts")
    files = sorted((folder / "judge.transcripts").iterdir())
    any_file(draw, draw.choice((*files, folder / "judge.yaml")))
    if draw.random() < 0.1:
        settings = yaml.safe_load((world / "judge.yaml").read_text())
        bad = {"base_url": ("", "file:///etc/passwd", "http://", "ftp://a/b", "http://127.0.0.1:99999/v1", "é", "http://[::1"),
               "pattern": ("(", "(a+)+$", "(\\d+)(\\d)", "x"), "low": (9, "nan", 1e400), "question": ("no place", "{prompt}{x}")}  # fmt: skip
        key = draw.choice(sorted(bad))
        (folder / "judge.yaml").unlink(missing_ok=True)
        (folder / "judge.yaml").write_text(yaml.safe_dump(settings | {key: draw.choice(bad[key])}))
    words = ("score", "eval", "--scorer", "judge@judge.yaml", "--overwrite")
    return [Step(Command(words, ours=("eval/scores.parquet", "judge.transcripts"), resumes=True))]


def counts(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Printed win rates."""
    rows = [
        {"comparison": "ours", "metric": draw.choice(("m", *HOSTILE)), "prompts": "p", "n": draw.choice((400, 1, 0, -1, 2**70, 1.5)),
         "win_rate": draw.choice((56.2, 0, 100, 101, -1, "nan", "inf", 0.5, ""))}
        for _ in range(draw.randint(1, 4))
    ]  # fmt: skip
    saved = save(draw, rows, list(rows[0]), stem="rates")
    content = any_bytes(draw, saved.content) if draw.random() < 0.4 else saved.content
    (folder / saved.name).write_bytes(content)
    words = ("compare", "--from-counts", saved.name, *(("--out", "c.json") if draw.random() < 0.5 else ()))
    return [Step(Command(words, out=("c.json",)))]


def pictures(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Pairs whose pictures are damaged, cached."""
    given = preferences(draw)
    for name in given.pictures:
        if draw.random() < 0.3:
            given.pictures[name] = any_bytes(draw, given.pictures[name])
    given.write(folder, draw)
    assert given.saved is not None
    words = ("cache", "-c", "lab/dpo", "--out", "cache", f"data.paths=[{given.saved.name}]")
    validate = ("data", "validate", given.saved.name)
    return [Step(Command(draw.choice((words, validate)), out=("cache",), resumes=True))]


def boards(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Ratings and boards of others."""
    copy(world, folder, "v.csv", "arena", "board.csv", "votes.parquet")
    board = draw.choice(("board.csv", "arena/ratings.json"))
    any_file(draw, folder / board)
    words: tuple[str, ...] = ("arena", "v.csv", "--out", "new", "--compare-board", board)
    if draw.random() < 0.4:
        words = ("signals", "votes.parquet", "--kind", draw.choice(("paper", "truncated")), "--arena", "arena", "--out", "new")
    return [Step(Command(words, out=("new",)))]
