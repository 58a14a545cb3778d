"""What newcomers do wrong at the command line: one sentence with place and remedy, exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("out", ["held.txt", "held.txt/below", "/proc/none"])
def test_an_out_folder_that_cannot_be_is_a_sentence_and_the_file_stays(tmp_path: Path, out: str) -> None:
    (tmp_path / "held.txt").write_text("mine")
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
        (("-c", "lab/arenapo", "objective.betta=2"), "unknown key 'betta'; did you mean 'beta'?"),
        (("-c", "lab/arenapo", "guard.zzz=2"), "unknown key 'zzz'"),
    ],
)
def test_config_refuses_what_train_refuses(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "on.yaml").write_text("on_lab: 4\n")
    assert said in refused(tmp_path, "config", *words)


def test_the_commands_of_a_config_load_its_plugins(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(GAP.format(later="0"))
    done = finepref(tmp_path, "config", "-c", "lab/arenapo", "--plugin", "late.py")
    lines = [line for line in done.stdout.splitlines() if line.strip().startswith(("finepref cache", "finepref train"))]
    assert len(lines) == 2
    assert all(f"--plugin {tmp_path}/late.py" in line for line in lines), done.stdout
