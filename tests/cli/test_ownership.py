"""A person's files: no command changes one byte of them, with --overwrite or without; its own older result it may."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import finepref as fp
import own_pairs
import tiny
import tiny_ksort
from finepref.core.errors import InputError
from finepref.core.files import write_text
from finepref.core.locks import LOCK, locked, temporary
from finepref.core.outfolders import MARKER, MOVING, recover, replacing, whole_folder
from finepref.core.ownership import own_file
from finepref.formats.folders import ARENA, RUN
from finepref.train.checkpoint import checkpoints

VOTES = "model_a,model_b,winner\na,b,model_a\nb,c,model_a\nc,a,model_b\na,b,model_b\n"
PROMPT = "a blue square on a navy background"
COUNTS = "comparison,metric,prompts,n,win_rate\nnew/old,pickscore,papv2,500,61.2\n"
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
            "converted": ("data", "convert", self.pairs, "--parts", out),
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


SOME = 4  # places among a person's files that each command is tried at, about; 99 for all (707 tries)
FOLDERS = (
    "arena", "cache", "reference", "train", "resume", "generate", "diffusers", "merged", "pair", "lab model", "scorer",
    "ksort", "demo", "study", "study work", "converted",
)  # fmt: skip
FILES = {
    "signals": (".parquet", ""), "convert": (".parquet", ""), "score": (".parquet",), "lab votes": (".parquet", ""),
    "next": (".csv", ".jsonl", ".parquet"), "compare": (".json", ""), "counts": (".json", ""), "report": (".html", ""),
    "kohya": (".safetensors",), "prompts": (".json", ""), "study page": (".md", ""),
}  # fmt: skip
OVERWRITES = {
    "arena", "cache", "reference", "train", "generate", "diffusers", "merged", "pair", "scorer", "study", "study work",
    "signals", "convert", "score", "lab votes", "kohya", "converted",
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("place")
    made = Place(root, must)
    must(*made.words("cache", root / "cache"))
    must(*made.words("train", root / "run"))
    must(*made.words("generate", root / "eval"))
    must("score", root / "eval", "--scorer", "lab-true")
    must("compare", root / "eval", "--baseline", "base", "--resamples", 100)
    return made


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
        (folder / name).write_text(f'{{"mine": "{name}"}}\n')
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
        inside = sorted({mine / Path(each).parts[0] for each in MINE if "/" in each})
        return [mine, *inside[:: 1 + len(inside) // SOME], mine / "notes.txt"]
    suffixes = FILES[name]
    names = [each for each in (*MINE, *TABLES) if Path(each).suffix in suffixes or ("" in suffixes and "/" not in each)]
    names = names[:: 1 + len(names) // SOME]
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


def old_style(name: str, out: Path) -> None:
    """What the version before would have left: no finepref.json."""
    if name in FOLDERS:
        (out / MARKER).unlink()


WITHOUT = {"reference", "resume", "demo", "study", "study work", "study page", "ksort", "scorer", "lab votes"}
"""Tried in tests of their own, as they cost more than a moment."""
UNKNOWN = {"diffusers", "merged", "converted"}
"""The version before wrote nothing into these that only we write, or did not write them."""


@pytest.mark.parametrize("name", [name for name in (*FOLDERS, *FILES) if name not in WITHOUT])
def test_own_results_are_made_and_replaced(place: Place, tmp_path: Path, name: str) -> None:
    """In a new folder, in an empty one, over an older result, and over one of the version before."""
    suffix = "" if name in FOLDERS else FILES[name][0]
    out = tmp_path / "new" / f"out{suffix}"
    if name in FOLDERS and (place.root / {"train": "run", "generate": "eval"}.get(name, name)).exists():
        out.mkdir(parents=True)  # that of `place` was made in a new folder
    must(*place.words(name, out))
    more = ("--overwrite",) if name in OVERWRITES else ()
    if name in FOLDERS:
        assert (out / MARKER).is_file()
        if name in ("arena", "pair", "diffusers", "lab model"):
            empty = tmp_path / "empty"
            empty.mkdir()
            must(*place.words(name, empty))
        (out / "notes.txt").write_text("mine")
        (out / "figures").mkdir()
        (out / "figures" / "mine.png").write_text("mine")
    before = content(out) if out.is_dir() else {}
    must(*place.words(name, out), *more)
    if name in FOLDERS:
        assert before.keys() == content(out).keys()
        old_style(name, out)
        if name in UNKNOWN:
            with untouched(out):
                assert call(*place.words(name, out), *more)[0] == 2
        else:
            must(*place.words(name, out), *more)
        assert (out / "notes.txt").read_text() == (out / "figures" / "mine.png").read_text() == "mine"
    assert not list(tmp_path.rglob(".finepref-*"))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_proposals_that_a_person_filled_in_are_his(place: Place, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"ask{suffix}"
    must(*place.words("next", out))
    must(*place.words("next", out))
    out.write_text(out.read_text() + "a vote\n")
    with untouched(tmp_path):
        assert call(*place.words("next", out))[0] == 2


@pytest.mark.parametrize("name", [*FILES])
def test_an_output_that_is_an_input(place: Place, tmp_path: Path, name: str) -> None:
    """By its name, by a link, by a hard link; a link that leads nowhere is not made to lead somewhere."""
    source = {
        "signals": "pairs/metadata.csv", "convert": "pairs/metadata.csv", "score": "pairs/metadata.csv",
        "next": "votes.csv", "compare": "eval/scores.parquet", "counts": "counts.csv", "kohya": "run/run.json",
        "report": "eval/comparison.json", "prompts": "benchmark/Image/inst000/result.json", "lab votes": "votes.csv",
        "study page": "votes.csv",
    }[name]  # fmt: skip
    read = place.root / source
    (tmp_path / f"link{read.suffix}").symlink_to(read)
    (tmp_path / f"nowhere{read.suffix}").symlink_to(tmp_path / "missing")
    os.link(read, tmp_path / f"hard{read.suffix}")
    with untouched(place.root), untouched(tmp_path):
        for out in (read, *(tmp_path / f"{each}{read.suffix}" for each in ("link", "nowhere", "hard"))):
            for more in ((), ("--overwrite",)) if name in OVERWRITES else ((),):
                code, said = call(*place.words(name, out), *more)
                assert code == 2, (out, said)
    (tmp_path / f"hard{read.suffix}").unlink()


def test_folders_that_hold_an_input_or_lie_in_one(place: Place, tmp_path: Path) -> None:
    shutil.copytree(place.pairs, tmp_path / "arena" / "pairs")
    (tmp_path / "link").symlink_to(place.root / "run")
    tries: list[tuple[object, ...]] = [
        ("generate", "--model", f"m={place.root / 'run'}", "--prompts", place.root / "prompts.txt", "--out", out)
        for out in (place.root / "run", place.root / "run" / "eval", tmp_path / "link", place.root)
    ]
    tries += [
        ("export", place.root / "run", "--format", "merged", "--out", place.root / "run", "--overwrite"),
        ("export", place.root / "run", "--format", "diffusers", "--out", place.root / "model", "--overwrite"),
        ("data", "pair", place.root / "eval", "--scorer", "lab-true", "--out", place.root / "eval" / "pairs"),
        ("arena", place.root / "pairs", "--out", place.root / "pairs" / "arena"),
        ("cache", "-c", place.config, "--out", place.root / "pairs" / "cache", "--overwrite"),
        ("train", "-c", place.config, "--out", place.root / "model", "--overwrite"),
    ]
    with untouched(place.root):
        for words in tries:
            code, said = call(*words)
            assert code == 2, (words, said)


def test_the_old_result_stands_until_the_new_one_is_whole(place: Place, tmp_path: Path) -> None:
    good = tmp_path / "good.parquet"
    must(*place.words("convert", good))
    (tmp_path / "bad.csv").write_text("chosen_file_name,rejected_file_name,prompt\nno.png,none.png,p\n")
    for name in ("run", "cache", "eval"):
        shutil.copytree(place.root / name, tmp_path / name)
    run, config = tmp_path / "run", ("-c", place.config)
    tries: list[tuple[object, ...]] = [
        ("data", "convert", tmp_path / "bad.csv", "--out", good, "--overwrite"),
        ("train", *config, "objective.betta=1", "--out", run, "--overwrite"),
        ("train", *config, "train.learning_rate=-1", "--out", run, "--overwrite"),
        ("train", *config, f"signal.file={tmp_path / 'none.parquet'}", "--out", run, "--overwrite"),
        ("train", *config, f"data.paths=[{tmp_path / 'bad.csv'}]", "cache.folder=null", "--out", run, "--overwrite"),
        ("train", *config, "train.learning_rate=1e30", "train.max_steps=40", "--out", run, "--overwrite"),
        ("cache", *config, f"data.paths=[{tmp_path / 'bad.csv'}]", "--out", tmp_path / "cache", "--overwrite"),
        ("generate", "--model", f"base={tmp_path}", "--prompts", "a b", "--out", tmp_path / "eval", "--overwrite"),
    ]
    before = content(tmp_path)
    for words in tries:
        code, said = call(*words)
        assert code in (1, 2), (words, said)
    shutil.rmtree(run / "cache")  # of other data, with the list of what was left out of them
    assert content(tmp_path) == before


def kill(words: tuple[object, ...], after: str) -> None:
    """A command in a process of its own that is killed when it first gives something a name that ends so."""
    child = os.fork()
    if child == 0:
        replace = os.replace

        def killed(source: Path, target: Path) -> None:
            replace(source, target)
            if str(target).endswith(after):
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = killed  # type: ignore[assignment]
        call(*words)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_what_was_killed_can_be_run_again(place: Place, tmp_path: Path) -> None:
    """Between the files of one result too; what it left goes, and what a process that lives holds stays."""
    out = tmp_path / "pairs"
    must(*place.words("pair", out))
    (out / "notes.txt").write_text("mine")
    whole = content(out).keys()
    for after in ("/pairs.parquet", "/rewards.parquet", "pairs/pairs.parquet", "pairs/rewards.parquet"):
        words = (*place.words("pair", out), "--overwrite")
        kill(words, after)
        assert list(out.glob(".finepref-*"))
        assert "is there already" in call(*place.words("pair", out), "--choose", "best_worst")[1]
        same = [pq.read_table(out / name)["pair_id"].to_pylist()[0] for name in ("pairs.parquet", "rewards.parquet")]
        assert same[0] == same[1]
        must(*words)
        assert content(out).keys() == whole
    with temporary(out) as held, temporary(out, folder=True) as folder:
        (folder / "half").write_text("half")
        must(*place.words("pair", out), "--overwrite")
        assert held.is_file()
        assert (folder / "half").is_file()


def test_two_writers(place: Place, tmp_path: Path) -> None:
    """The second is refused in one sentence, also as a command; a lock of a dead process holds nobody off."""
    for name in ("arena", "train", "pair"):
        out = tmp_path / name
        out.mkdir()
        with locked(out / LOCK, place=out):
            code, said = call(*place.words(name, out))
        assert code == 2
        assert "another finepref is writing here" in said
        (out / LOCK).write_text("")
        assert sorted(path.name for path in out.iterdir()) == [LOCK]
    must(*place.words("arena", tmp_path / "arena"))


@pytest.mark.parametrize("after", ["moving/config.yaml", ".finepref-before", "run/config.yaml", "moving"])
def test_an_older_run_comes_back_when_a_new_one_is_killed_before_it_can_go_on(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """Also when it is killed while it is set aside, or while it is put back."""
    run = tmp_path / "run"
    shutil.copytree(place.root / "run", run)
    before, replace = content(tmp_path), os.replace

    class Killed(BaseException):
        """Ends a process that then does nothing more."""

    def begin() -> None:
        with replacing(run, RUN, again=True, begun=lambda _: after != "moving", whole=lambda _: False):
            write_text(run / "config.yaml", "new")
            raise Killed

    dead = []

    def killed(source: Path, target: Path) -> None:
        if dead:
            raise Killed
        replace(source, target)
        if str(target).endswith(after):
            dead.append(True)
            raise Killed

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(Killed):
        begin()
    monkeypatch.undo()
    assert content(tmp_path) != before
    recover(run, RUN, begun=lambda folder: bool(checkpoints(folder)))
    assert content(tmp_path) == before


def test_interrupted(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C and SIGTERM leave the old result and nothing else."""
    from finepref.data import convert

    out = tmp_path / "out.parquet"
    must(*place.words("convert", out))

    for stop in (KeyboardInterrupt, SystemExit):

        def ended(*_: object, stop: type[BaseException] = stop) -> Iterator[object]:
            raise stop(143)
            yield

        monkeypatch.setattr(convert, "_with_images", ended)
        with untouched(tmp_path), pytest.raises(stop):
            convert.convert(place.pairs, out, overwrite=True)


