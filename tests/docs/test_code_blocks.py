"""The code blocks of README, CONTRIBUTING and docs: run page by page in one folder, or checked as far as possible.

A block below `<!-- not run: why -->` is not run: its commands are parsed by the real command line and their configs
resolve; python compiles; `stands in FILE` is looked for in that file. `python THIS_FILE FOLDER` runs all others.
docs/own_rows.md is run by tests/cli/test_own_rows.py, the `console` blocks by tests/unit/test_backbone_pages.py.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

FIRST = ("README.md", "docs/python.md", "docs/evaluation.md")  # others use what these leave
ELSEWHERE = ("docs/own_rows.md",)
FOUND = sorted(str(path.relative_to(ROOT)) for path in [ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
PAGES = [*FIRST, *(page for page in FOUND if page not in (*FIRST, *ELSEWHERE))]
BLOCK = re.compile(r"(?:^<!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
LANGUAGES = {"sh", "python", "yaml", "text", "console"}
COMMAND = re.compile(r"^(\$ )?(finepref|python|make|torchrun|accelerate|pip) ", re.M)
SIZES = ["train.max_steps=2", "train.pairs_per_step=8", "train.micro_batch=8", "train.checkpoint_every=0"]
SMALLER = {
    "lab votes": ["--count", "60", "--prompts", "8"],
    "train -c": SIZES,
    "generate --model": ["--limit", "4", "--steps", "2"],
}
"""What a command is given beside what the page says, so that it takes a second."""


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    why: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(page, text[: found.start("text")].count("\n"), found["language"], found["text"], found["why"] or "")
        for found in BLOCK.finditer(text)
    ]


def commands(block: Block) -> Iterator[list[str]]:
    """The words of every command of a block, without what starts several processes of it and files that it writes."""
    text = re.sub(r"^cat > \S+ <<(\w+)\n.*?^\1$", "", block.text, flags=re.DOTALL | re.MULTILINE)
    for line in text.replace("\\\n", " ").replace("\n$ ", "\n").removeprefix("$ ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] in ("torchrun", "accelerate"):
            words = words[words.index("-m") + 1 :]
        if words:
            yield words


def prepare(folder: Path) -> None:
    """Files that the pages take for the reader's own."""
    import own_pairs
    from finepref.train.config import load_config

    (folder / "run.yaml").write_text(load_config("lab/dpo", SIZES).to_yaml(), encoding="utf-8")
    if not (folder / "docs").exists():
        own_pairs.make_folder(folder / "mine", pairs=3)
        (folder / "docs").symlink_to(ROOT / "docs")


def write_yaml(block: Block, folder: Path) -> None:
    """A block whose first line names a file, as that file."""
    name = named(block)
    assert name.endswith(".yaml"), block.place
    assert isinstance(yaml.safe_load(block.text), dict), block.place
    (folder / name).write_text(block.text, encoding="utf-8")


def named(block: Block) -> str:
    """The file that the first line of a block names, if it names one."""
    return block.text.splitlines()[0].removeprefix("# ")


def smaller(words: list[str]) -> list[str]:
    """A command as the page says it, but for what makes it take a second."""
    instead = SMALLER.get(" ".join(words[1:3]), [])
    options, kept = {word for word in instead if word.startswith("--")}, list[str]()
    for place, word in enumerate(words):
        if word not in options and words[place - 1] not in options:
            kept.append(word)
    return [*kept, *instead]


def run_block(block: Block, names: dict[str, object]) -> None:
    from finepref.cli.main import main

    if block.language == "yaml":
        write_yaml(block, Path())
    elif block.language == "python" and named(block).endswith(".py"):
        Path(named(block)).write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        exec(compile(block.text, block.place, "exec", dont_inherit=True), names)
    elif block.language == "sh":
        for words in commands(block):
            assert words[0] == "finepref", words
            sys.argv = smaller(words)
            try:
                main()
            except SystemExit as stop:
                if stop.code:
                    raise RuntimeError(f"{' '.join(words)}: exit {stop.code}") from None


def run_pages(folder: Path) -> None:
    """Run every block that can be run, in order; a page ends at its first block that fails."""
    os.chdir(folder)
    failed = {}
    for page in PAGES:
        prepare(folder)
        os.environ.pop("FINEPREF_PLUGINS", None)  # of the page before
        names: dict[str, object] = {"__name__": "__main__"}
        for block in blocks(page):
            try:
                if not block.why:
                    run_block(block, names)
            except BaseException:
                failed[page] = f"{block.place}\n{traceback.format_exc()}"
                break
    (folder / "failed.json").write_text(json.dumps(failed))


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], str]:
    """The first failure of every page that has one, and what was printed last."""
    folder = tmp_path_factory.mktemp("pages")
    ran = subprocess.run([sys.executable, __file__, str(folder)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads((folder / "failed.json").read_text()), ran.stderr[-3000:]


@pytest.mark.parametrize("page", [page for page in PAGES if any(not block.why for block in blocks(page))])
def test_runs(page: str, failed: tuple[dict[str, str], str]) -> None:
    """As printed, but smaller, on the lab world."""
    assert page not in failed[0], f"{failed[0][page]}\n{failed[1]}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.why or block.language == "console" for block in blocks(page))]
)
def test_not_run_but_true(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands have these options, configs these keys, scripts and targets are there, python is python."""
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        if block.language == "yaml":
            write_yaml(block, tmp_path)
        elif block.why.startswith("stands in "):
            source = (ROOT / block.why.removeprefix("stands in ")).read_text(encoding="utf-8")
            assert "".join(block.text.split()) in "".join(source.split()), block.place
        elif block.why and block.language == "python":
            compile(block.text, block.place, "exec")
        elif block.language == "console":
            check_command(block.text.splitlines()[0].removeprefix("$ ").split())
        elif block.why:
            assert block.language == "sh", block.place
            for words in commands(block):
                check_command(words)


def check_command(words: list[str]) -> None:
    """Refuse a command that could not start."""
    from typer.main import get_command

    words = " ".join(words).replace("--resume auto", "--resume").split(" ")  # `auto` is a word of its own there

    from finepref.cli.main import build
    from finepref.train.config import load_config

    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), words
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), words
    elif words[0] == "finepref":
        command, rest = get_command(build([words[1]])), words[1:]
        while hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        given = command.make_context(" ".join(words), rest).params
        if given.get("config"):
            load_config(given["config"], given.get("overrides") or ())
    else:
        assert words[:2] == ["pip", "install"], words


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page: str) -> None:
    """Code stands between fences with a language; what is text holds no command."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = blocks(page)
    assert text.count("```") == 2 * len(found)
    assert {block.language for block in found} <= LANGUAGES
    assert not [block.place for block in found if block.language == "text" and COMMAND.search(block.text)]
    assert not re.search(r"\n\n    \S", BLOCK.sub("", text)), "an indented block"


if __name__ == "__main__":
    run_pages(Path(sys.argv[1]))
