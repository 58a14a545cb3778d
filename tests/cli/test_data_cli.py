"""The data commands as a user types them: exit codes, one sentence per fault, no torch."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def finepref(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "finepref", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    rows = [
        {"caption": f"p{i}", "jpg_0": png(i), "jpg_1": png(9 + i), "label_0": 1.0, "label_1": 0.0, "ranking_id": i}
        for i in range(4)
    ]
    rows[2]["jpg_0"] = b"broken"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "votes.parquet")
    return tmp_path / "votes.parquet"


def test_inspect_validate_convert(votes: Path, tmp_path: Path) -> None:
    shown = finepref("data", "inspect", votes)
    assert shown.returncode == 0
    assert "format pickapic: 4 pairs, 4 prompts, 7 distinct images" in shown.stdout
    assert "2, pair 2: image_0: text, not a picture" in shown.stdout
    checked = finepref("data", "validate", votes, "--json")
    assert checked.returncode == 1
    assert json.loads(checked.stdout)["problems"] == [
        {"row": 2, "pair_id": "2", "reason": "image_0: text, not a picture", "where": f"{votes}: row 2"}
    ]
    assert "1 pairs are unusable" in checked.stderr
    assert "Traceback" not in checked.stderr
    written = finepref("data", "convert", votes, "--out", tmp_path / "pairs.parquet")
    assert written.returncode == 0
    assert written.stdout.strip() == f"{tmp_path / 'pairs.parquet'}: 3 pairs, 1 left out"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("inspect", "nowhere.parquet"), "finepref: nowhere.parquet: no such file or folder; check the path"),
        (
            ("inspect", "VOTES", "--format", "hpdv3"),
            "column 'path1' is missing; name the column that plays its part; it has caption, jpg_0",
        ),
        (("inspect", "VOTES", "--column", "caption"), "--column: 'caption' is not FIELD=COLUMN"),
        (("convert", "VOTES", "--out", "VOTES"), "it is one of the inputs; name another file"),
        (("convert", "VOTES"), "convert: one of --out and --parts is needed"),
        (
            ("convert", "VOTES", "--out", "x.parquet", "--shard", "0/2"),
            "--out: a file is written by one process; name a folder with --parts",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(votes: Path, arguments: tuple[str, ...], sentence: str) -> None:
    before = votes.read_bytes()
    done = finepref("data", *(votes if each == "VOTES" else each for each in arguments))
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert sentence in last
    assert "Traceback" not in done.stderr
    assert votes.read_bytes() == before


def test_data_commands_load_no_torch(votes: Path) -> None:
    script = (
        "import sys\n"
        "from finepref.cli.main import build\n"
        f"build()(['data', 'inspect', {str(votes)!r}], standalone_mode=False)\n"
        "print([name for name in ('torch', 'diffusers', 'pandas') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