def fp_pipeline(place: Place) -> object:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(place.root / "model")


def test_from_python(place: Place, tmp_path: Path) -> None:
    """The functions that commands call refuse as they do."""
    mine = make_mine(tmp_path / "mine")
    with untouched(mine):
        trainer = fp.Trainer(fp_pipeline(place), place.pairs, method="dpo", out=mine, train={"max_steps": 1})
        for write in (
            lambda: trainer.train(overwrite=True),
            lambda: fp.generate({"m": str(place.root / "model")}, ["a"], [0], mine, overwrite=True),
            lambda: fp.compare(place.root / "eval", "base", out=mine / "comparison.json"),
            lambda: fp.report(place.root / "eval", mine / "report.html"),
            lambda: fp.report(place.root / "eval", mine / "README.html"),
        ):
            with pytest.raises(InputError, match="of finepref's"):
                write()


def test_a_file_of_a_person_in_a_folder_of_ours(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a name that we use but did not write: refused by name where it would be replaced, else left alone."""
    monkeypatch.chdir(tmp_path)
    must(*place.words("arena", "."))
    for name in ("validation.json", "quarantine.jsonl"):
        (tmp_path / name).write_text("mine")
    must(*place.words("arena", "."), "--overwrite", "--engine", "online")
    assert (tmp_path / "quarantine.jsonl").read_text() == "mine"
    with untouched(tmp_path):
        code, said = call(*place.words("arena", "."), "--overwrite", "--validate", 2)
        assert code == 2
        assert "validation.json: finepref did not write it" in said
    shutil.copytree(place.root / "eval", tmp_path / "eval")
    pq.write_table(pa.table({"mine": [1]}), tmp_path / "eval" / "scores.parquet")
    with untouched(tmp_path):
        for more in ((), ("--overwrite",)):
            code, said = call("score", "eval", "--scorer", "lab-true", *more)
            assert code == 2
            assert "eval/scores.parquet: it is not scores of finepref's" in said


def test_a_folder_that_says_what_it_does_not_hold(place: Place, tmp_path: Path) -> None:
    """A finepref.json that lists files outside, is of another kind, or is no JSON, gives nobody a right to remove."""
    out = tmp_path / "out"
    (tmp_path / "mine.txt").write_text("mine")
    must(*place.words("arena", out))
    listed = json.loads((out / MARKER).read_text())
    (out / MARKER).write_text(json.dumps({**listed, "files": ["../mine.txt", str(tmp_path / "mine.txt")]}))
    code, said = call(*place.words("arena", out), "--overwrite", "--engine", "online")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    for held in ("{", "[]", json.dumps({**listed, "kind": "run"})):
        (out / MARKER).write_text(held)
        with untouched(tmp_path):
            code, said = call(*place.words("arena", out), "--overwrite")
            assert code == 2
            assert MARKER in said


def test_a_table_that_a_person_made_from_ours_is_theirs(place: Place, tmp_path: Path) -> None:
    """pyarrow keeps the footer when a column is added or renamed; a column of a later version may be missing."""
    out = tmp_path / "out.parquet"
    must(*place.words("convert", out))
    ours = pq.read_table(out)
    pq.write_table(ours.select(ours.column_names[:8]), out)
    must(*place.words("convert", out), "--overwrite")
    names = [*ours.column_names[:-1], "mine"]
    for theirs in (ours.append_column("mine", ours["pair_id"]), ours.rename_columns(names), ours.select(["prompt"])):
        pq.write_table(theirs.replace_schema_metadata(ours.schema.metadata), out)
        with untouched(tmp_path):
            code, said = call(*place.words("convert", out), "--overwrite")
            assert (code, "not a preference set of finepref's" in said) == (2, True)


@pytest.mark.parametrize("links", [True, False])
def test_what_appears_while_a_file_is_made_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Also where the file system has no hard links; the second writing of one hold replaces the first."""

    def no_links(*_: object, **__: object) -> None:
        raise PermissionError

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    out = tmp_path / "out.txt"
    with own_file(out, lambda _: False) as held:
        out.write_text("mine")
        with pytest.raises(InputError, match="it appeared while it was being made"):
            write_text(held, "ours")
    assert [*tmp_path.iterdir()] == [out]
    assert out.read_text() == "mine"
    out.unlink()
    with own_file(out, lambda _: False):
        write_text(out, "first")
        write_text(out, "second")
    assert out.read_text() == "second"
    assert [*tmp_path.iterdir()] == [out]


def test_a_kill_lists_nothing_that_was_not_written(tmp_path: Path) -> None:
    """A person's file of a name that a killed command had not written yet is still a person's, before and after."""
    child = os.fork()
    if child == 0:
        os.replace = _killed_at_moving(os.replace)  # type: ignore[assignment]
        with whole_folder(tmp_path / "out", ARENA) as folder:
            (folder / "validation.json").write_text("ours")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert "validation.json" not in json.loads((tmp_path / "out" / MARKER).read_text()).get("files", [])
    (tmp_path / "out" / "validation.json").write_text("mine")
    for _ in range(2):
        with (
            pytest.raises(InputError, match=r"validation\.json: finepref did not write it"),
            whole_folder(tmp_path / "out", ARENA) as folder,
        ):
            (folder / "validation.json").write_text("ours")
    assert (tmp_path / "out" / "validation.json").read_text() == "mine"


def _killed_at_moving(replace: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    def killed(source: Path, target: Path) -> None:
        if str(target).endswith(MOVING):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    return killed
