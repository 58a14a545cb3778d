"""Data that several processes convert together: the pairs, their order and ids, and the list of one process."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_shared_reading import KINDS, flat, votes
from tqdm import tqdm

from finepref.core.errors import InputError
from finepref.core.rng import numpy_generator
from finepref.data import convertedparts
from finepref.data.convert import convert
from finepref.data.convertedparts import convert_together
from finepref.data.inspect import inspect_together
from finepref.formats import stretches
from finepref.formats.preferences import read_preferences
from finepref.formats.reading import AS_IT_IS


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretches, "LEAST", 4)


def one_process(data: Path, folder: Path) -> tuple[tuple[int, int], list[dict[str, Any]], str]:
    """What `convert` counts, its rows, and its list of pairs left out."""
    counts = convert(data, folder / "one.parquet")
    return counts, rows(folder / "one.parquet"), (folder / "one.parquet.quarantine.jsonl").read_text()


def rows(path: Path) -> list[dict[str, Any]]:
    """The pairs of a file, or of the files of a folder in order."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def check(out: Path, one: tuple[tuple[int, int], list[dict[str, Any]], str]) -> None:
    counts, pairs, left_out = one
    assert rows(out) == pairs
    assert len(pairs) == counts[0]
    assert out.with_name(f"{out.name}.quarantine.jsonl").read_text() == left_out
    assert len([*out.glob("*.parquet")]) > 8
    assert not out.with_name(f"{out.name}.parts").exists()
    assert not [*out.parent.rglob(".finepref-*")]


@pytest.mark.parametrize(("own", "kind"), KINDS)
def test_pairs_by_several_are_those_of_one(tmp_path: Path, own: bool, kind: str) -> None:
    data, out = votes(tmp_path / "votes", own=own, kind=kind), tmp_path / "pairs"
    one = one_process(data, tmp_path)
    assert one[0] == (56, 4)
    assert len({row["pair_id"] for row in one[1]}) == 56
    with ThreadPoolExecutor(3) as pool:
        assert [*pool.map(lambda _: convert_together(data, out), range(3))] == [one[0]] * 3
    check(out, one)
    for index in (2, 0, 1):
        assert not (tmp_path / "shares").exists()
        found = convert_together(data, tmp_path / "shares", shard=(index, 3))
        assert found == (one[0] if index == 1 else None)
    check(tmp_path / "shares", one)
    assert [pair.pair_id for pair in read_preferences(out)] == [row["pair_id"] for row in one[1]]


def test_a_result_stays_and_other_data_are_refused(tmp_path: Path) -> None:
    data, out = votes(tmp_path / "votes", own=True), tmp_path / "pairs"
    one = one_process(data, tmp_path)
    convert_together(data, out)
    before = {path.name: path.stat().st_ino for path in out.iterdir()}
    assert convert_together(data, out) == convert_together(data, out, shard=(1, 2)) == one[0]
    assert {path.name: path.stat().st_ino for path in out.iterdir()} == before
    (out / "000003.parquet").unlink()
    assert convert_together(data, out, overwrite=True) == one[0]
    check(out, one)
    (out / "notes.txt").write_text("mine")
    (data / "b.parquet").unlink()
    with pytest.raises(InputError, match="it holds other pairs already"):
        convert_together(data, out)
    check(out, one)
    assert convert_together(data, out, overwrite=True) is not None
    assert 0 < len(rows(out)) < len(one[1])
    assert (out / "notes.txt").read_text() == "mine"


