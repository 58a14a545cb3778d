"""What a person sees at 80 columns: no wider line, nothing cut; commands that are printed can be typed."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import pty
import re
import shlex
import struct
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer

from evaluation_folder import Table, make_folder
from finepref.cli.ending import command_lines, ends
from finepref.cli.main import COMMANDS, build
from finepref.evaluate.score import score

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def too_wide(text: str) -> list[str]:
    return [line for line in re.split("[\r\n]", text) if len(line) > 80]


def every_command() -> list[list[str]]:
    found: list[list[str]] = [[]]
    app = typer.main.get_command(build())
    for name in COMMANDS:
        inner = getattr(app.commands[name], "commands", {})  # type: ignore[attr-defined]
        found += [[name], *([name, each] for each in inner)]
    return found


def test_help_at_80_columns(look) -> None:
    """No line is wider, and no command's line in a list is cut."""
    for words in every_command():
        code, text = look(*words, "--help")
        assert (code, too_wide(text)) == (0, []), words
        assert not re.search(r"\.\.\.$|…", text.partition("Commands:")[2], re.MULTILINE), (words, text)


@pytest.fixture
def votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    names = ["a-model-of-some-size-0.1", "another-model-of-some-size-0.2", "a-third"]
    rows = [f"{names[i % 3]},{names[(i + 1) % 3]},{'left' if i % 4 else 'right'}" for i in range(60)]
    Path("votes.csv").write_text("left,right,winner\n" + "\n".join(rows) + "\n")
    return Path("votes.csv")


@pytest.mark.parametrize("name", [(), ("arenapo",)])
def test_methods_at_80_columns(look, name: Sequence[str]) -> None:
    code, text = look("methods", *name)
    assert code == 0
    assert not too_wide(text)
    assert "arenapo" in text
    assert "…" not in text


@pytest.mark.parametrize(
    "words",
    ["scorers", "scorers list", "config", "config -c lab/smpo", "config -c sdxl/hpdv3/arenapo", "doctor"],
)
def test_lists_at_80_columns(look, words: str) -> None:
    code, text = look(*words.split())
    assert code in (0, 1)
    assert not too_wide(text)
    assert "…" not in text


def test_arena_and_next_at_80_columns(look, votes: Path) -> None:
    code, text = look("arena", votes)
    assert code == 0
    assert not too_wide(text)
    assert "another-model-of-some-size-0.2" in text
    code, text = look("next", votes, "--count", 3)
    assert code == 0
    assert not too_wide(text)


def test_data_inspect_at_80_columns(look, votes: Path) -> None:
    rows = [f"a picture of a thing,{i}.png,{i + 1}.png,0.5,model-{i % 2},model-{i % 3}" for i in range(3)]
    Path("pairs.csv").write_text("prompt,image_0,image_1,label,model_0,model_1\n" + "\n".join(rows) + "\n")
    code, text = look("data", "inspect", "pairs.csv")
    assert code == 0
    assert not too_wide(text)
    assert "unusable pairs: 3" in text


def test_compare_at_80_columns(look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models = ("base", "a-run-with-a-long-name", "another-run")
    rows = make_folder(Path("eval"), {"some-prompts": ["one", "two", "three"]}, models=models)
    score("eval", [Table(rows, lambda row: len(row.model) + row.prompt_index)])
    code, text = look("compare", "eval", "--baseline", "base")
    assert code == 0
    assert not too_wide(text)
    assert all(name in text for name in models)
    assert text.rstrip().endswith("next: finepref report eval")


def test_a_pipe_gets_no_colour_and_whole_lines(finepref, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, _ = finepref("scorers")
    assert code == 0
    assert "\x1b" not in out
    assert out == finepref("scorers", "list")[1]
    names = [line.split()[0] for line in out.splitlines()]
    assert names == [row["name"] for row in json.loads(finepref("scorers", "--json")[1])]


def test_in_a_true_terminal() -> None:
    """A table has colours in a terminal, none with NO_COLOR, and its width."""
    for columns, extra in ((80, {}), (60, {"NO_COLOR": "1"})):
        text = _typed(["scorers"], columns, extra)
        assert bool(COLOUR.search(text)) == (not extra)
        assert "\x1b" not in COLOUR.sub("", text)
        assert columns - 8 <= max(map(len, COLOUR.sub("", text).splitlines())) <= columns


def _typed(words: Sequence[str], columns: int, extra: dict[str, str]) -> str:
    child, fd = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        os.execve(
            sys.executable, [sys.executable, "-m", "finepref", *words], {**kept, "TERM": "xterm-256color", **extra}
        )
    parts = []
    try:
        while part := os.read(fd, 65536):
            parts.append(part)
    except OSError:  # the other side has ended
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return b"".join(parts).decode().replace("\r\n", "\n")


def following(err: str) -> list[list[str]]:
    """The commands that a stage printed at its end, as a shell takes them."""
    _, _, text = ("\n" + err.replace("\\\n", "")).rpartition("\nnext")
    return [shlex.split(line)[1:] for line in re.findall(r"finepref .*", text)]


def parse(words: Sequence[str]) -> None:
    """See that the command line takes these words."""
    command, left = typer.main.get_command(build(words[:1])), list(words)
    while hasattr(command, "commands"):
        command = command.commands[left.pop(0)]
    command.make_context("finepref", left)


SHORT = {
    "train": ["train.max_steps=2", "train.lr_warmup_steps=0", "train.pairs_per_step=4", "train.micro_batch=4"],
    "generate": ["--limit", "2", "--steps", "2"],
}
TRAINING, JUDGING = ("data", "data", "arena", "signals", "train"), ("generate", "score", "compare", "report")
PUBLISHING = ("export", "publish")


def test_each_stage_names_the_next_one(finepref, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the lab's votes to the report and to what is published by typing what is printed, made shorter here."""
    monkeypatch.chdir(tmp_path)

    def go_on(err: str, name: str) -> str:
        said = following(err)
        for words in said:
            parse(words)
        words = next(each for each in said if each[0] == name)
        code, out, err = finepref(*words, *SHORT.get(name, []))
        assert (code, bool(out)) == (0, True), (words, err)
        assert not re.search("[Ww]arning|Loading|shards", err), err
        return err

    _, _, err = finepref("lab", "votes", "--count", 40, "--prompts", 4)
    for name in TRAINING:
        err = go_on(err, name)
    functools.reduce(go_on, JUDGING, err)
    assert Path("report.html").is_file()
    functools.reduce(go_on, PUBLISHING, err)
    assert Path("runs/arenapo-published/README.md").is_file()


def test_a_command_is_folded_as_a_shell_takes_it(finepref) -> None:
    words = [
        "train",
        "-c",
        "sd15",
        'data.paths=["my votes.csv", "it\'s.csv"]',
        "signal.file=a-rather-long-name.parquet",
    ]
    text = shlex.join(["finepref", *words])
    lines = command_lines(text, most=40)
    assert len(lines) > 2
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == ["finepref", *words]
    assert command_lines(text, most=0) == [text]


def test_a_stage_of_another_command_names_none(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    ends("a.parquet", ("report", "a b"))
    assert capsys.readouterr() == ("a.parquet\n", "next: finepref report 'a b'\n")
    monkeypatch.setenv("FINEPREF_BAR", "0")
    ends("a.parquet", ("report", "a b"))
    assert capsys.readouterr() == ("a.parquet\n", "")
