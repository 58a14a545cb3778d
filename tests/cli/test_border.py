"""What newcomers do wrong at the command line: one sentence with place and remedy, exit code 2."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from finepref.cli import config
from finepref.core import rows
from finepref.core.errors import ConfigError, InputError
from finepref.core.rows import load_plugin, row_fault
from finepref.formats.records import read_yaml
from finepref.train.config import load_config

VOTES = "model_a,model_b,winner\na,b,model_a\nb,c,model_a\nc,a,model_b\na,b,model_b\n"
GAP = """import finepref, numpy as np
from finepref.arena.gap import GapRow
calls = []
def late(ratings):
    calls.append(1)
    return np.zeros((3, 3)) if len(calls) == 1 else {later}
finepref.register(gap=GapRow(name="late", table=late, about="right when it is checked, wrong afterwards"))
"""


def finepref(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "votes.csv").write_text(VOTES)
    return subprocess.run([sys.executable, "-m", "finepref", *words], cwd=folder, capture_output=True, text=True)


def refused(folder: Path, *words: str) -> str:
    done = finepref(folder, *words)
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("finepref: "), done.stderr
    assert not [path for path in folder.rglob("*") if path.name.startswith(".finepref-")]
    return last


@pytest.mark.parametrize("out", ["held.txt", "held.txt/below", "/proc/none", "n" * 300, "circle/below"])
def test_an_out_folder_that_cannot_be_is_a_sentence_and_the_file_stays(tmp_path: Path, out: str) -> None:
    (tmp_path / "held.txt").write_text("mine")
    (tmp_path / "circle").symlink_to("circle")
    assert "name another file or folder" in refused(tmp_path, "arena", "votes.csv", "--out", out)
    assert (tmp_path / "held.txt").read_text() == "mine"


def test_a_folder_where_a_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    rows = [f"{row},p{n},{n}a.png,{n}b.png" for n, row in enumerate(VOTES.splitlines()[1:])]
    (tmp_path / "pairs.csv").write_text("\n".join(["model_a,model_b,winner,prompt,image_a,image_b", *rows]))
    assert finepref(tmp_path, "arena", "votes.csv", "--out", "arena").returncode == 0
    said = refused(tmp_path, "signals", "pairs.csv", "--kind", "paper", "--arena", "arena", "--out", "held")
    assert "held: " in said


def test_a_folder_where_a_file_is_read(tmp_path: Path) -> None:
    from finepref.core.errors import InputError
    from finepref.core.files import read_json, read_parquet

    for read in (read_json, read_parquet):
        with pytest.raises(InputError, match="a folder, not a file; name a file"):
            read(tmp_path)


@pytest.mark.parametrize("later", ["np.zeros((2, 2))", "np.full((3, 3), np.nan)", "1 / 0"])
def test_a_gap_that_fails_on_the_real_ratings_names_its_file(tmp_path: Path, later: str) -> None:
    (tmp_path / "late.py").write_text(GAP.format(later=later))
    said = refused(tmp_path, "arena", "votes.csv", "--out", "arena", "--plugin", "late.py")
    assert "late.py" in said
    assert "correct the plugin" in said
    assert not (tmp_path / "arena").exists()


@pytest.mark.parametrize(("plugin", "words"), [("exits.py", "SystemExit"), ("json", "it registers no row")])
def test_a_plugin_that_ends_the_program_or_registers_nothing(tmp_path: Path, plugin: str, words: str) -> None:
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(0)\n")
    assert words in refused(tmp_path, "methods", "--plugin", plugin)


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        ("folder", "a folder, not a plugin; name a Python file NAME.py"),
        ("folder.py", "a folder, not a plugin"),
        ("./folder", "a folder, not a plugin"),
        ("votes.csv", "not a Python file"),
        ("no_such_module_here", "no such module"),
        ("gone.py", "no such file"),
        ("imports.py", "imports.py:1: ModuleNotFoundError"),
    ],
)
def test_what_is_no_plugin_is_named_for_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "votes.csv").write_text(VOTES)
    (tmp_path / "imports.py").write_text("import no_such_module_here\n")
    with pytest.raises(InputError, match=re.escape(words)):
        load_plugin(plugin)


@pytest.mark.parametrize("axis", ["gap", "objective", "scorer"])
def test_a_row_that_fails_while_it_is_used_is_one_sentence_on_every_axis(
    tmp_path: Path, axis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only the gap: whichever of its functions the error passed."""
    monkeypatch.setattr(rows.table(axis), "_rows", {**rows.table(axis)})  # what is registered here ends with the test
    for name in ("_ROWS", "_LOADED"):
        monkeypatch.setattr(rows, name, getattr(rows, name).copy())
    file = tmp_path / f"late_{axis}.py"
    made = {
        "gap": "from finepref.arena.gap import GapRow as Row\nrow = dict(name='late_gap', table=use)",
        "objective": "from finepref.objectives.table import OBJECTIVES\nimport dataclasses\n"
        "Row = lambda **given: dataclasses.replace(OBJECTIVES['dpo'], **given)\nrow = dict(name='late_objective')",
        "scorer": "from finepref.evaluate.scorers.scorer_rows import SCORERS\nimport dataclasses\n"
        "Row = lambda **given: dataclasses.replace(SCORERS['lab-true'], **given)\nrow = dict(name='late_scorer')",
    }[axis]
    file.write_text(
        "import finepref, numpy as np\n\n\ndef use(ratings, fail=False):\n"
        "    return 1 / 0 if fail else np.zeros((3, 3))\n\n\n"
        f"{made}\nfinepref.register({axis}=Row(**row))\n"
    )
    load_plugin(file)
    use = next(module.use for module in sys.modules.values() if getattr(module, "__file__", "") == str(file))
    with pytest.raises(ZeroDivisionError) as caught:
        use(None, fail=True)
    assert str(row_fault(caught.value)) == f"{file}:5: ZeroDivisionError: division by zero; correct the plugin"
    with pytest.raises(ZeroDivisionError) as other:
        1 / 0  # noqa: B018
    assert row_fault(other.value) is None


