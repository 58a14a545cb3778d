"""docs/own_rows.md as it is printed: files written, commands run; its rows are listed, checked and named."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

import one_process
from finepref.core.errors import InputError
from finepref.core.files import parquet_meta, read_json
from finepref.core.provenance import sha256_file
from finepref.core.rows import AXES, load_plugin, table
from finepref.formats.run import read_run

PAGE = (Path(__file__).parents[2] / "docs" / "own_rows.md").read_text(encoding="utf-8")
FILES = {text.split("\n")[0].removeprefix("# "): text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)}
TABLES = dict(re.findall(r"`(\w+\.csv)`:\n\n```csv\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
CROWD = (
    "finepref train -c lab/dpo --out crowd-run --plugin my_dialect.py data.paths=[crowd.csv] cache.folder=null "
    "train.max_steps=1 train.pairs_per_step=2 train.checkpoint_every=0"
)
SMALL = "data.paths=[votes.parquet] train.pairs_per_step=8 train.micro_batch=8 train.checkpoint_every=0"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which every command of the page was run, in one process, and what they printed."""
    folder = tmp_path_factory.mktemp("own")
    for name, text in {**FILES, **TABLES}.items():
        (folder / name).write_text(text, encoding="utf-8")
    for number, name in enumerate(re.findall(r"\w+\.png", TABLES["crowd.csv"])):
        Image.new("RGB", (32, 32), (40 * number, 90, 200)).save(folder / name)
    lines = sorted(COMMANDS, key=lambda line: line.startswith("finepref methods"))
    lines = [f"{line} {SMALL}" if line.startswith("finepref train") else line for line in lines]
    code = one_process.CODE + "import os\nprint('for children:', os.environ['FINEPREF_PLUGINS'])\n"
    lines.append(CROWD)
    call = [sys.executable, "-c", code]
    ran = subprocess.run(call, input="\n".join(lines), cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return folder, ran.stdout


def test_short() -> None:
    """25 lines each at most, and one of every axis."""
    assert all(len([line for line in text.splitlines() if line.strip()]) <= 25 for text in FILES.values())
    shown = set(re.findall(r"register\(\s*(\w+)=", PAGE))
    assert shown >= set(AXES)


def test_listed(done: tuple[Path, str]) -> None:
    """`finepref methods` names the rows, their files and their options."""
    folder, printed = done
    for axis, name, file in (
        ("objective", "squared_hinge", "objective"),
        ("guard", "damp", "guard"),
        ("gap", "lead", "gap"),
    ):
        assert f"{axis} {name}: {folder / f'my_{file}.py'}" in printed
    children = printed.rpartition("for children: ")[2].split(":")
    assert str(folder / "my_objective.py") in children
    assert "reach [1.0]  Logit from which a pair costs nothing." in printed


def test_dialect(done: tuple[Path, str]) -> None:
    """A file of one's own dialect is rated: three votes, one of them a tie."""
    ratings = read_json(done[0] / "crowd" / "ratings.json")
    assert {row["name"]: (row["wins"], row["losses"], row["ties"]) for row in ratings["models"]} == {
        "red": (1, 0, 1),
        "green": (1, 0, 1),
        "blue": (0, 2, 0),
    }


def test_dialect_trains(done: tuple[Path, str]) -> None:
    """Its two decided votes, with the images beside the file, are trained on."""
    assert read_run(done[0] / "crowd-run").signals.pairs == 2


def test_gap_and_signal(done: tuple[Path, str]) -> None:
    """A gap of one's own is a column of the arena and a kind of signal; a signal's option acts."""
    folder, _ = done
    assert "lead" in pq.read_schema(folder / "arena" / "gaps.parquet").names
    margins = pq.read_table(folder / "signals.parquet")
    low, high = (margins[name].to_numpy() for name in ("margin_0", "margin_1"))
    assert ((low == 0) ^ (high == 0)).all()
    (record,) = [
        row for row in parquet_meta(folder / "signals.parquet")["provenance"]["plugins"] if "gap" in row["rows"]
    ]
    assert record["rows"] == {"gap": ["lead"]}
    assert record["sha256"] == sha256_file(folder / "my_gap.py")
    weights = pq.read_table(folder / "balanced.parquet")["weight"].to_numpy()
    assert 0 < weights.min() < weights.max() <= 1


def test_trained(done: tuple[Path, str]) -> None:
    """Objective, guard and trajectory of one's own train together, and run.json says where they come from."""
    folder, _ = done
    *_, last = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    assert last["step"] == 2
    assert last["loss"] > 0
    text = json.dumps(read_json(folder / "run" / "run.json"))
    for name in ("my_objective.py", "my_guard.py", "my_trajectory.py"):
        assert sha256_file(folder / name) in text


def test_scored_and_generated(done: tuple[Path, str]) -> None:
    """A scorer and a prompt set of one's own."""
    folder, _ = done
    assert "brightness" in json.dumps(pq.read_table(folder / "rewards.parquet").to_pylist())
    assert len(list((folder / "images").rglob("*.png"))) == 2


@pytest.mark.parametrize(
    ("file", "before", "after", "sentence"),
    [
        ("objective", ".square()", ".square() + u.mean()", "depends on the other pairs of its batch"),
        ("objective", ".square()", ".mean()", "not one finite number a pair"),
        ("objective", "relu(reach - u).square()", "u.sigmoid() ** 0.5", "gradient is not finite"),
        ("objective", "stats=statistics(errors, u)", 'stats={"L_w": [1, 2, 3]}', "'L_w' is not one number a pair"),
        ("objective", "stats=statistics(errors, u)", 'stats={"u": u.mean()}', "'u' is not one number a pair"),
        ("objective", "= advantage_logit(", "= 1 + advantage_logit(", "u is not 0 where policy equals reference"),
        ("objective", "beta, reach)", "beta)", "takes no 'reach'"),
        ("objective", "beta, reach)", "beta, reach, more)", "'more' is none of its options"),
        (
            "objective",
            '"Logit from which a pair costs nothing."',
            '""',
            "option reach has no description",
        ),
        ("guard", "fixed + share", "share", "it changes predictions"),
        (
            "guard",
            "share * (pred",
            "share * pred.policy_w.detach().std() * (pred",
            "depends on the other",
        ),
        ("guard", ", {}", ', {"a": fixed}', "a statistic is not one number a pair"),
        ("trajectory", "noise, denoise", "denoise", "takes no 'noise'"),
        ("gap", "ratings.mu)", "ratings.mu)[0]", r"its table is not \[M, M\]"),
        ("signal", "power)", "powers)", "takes no 'power'"),
        ("scorer", "make=lambda spec, device: Brightness()", "", "nothing makes it"),
    ],
)
def test_rows_are_checked(tmp_path: Path, file: str, before: str, after: str, sentence: str) -> None:
    """A row that breaks what ours hold is refused where it is registered."""
    text = FILES[f"my_{file}.py"]
    assert before in text
    path = tmp_path / f"{file}.py"
    path.write_text(text.replace(before, after, 1).replace('name="', 'name="bad_'))
    with pytest.raises(InputError, match=sentence):
        load_plugin(path)


@pytest.mark.parametrize("axis", ["objective", "guard", "trajectory", "signal", "gap"])
def test_ours_pass_the_same_checks(axis: str) -> None:
    """Except what takes no pairs (kto, plackett_luce), or is a family's (scorers)."""
    for name, row in table(axis).items():
        if name not in ("kto", "plackett_luce"):
            table(axis).check(row)