def test_shares_that_others_finished_stay(tmp_path: Path) -> None:
    """Other words, tables that were written again, the same ones elsewhere, another command: refused, nothing goes."""
    data, out = votes(tmp_path / "votes", own=True), tmp_path / "pairs"
    assert convert_together(data, out, shard=(0, 2)) is None
    made = {path: path.read_bytes() for path in (tmp_path / "pairs.parts" / "read").iterdir()}
    assert made
    shutil.copytree(data, tmp_path / "elsewhere")
    voters = replace(AS_IT_IS, columns={"voter": "prompt"})
    asked: list[Callable[[], object]] = [
        lambda: convert_together(data, out, shard=(1, 2), reading=voters),
        lambda: convert_together(tmp_path / "elsewhere", out, shard=(1, 2)),
        lambda: inspect_together(data, tmp_path / "pairs.parts"),
    ]
    for ask in asked:
        with pytest.raises(InputError, match=r"finished parts of other data.*; nothing was changed"):
            ask()
        assert {path: path.read_bytes() for path in (tmp_path / "pairs.parts" / "read").iterdir()} == made
    state = (data / "a.parquet").stat()
    os.utime(data / "a.parquet", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    with pytest.raises(InputError, match="finished parts of other data"):
        convert_together(data, out, shard=(1, 2))
    os.utime(data / "a.parquet", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert convert_together(data, out, shard=(1, 2)) is not None


def test_of_two_with_other_words_the_second_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = votes(tmp_path / "votes", own=True), tmp_path / "pairs"
    real, voters = convertedparts._Work.join, replace(AS_IT_IS, columns={"voter": "prompt"})

    def late(self: Any, *given: Any, **named: Any) -> Any:
        monkeypatch.setattr(convertedparts._Work, "join", real)
        convert_together(data, out, reading=voters)  # another that ends first
        return real(self, *given, **named)

    monkeypatch.setattr(convertedparts._Work, "join", late)
    with pytest.raises(InputError, match="it holds other pairs already"):
        convert_together(data, out)
    assert {row["voter"] for row in rows(out)} == {row["prompt"] for row in rows(out)}


def test_a_share_that_is_run_again_reads_its_pictures_again(tmp_path: Path) -> None:
    data, out = votes(tmp_path / "votes", own=False, kind="jsonl"), tmp_path / "pairs"
    assert convert_together(data, out, shard=(0, 2)) is None
    for path in data.glob("*.png"):
        path.write_bytes(flat((200, 1, 1)))
    assert convert_together(data, out, shard=(0, 2)) is None
    assert convert_together(data, out, shard=(1, 2)) == (59, 1)  # the prompt
    assert {row["image_0"] for row in rows(out)} == {flat((200, 1, 1))}
    check(out, one_process(data, tmp_path))


def test_of_a_row_all_that_is_wrong_is_said(tmp_path: Path) -> None:
    """Of several processes as of one: a picture that is not there, and one that is none."""
    good = {"prompt": "a", "chosen_file_name": "a.png", "rejected_file_name": "b.png"}
    named = [good, {**good, "chosen_file_name": "none.png", "rejected_file_name": "no.png"}, good]
    (tmp_path / "v").mkdir()
    for name in ("a", "b"):
        (tmp_path / "v" / f"{name}.png").write_bytes(flat((ord(name), 0, 0)))
    (tmp_path / "v" / "no.png").write_bytes(b"no picture")
    pq.write_table(pa.Table.from_pylist(named), tmp_path / "v" / "pairs.parquet")
    _, pairs, left_out = one_process(tmp_path / "v" / "pairs.parquet", tmp_path)
    assert convert_together(tmp_path / "v" / "pairs.parquet", tmp_path / "out") == (2, 1)
    assert left_out == (tmp_path / "out.quarantine.jsonl").read_text()
    assert left_out.index("image_0: ") < left_out.index("image_1: ")
    assert rows(tmp_path / "out") == pairs


def test_nothing_usable_leaves_nothing(tmp_path: Path) -> None:
    row = {"chosen_file_name": "a.png", "rejected_file_name": "b.png", "prompt": "p"}
    pq.write_table(pa.Table.from_pylist([row] * 9), tmp_path / "v.parquet", row_group_size=1)
    with pytest.raises(InputError, match="no pair is usable"):
        convert_together(tmp_path / "v.parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def work(data: Path, out: Path, wait: float, rank: int) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "3"}
    tqdm.set_lock(threading.RLock())  # else forks share one, which who is killed may hold
    usable = convertedparts._Work._usable

    def slow(self: Any, read: Any) -> Any:
        for pair in usable(self, read):
            time.sleep(0.002)
            yield pair

    convertedparts._Work._usable = slow  # type: ignore[method-assign]
    time.sleep(wait)
    convert_together(data, out)


@pytest.mark.parametrize("attempt", range(4))
def test_three_processes_and_a_kill(tmp_path: Path, attempt: int) -> None:
    data, out = votes(tmp_path / "votes", own=attempt % 2 == 0), tmp_path / "pairs"
    one = one_process(data, tmp_path)
    chance, fork = numpy_generator(attempt, "many converters"), multiprocessing.get_context("fork")
    waits = chance.uniform(0.0, 0.1, 3)
    hands = [fork.Process(target=work, args=(data, out, wait, rank)) for rank, wait in enumerate(waits)]
    for hand in hands:
        hand.start()
    time.sleep(float(waits[1] + chance.uniform(0.02, 0.15)))
    assert hands[1].pid is not None
    os.kill(hands[1].pid, signal.SIGKILL)
    for hand in hands:
        hand.join()
    assert [hands[0].exitcode, hands[2].exitcode] == [0, 0]
    assert convert_together(data, out) == one[0]  # what it left goes, who was killed last
    check(out, one)
