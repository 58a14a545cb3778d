"""What the comment at the top of a shipped config says: commands, and `key value: source` of every value."""

from __future__ import annotations

import re
import shlex

from finepref.train.config import SHIPPED

COMMANDS = ("hf", "cat", "torchrun", "finepref")


def header(name: str) -> str:
    """The comment at the top of a config, without the comment signs, broken lines joined."""
    lines = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line[1:].removeprefix(" ") for line in lines if line.startswith("#"))
    return re.sub(r"\\\n\s+", "", text)


def launch(name: str) -> list[list[str]]:
    """The commands of a header, as words: its lines between the title and the sources."""
    lines = header(name).partition("Sources of the values\n")[0].splitlines()[1:]
    return [shlex.split(line) for line in lines if re.match(r"  \S", line)]


def sources(name: str) -> list[tuple[dict[str, str], str]]:
    """The lines `key value, key value: source` of a header: what each key is said to be, and the words about it."""
    block = header(name).partition("Sources of the values\n")[2].partition("Notes\n")[0]
    found = []
    for line in re.sub(r"\n {6}", " ", block).splitlines():
        head, _, words = line.strip().partition(": ")
        assert re.fullmatch(r"\w+ \S+(, \w+ \S+)*", head), line
        pairs = [entry.split(" ") for entry in head.split(", ")]
        assert len({key for key, _ in pairs}) == len(pairs), line
        found.append((dict(pairs), words))
    return found


def signal_words(name: str) -> list[str]:
    """The words of the `finepref signals` command of a header; empty where it has none."""
    return next((words for words in launch(name) if words[:2] == ["finepref", "signals"]), [])
