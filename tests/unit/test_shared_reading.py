"""Data that several processes read together: each part by one of them, and together what one process makes of it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from finepref.core.errors import InputError
from finepref.data.inspect import DataReport, inspect, inspect_together
from finepref.data.readstretches import readers
from finepref.evaluate.scored_pairs import score_preferences
from finepref.formats import stretches
from finepref.formats.preferences import Preferences, Quarantined, read_pair_ids
from finepref.formats.reading import AS_IT_IS
from finepref.formats.stretches import Stretch, open_stretches
from picture_files import encode

ROWS = 60


def flat(colour: tuple[int, int, int]) -> bytes:
    return encode(Image.new("RGB", (8, 8), colour))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretches, "LEAST", 4)


class Red:
    """Scores an image by its red channel."""

    name, fingerprint, higher_is_better = "red", "red-1", True

    def score(self, images: Any, prompts: Any) -> np.ndarray:
        return np.array([float(image.getpixel((0, 0))[0]) for image in images])


def votes(folder: Path, *, own: bool, kind: str = "parquet") -> Path:
    """Pairs whose images recur, some rows of which cannot be used, and which recur whole, in groups of three rows."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    pictures = [flat((n, 0, 0)) for n in range(12)]
    rows = []
    for n in range(ROWS):
        left, right = (0, 1) if n % 7 == 0 else rng.choice(12, 2, replace=False).tolist()
        row = {
            "prompt": f"prompt {n % 7 and n % 5}",
            "image_0": pictures[left],
            "image_1": pictures[right],
            "label": n % 2,
        }
        if n == 13:
            row["prompt"] = " "
        if n in (21, 28):
            row["image_1"] = b"no picture"
        if n == 30:
            row["image_0"] = b""
        rows.append(row | ({"pair_id": f"p{n}"} if own else {}))
    if kind == "parquet":
        half = ROWS // 2
        for name, some in (("a", rows[:half]), ("b", rows[half:])):
            pq.write_table(pa.Table.from_pylist(some), folder / f"{name}.parquet", row_group_size=3)
        return folder
    for number, row in enumerate(rows):
        for side in ("image_0", "image_1"):
            name = f"{number}-{side}.png"
            (folder / name).write_bytes(row[side])
            row[side] = name
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


KINDS = [(True, "parquet"), (False, "parquet"), (False, "jsonl")]


@pytest.mark.parametrize(("own", "kind"), KINDS)
def test_stretches_are_the_whole_and_each_row_once(tmp_path: Path, own: bool, kind: str) -> None:
    data = votes(tmp_path / "votes", own=own, kind=kind)
    opened = open_stretches(data)
    parts = opened.stretches()
    assert len(parts) > 8
    at = [(found.table, found.row) for part in parts for found in opened.read(part)]
    whole = [(found.table, found.row) for n in range(len(opened.sources)) for found in opened.read(Stretch(n))]
    assert at == whole
    assert len(at) == ROWS
    for part in reversed(parts):  # one before the last: the table is gone through anew
        assert [found.row for found in opened.read(part)] == [*range(part.first, part.first + part.rows)]


@pytest.mark.parametrize(("own", "kind"), KINDS)
def test_a_report_by_several_is_that_of_one(tmp_path: Path, own: bool, kind: str) -> None:
    data = votes(tmp_path / "votes", own=own, kind=kind)
    alone = inspect(data, full=True)
    assert (alone.pairs, len(alone.problems)) == (ROWS - 1, 4)
    assert alone.repeated > alone.contradicted > 0
    with ThreadPoolExecutor(3) as pool:
        found = [*pool.map(lambda _: inspect_together(data, tmp_path / "parts", full=True), range(3))]
    assert found == [alone] * 3
    assert not (tmp_path / "parts" / "read").exists()
    assert inspect_together(data, tmp_path / "parts", full=True, shard=(1, 2)) is None
    with pytest.raises(InputError, match=r"it holds \d finished parts of other data.* or of other options"):
        inspect_together(data, tmp_path / "parts", full=False, shard=(0, 2))
    assert inspect_together(data, tmp_path / "parts", full=True, shard=(0, 2)) == alone
    assert not (tmp_path / "parts" / "read").exists()
    shares = [inspect(data, full=True, shard=(index, 3)) for index in range(3)]
    assert sum(each.pairs for each in shares) == alone.pairs
    assert sum(len(each.problems) for each in shares) == len(alone.problems)


def test_rows_that_answer_two_questions_are_refused_wherever_they_are(tmp_path: Path) -> None:
    rows = [
        {"prompt": "x", "image_0": flat((n, 0, 0)), "image_1": flat((n, 1, 0)), "label": 1, "question": question}
        for n, question in enumerate(("a" * 10 + "b" * 10) * 2)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "v.parquet", row_group_size=10)
    with pytest.raises(InputError, match="its votes answer several questions, such as 'a' and 'b'"):
        inspect(tmp_path / "v.parquet")
    assert inspect_together(tmp_path / "v.parquet", tmp_path / "parts", shard=(0, 2)) is None
    with pytest.raises(InputError, match="its votes answer several questions, such as 'a' and 'b'"):
        inspect_together(tmp_path / "v.parquet", tmp_path / "parts", shard=(1, 2))
    assert inspect(tmp_path / "v.parquet", reading=replace(AS_IT_IS, question="a")).pairs == 20