def test_a_column_that_stands_twice(tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("model_a,model_b,winner,winner\na,b,model_a,model_b\n")
    said = refused(tmp_path, "arena", "twice.csv", "--out", "arena")
    assert "column 'winner' stands twice; keep one" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-c", "lab/dpo", "-c", "on.yaml"), "on_lab is not a mapping of sections"),
        (("-c", "lab/arenap"), "did you mean 'lab/arenapo'?"),
        (("-c", "arenap"), "did you mean 'arenapo'?"),
        (("lab/arenapo",), "write -c lab/arenapo"),
        (("-c", "lab/arenapo", "objective.betta=2"), "unknown key 'objective.betta'; did you mean 'beta'?"),
        (("-c", "lab/arenapo", "guard.zzz=2"), "unknown key 'guard.zzz'"),
        (("-c", "lab/dpo", "guard.name=sdpo", "objective.name=kto"), "so a guard has no effect"),
        (("-c", "lab/dpo", "objective.beta=.inf"), "command line: objective.beta = inf is not possible"),
        (("-c", "lab/dpo", "objective.beta=1e39"), "objective.beta = 1e+39 is not possible; float32 ends"),
        (("-c", "lab/dpo", "signal.margin_scale=1e39"), "signal.margin_scale = 1e+39 is not possible; float32 ends"),
        (("-c", "lab/dpo", "-c", "folder"), "folder: a folder, not a file; name a file"),
    ],
)
def test_config_refuses_what_train_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("on.yaml").write_text("on_lab: 4\n")
    Path("folder").mkdir()
    layers = [word for before, word in itertools.pairwise(("", *words)) if before == "-c"]
    with pytest.raises(ConfigError, match=re.escape(said)):
        config.command(layers, [word for word in words if word != "-c" and word not in layers])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"train: 5", "mine.yaml, line 1: train = 5 is no mapping; write `key: value` lines below `train:`"),
        (b"train: [1, 2]", "mine.yaml, line 1: train = [1, 2] is no mapping"),
        (b"train:\n", "mine.yaml, line 1: train is empty; write `key: value` lines"),
        (b"data: {columns: 3}", "mine.yaml, line 1: data.columns = 3 is no mapping"),
        (b"lora: 4", "mine.yaml, line 1: lora = 4 is no mapping"),
        (b"train:\n  seed: [1\n", "mine.yaml, line 3, column 1: not valid YAML: expected ',' or ']'"),
        (b"train:\n\tseed: 1\n", "mine.yaml, line 2, column 1: not valid YAML: found character"),
        (b"train: {seed: 1} # \xe9", "mine.yaml: not utf-8 text (unexpected end of data); save it as utf-8"),
        (b"train: " + b"[" * 1000, "mine.yaml: not valid YAML: it is nested too deeply"),
        (b"train: {seed: " + b"9" * 6000 + b"}", "not valid YAML: Exceeds the limit (4300 digits)"),
        (b"train: &a {x: *a}", "not valid YAML: more than 100,000 values"),
        (b"train: {compile: !!bool maybe}", "mine.yaml: not valid YAML: "),
        (b"train: {seed: !!timestamp x}", "mine.yaml: not valid YAML: "),
        (b"train: {seed: !!python/name:os.system x}", "could not determine a constructor"),
        (b"a\x00b: 1", "mine.yaml: not valid YAML: "),
    ],
)
def test_a_config_file_that_is_none_is_one_short_sentence(tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "mine.yaml").write_bytes(text)
    with pytest.raises(ConfigError) as error:
        load_config(["lab/dpo", tmp_path / "mine.yaml"])
    sentence = str(error.value)
    assert said in sentence
    assert "; " in sentence
    assert len(sentence.replace(str(tmp_path), "").splitlines()) == 1
    assert len(sentence.replace(str(tmp_path), "")) < 200
    if not text.startswith((b"train: 5", b"train: [1", b"train:\n", b"data", b"lora")) or b"[1\n" in text:
        with pytest.raises(InputError):
            read_yaml(tmp_path / "mine.yaml", remedy="name another")


def test_the_commands_of_a_config_load_its_plugins(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(GAP.format(later="0"))
    done = finepref(tmp_path, "config", "-c", "lab/arenapo", "--plugin", "late.py")
    lines = [line for line in done.stdout.splitlines() if line.strip().startswith(("finepref cache", "finepref train"))]
    assert len(lines) == 2
    assert all(f"--plugin {tmp_path}/late.py" in line for line in lines), done.stdout
