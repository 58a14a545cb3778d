"""Kinds of input that people write: votes, pairs, pictures, prompts, printed rates."""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path

from fuzz.damage import any_bytes, misplaced
from fuzz.preferences import preferences
from fuzz.reading import arena_failures, folder_failures, pairs_failures, prompts_failures, signals_failures
from fuzz.running import Check, Command, Done, Failure, Step
from fuzz.tables import save
from fuzz.votes import HOSTILE, PLAIN, QUOTED, Ballot, Truth, names_of, votes

Draw = random.Random


def arena_of_votes(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Votes of every dialect and form, rated."""
    given = votes(draw)
    (folder / given.saved.name).write_bytes(given.saved.content)
    own = draw.choice(
        (
            (),
            (),
            (),
            ("--engine", "online"),
            ("--ties", "half"),
            ("--ties", "drop"),
            ("--link", "logit"),
            ("--prior", "empirical-bayes"),
            ("--interval", "bootstrap"),
            ("--validate", "2"),
            ("--json",),
        )
    )
    words = ("arena", given.saved.name, "--out", "arena", *given.options, *own)
    given.truth.known = given.truth.known and "--ties" not in own
    decided = any(wins for wins, _, _ in given.truth.sure.values())
    expect = 0 if given.plain and not own and decided else None
    command = Command(words, out=("arena",), expect=expect, data="--json" in words, ascii=draw.random() < 0.02)
    return [Step(command, lambda done: arena_failures(folder / "arena", done, given.truth, about=given.about))]


def damaged_votes(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Votes after an accident: whatever is read, in a sentence."""
    given = votes(draw, plain=draw.random() < 0.6)
    path = folder / given.saved.name
    path.write_bytes(any_bytes(draw, given.saved.content))
    if draw.random() < 0.1:
        misplaced(draw, path)
    skip = ("--skip-bad-rows",) if draw.random() < 0.5 else ()
    command = draw.choice(
        (
            ("arena", path.name, "--out", "arena", *skip),
            ("next", path.name, "--out", "next.csv"),
            ("data", "inspect", path.name),
        )
    )
    return [Step(Command(command, out=("arena", "next.csv")))]


def folder_of_votes(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Several files: all of them, or a refusal that names what is not read; copies and hidden files never twice."""
    models, truths = draw.sample(PLAIN, 3), {}
    (folder / "f").mkdir()
    for number in range(draw.choice((1, 2, 3))):
        rows, truth = [], Truth()
        for _ in range(draw.choice((1, 4))):
            left, right = draw.sample(models, 2)
            vote = Ballot(left, right, draw.choice((1, -1)), "", "")
            rows.append({"left": left, "right": right, "winner": "left" if vote.outcome > 0 else "right"})
            truth.add(vote)
            truth.rows += 1
        saved = save(draw, rows, ["left", "right", "winner"], stem="abc"[number])
        (folder / "f" / saved.name).write_bytes(saved.content)
        truths[saved.name] = truth
    _stow(draw, folder / "f", next(iter(truths)), truths)
    words = ("arena", draw.choice(("f", "f", "f/*")), "--out", "arena")
    if draw.random() < 0.2:
        name = next(iter(truths))
        words = ("arena", f"f/{name}", f"f/{name}", "--out", "arena")
        truths = {name: replace(truths[name], refuse="the same file twice")}
    return [Step(Command(words, out=("arena",)), lambda done: folder_failures(folder / "arena", done, truths))]


def _stow(draw: Draw, folder: Path, name: str, truths: dict[str, Truth]) -> None:
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
        truths[name].refuse = "a copy of a file beside it"  # of one that is read
    elif way == "notes":
        (folder / "README.md").write_text("# votes\n")


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
        command = Command(
            ("data", "convert", path, "--out", "out.parquet", *given.options),
            out=("out.parquet", "out.parquet.quarantine.jsonl"),
            expect=expect,
        )
        known = truth is not None
        return [
            Step(
                command,
                lambda done: pairs_failures(folder / "out.parquet", done, truth or [], given.void) if known else [],
            )
        ]
    words = draw.choice(
        (
            ("data", "inspect", path),
            ("data", "validate", path, "--json"),
            ("arena", path, "--out", "arena"),
            ("signals", path, "--kind", "uniform", "--out", "s.parquet"),
            ("signals", path, "--kind", "kto", "--out", "s.parquet"),
        )
    )
    checks: dict[str, Check] = {"arena": lambda done: arena_failures(folder / "arena", done, given.votes)}
    if truth is not None and "uniform" in words:
        checks["signals"] = lambda done: signals_failures(folder / "s.parquet", truth)
    command = Command((*words, *given.options), out=("arena", "s.parquet"), data="--json" in words)
    return [Step(command, checks.get(words[0]))]


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


def prompt_sets(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Files of prompts, whole and damaged."""
    texts = draw.sample(
        ["a cat", 'a "dog"', "a, b", "é 日本", "", "  ", "two\nlines", "x" * 3000, *HOSTILE], draw.randint(1, 6)
    )
    column = draw.choice(("prompt", "Prompt", "caption", "text", "PROMPT ", "prompts"))
    saved = save(draw, [{column: text, "style": "photo"} for text in texts], [column, "style"], stem="p")
    name, content = saved.name, saved.content
    if draw.random() < 0.2:
        name, content = "p.txt", "\n".join(texts).encode("utf-8", "replace")
    known = not {*texts} & {*HOSTILE, "", "  ", "two\nlines"}
    if draw.random() < 0.4:
        known, content = False, any_bytes(draw, content)
    (folder / name).write_bytes(content)
    if known and draw.random() < 0.05:
        known = False
        misplaced(draw, folder / name)
    words = ("generate", "--model", "b=lab", "--prompts", name, "--limit", "2", "--steps", "1", "--out", "eval")
    check: Check = lambda done: prompts_failures(folder / "eval", texts[:2]) if known else []  # noqa: E731
    return [Step(Command(words, out=("eval",), resumes=True), check)]


def counts(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Printed win rates."""
    rows = [
        {
            "comparison": "ours",
            "metric": draw.choice(("m", *HOSTILE)),
            "prompts": "p",
            "n": draw.choice((400, 1, 0, -1, 2**70, 1.5)),
            "win_rate": draw.choice((56.2, 0, 100, 101, -1, "nan", "inf", 0.5, "")),
        }
        for _ in range(draw.randint(1, 4))
    ]
    saved = save(draw, rows, list(rows[0]), stem="rates")
    content = any_bytes(draw, saved.content) if draw.random() < 0.4 else saved.content
    (folder / saved.name).write_bytes(content)
    words = ("compare", "--from-counts", saved.name, *(("--out", "c.json") if draw.random() < 0.5 else ()))
    return [Step(Command(words, out=("c.json",)))]


def hostile_pages(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Names that are code elsewhere: inert on pages and in tables."""
    names = [*names_of(draw, 3, plain=True)[:2], draw.choice((*HOSTILE, *QUOTED))]
    rows = [
        {
            "left": left,
            "right": right,
            "winner": draw.choice(("left", "right", "tie")),
            "voter": draw.choice((*HOSTILE, "v")),
        }
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
    return [Failure("wrong", f"a page holds {name!r} as it is") for name in raw if any(name in text for text in texts)][
        :1
    ]


def _formulas(folder: Path) -> list[Failure]:
    """Cells of exported tables that a spreadsheet would run; numbers are none."""
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