@pytest.mark.parametrize(("own", "kind"), KINDS)
def test_rewards_by_several_are_those_of_one(tmp_path: Path, own: bool, kind: str) -> None:
    data = votes(tmp_path / "votes", own=own, kind=kind)

    def score(name: str, **options: Any) -> list[Quarantined]:
        dropped: list[Quarantined] = []
        score_preferences(Preferences(data=data, quarantine=dropped), [Red()], tmp_path / name, **options)
        return dropped

    assert [each.row for each in score("one.parquet")] == [13]
    one = pq.read_table(tmp_path / "one.parquet").to_pylist()
    ids, _ = read_pair_ids(data)
    usable = [pair_id for number, pair_id in enumerate(ids) if number != 13]
    assert [(row["pair_id"], row["side"]) for row in one] == [(pair_id, side) for pair_id in usable for side in (0, 1)]
    lost = [row["reason"] for row in one if row["value"] != row["value"]]
    assert ["empty" in each or "not a readable" in each for each in lost] == [True] * 3
    with ThreadPoolExecutor(3) as pool:
        [*pool.map(lambda _: score("three.parquet"), range(3))]
    assert repr(pq.read_table(tmp_path / "three.parquet").to_pylist()) == repr(one)
    for index in (2, 0, 1):
        assert not (tmp_path / "shares.parquet").exists()
        score("shares.parquet", shard=(index, 3))
    assert repr(pq.read_table(tmp_path / "shares.parquet").to_pylist()) == repr(one)
    score("two.parquet", shard=(0, 2))
    blue = Red()
    blue.name, blue.fingerprint = "blue", "blue-1"
    with pytest.raises(InputError, match="finished parts of other data"):
        score_preferences(Preferences(data=data, quarantine=[]), [blue], tmp_path / "two.parquet", shard=(1, 2))
    score("two.parquet", shard=(1, 2))
    assert repr(pq.read_table(tmp_path / "two.parquet").to_pylist()) == repr(one)
    (tmp_path / "two.parquet").unlink()
    assert {path.name for path in tmp_path.iterdir()} == {"votes", "one.parquet", "three.parquet", "shares.parquet"}
    with pytest.raises(InputError, match="the prompt is"):
        score_preferences(Preferences(data=data), [Red()], tmp_path / "strict.parquet")


def test_a_share_that_is_run_again_reads_its_pictures_again(tmp_path: Path) -> None:
    """They may have been mended; those of the other share are not looked at again."""
    data = votes(tmp_path / "votes", own=False, kind="jsonl")
    parts, out = tmp_path / "parts", tmp_path / "rewards.parquet"
    dropped: list[Quarantined] = []

    def both(index: int) -> DataReport | None:
        score_preferences(Preferences(data=data, quarantine=dropped), [Red()], out, shard=(index, 2))
        return inspect_together(data, parts, full=True, shard=(index, 2))

    assert both(0) is None
    for path in data.glob("*.png"):
        path.write_bytes(flat((200, 1, 1)))
    assert both(0) is None
    found = both(1)
    assert found is not None
    assert len(found.problems) == 1  # the prompt
    assert {row["value"] for row in pq.read_table(out).to_pylist()} == {200.0}


def test_a_share_without_rows_is_an_empty_report_and_rows_are_counted_over_all_files(tmp_path: Path) -> None:
    data = votes(tmp_path / "votes", own=True)
    whole = {(each.row, each.where) for each in inspect(data, full=True).problems}
    shares = [inspect(data, full=True, shard=(index, 30)) for index in range(30)]
    assert {(each.row, each.where) for share in shares for each in share.problems} == whole
    assert shares[-1].pairs == 0
    assert sum(share.pairs for share in shares) == ROWS - 1


def test_a_share_is_scored_again_while_another_is_at_work(tmp_path: Path) -> None:
    data, out = votes(tmp_path / "votes", own=True), tmp_path / "rewards.parquet"
    score_preferences(Preferences(data=data, quarantine=[]), [Red()], out, shard=(0, 2))
    (part, *_) = sorted((tmp_path / "rewards.parquet.parts" / "read").glob("*.rewards.parquet"))
    before = part.stat().st_mtime_ns
    other = readers(tmp_path / "rewards.parquet.parts", "rewards")
    with other.at_work(begin=lambda: None, leave=lambda: None):
        score_preferences(Preferences(data=data, quarantine=[]), [Red()], out, shard=(0, 2), overwrite=True)
    assert part.stat().st_mtime_ns > before
