"""Rows of one's own: what is refused, in one sentence with its place, and what the provenance says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from finepref.cli.main import load_plugins
from finepref.core.errors import InputError
from finepref.core.provenance import provenance, sha256_file
from finepref.core.rows import BASES, Named, RowTable, load_plugin, register

HEAD = "import finepref\nfrom finepref.core.rows import Named\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\n1 / 0\n", r"bad\.py:2: ZeroDivisionError: division by zero"),
        ("x = (\n", r"bad\.py: SyntaxError: .*line 1"),
        ("x = 1\n", r"bad\.py: it registers no row"),
        (HEAD + "finepref.register(base=Named(name='x'))\n", r"bad\.py:3: TypeError: .* 'load'"),
        (HEAD + "finepref.register(bases=Named(name='x', load=str))\n", "unknown axis 'bases'; did you mean 'base'"),
        (HEAD + "finepref.register(base=3)\n", r"bad\.py: int is not a row of this axis; give a .*Named"),
        (HEAD + "for _ in 1, 2:\n    finepref.register(base=Named(name='a twin', load=str))\n", "the name is taken by"),
    ],
)
def test_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """A plugin that cannot be used says where and why."""
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        load_plugin(path)


@pytest.mark.parametrize("spec", ["absent.py", "absent_module", "absent.module"])
def test_absent(spec: str) -> None:
    """Neither a file nor a module."""
    with pytest.raises(InputError, match=r"no such file|no such module"):
        load_plugin(spec)


def test_plugin_option() -> None:
    """It is taken out of the command line wherever it stands, up to `--`; without a name it is refused."""
    assert load_plugins(["train", "-c", "x", "--", "--plugin"]) == ["train", "-c", "x", "--", "--plugin"]
    for words in (["train", "--plugin"], ["--plugin=", "train"]):
        with pytest.raises(InputError, match="--plugin: no name"):
            load_plugins(words)


def test_provenance_names_the_file(tmp_path: Path) -> None:
    """Module, file, hash and rows; a plugin is imported once."""
    path = tmp_path / "mine.py"
    path.write_text(HEAD + "finepref.register(base=Named(name='of-a-file', load=lambda: 'folder'))\n")
    load_plugin(path)
    load_plugin(path)
    assert BASES["of-a-file"].load() == "folder"
    (record,) = [row for row in provenance()["plugins"] if row["path"] == str(path)]
    assert record["sha256"] == sha256_file(path)
    assert record["rows"] == {"base": ["of-a-file"]}


def test_registered_by_a_script() -> None:
    """Without a plugin the module that calls is the origin."""
    register(base=Named(name="of-this-test", load=str))
    assert BASES.origin["of-this-test"].path == str(Path(__file__).resolve())


def test_a_table_offers_the_nearest_name() -> None:
    """Of its own rows and of those that follow from others."""
    made = RowTable("test", Named, [Named(name="one", load=int)], also=lambda: [Named(name="three", load=int)])
    assert list(made) == ["one", "three"]
    with pytest.raises(InputError, match="unknown test 'thre'; did you mean 'three'"):
        made["thre"]


def test_no_torch() -> None:
    """Registering a name loads nothing heavy."""
    code = "import finepref, sys; finepref.register; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
