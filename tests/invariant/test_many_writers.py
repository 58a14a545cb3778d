"""Any number of processes make images in one folder, one of them is killed: every image once, as from one process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation_folder import Table, make_folder
from finepref.core.errors import InputError
from finepref.core.rng import numpy_generator
from finepref.evaluate import score as scoring
from finepref.evaluate.generate import generate
from finepref.evaluate.named_models import NamedModel
from finepref.evaluate.score import score
from finepref.evaluate.units import ImageUnit, maker
from finepref.formats.manifest import LINES, PARTS, read_manifest, read_rows
from finepref.formats.prompts import PromptSet
from finepref.formats.scores import PARTS as SCORE_PARTS
from finepref.formats.scores import read_scores

PROMPTS = PromptSet("few", tuple(f"prompt {row}" for row in range(23)))
SEEDS = (0, 3)


class Slow:
    """A pipeline whose pictures tell of the whole call, as those of real ones do in their last bits."""

    safety_checker = None

    def __init__(self, seconds: float) -> None:
        self.seconds, self.components = seconds, dict[str, Any]()
        self.scheduler = type("FakeScheduler", (), {})()

    def set_progress_bar_config(self, disable: bool) -> None:
        pass

    def __call__(self, *, prompt: list[str], generator: list[torch.Generator], **_: Any) -> Any:
        time.sleep(self.seconds)
        noise = np.stack([torch.randint(0, 90, (8, 8, 3), generator=each).numpy() for each in generator])
        pictures = [Image.fromarray((each + noise.mean(0)).astype(np.uint8)) for each in noise]
        return type("Result", (), {"images": pictures})


def models(seconds: float = 0.0) -> dict[str, NamedModel]:
    def named(name: str) -> NamedModel:
        return NamedModel(lambda *_: Slow(seconds), origin=name, fingerprint=name, rewards=())

    return {name: named(name) for name in ("a", "b")}


def work(out: Path, wait: float, rank: int, batch_size: int) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "4"}
    time.sleep(wait)
    generate(models(0.01), PROMPTS, SEEDS, out, batch_size=batch_size)


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


@pytest.mark.parametrize("attempt", range(6))
def test_four_processes_and_a_kill(tmp_path: Path, attempt: int) -> None:
    generate(models(), PROMPTS, SEEDS, tmp_path / "one", batch_size=3)
    chance, out = numpy_generator(attempt, "many writers"), tmp_path / "four"
    fork = multiprocessing.get_context("fork")
    waits = chance.uniform(0.0, 0.2, 4)
    hands = [fork.Process(target=work, args=(out, wait, rank, 3)) for rank, wait in enumerate(waits)]
    for hand in hands:
        hand.start()
    time.sleep(float(waits[1] + chance.uniform(0.05, 0.3)))
    assert hands[1].pid is not None
    os.kill(hands[1].pid, signal.SIGKILL)
    for hand in hands:
        hand.join()
    assert [hand.exitcode for hand in hands if hand is not hands[1]] == [0, 0, 0]
    assert pictures(out) == pictures(tmp_path / "one")
    assert (out / LINES).read_text() == (tmp_path / "one" / LINES).read_text()
    assert not (out / PARTS).exists()
    assert not [*out.rglob(".finepref-*.tmp")]


def judge_as(rank: int, out: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "3"}
    judge(out)


def judge(out: Path) -> None:
    rows = read_rows(out)
    for name in ("metric", "other"):
        score(
            out,
            [SlowTable(rows, lambda row: row.prompt_index + row.seed / 10, name=name, fingerprint=name)],
            batch_size=3,
        )


class SlowTable(Table):
    def score(self, images: Any, prompts: Any) -> Any:
        time.sleep(0.01)
        return super().score(images, prompts)


@pytest.mark.parametrize("attempt", range(4))
def test_three_processes_score_and_one_is_killed(tmp_path: Path, attempt: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "UNIT", 5)
    prompts = {"set": [f"a dog {row}" for row in range(20)]}
    for name in ("one", "three"):
        make_folder(tmp_path / name, prompts, seeds=(0, 1))
    judge(tmp_path / "one")
    out, fork = tmp_path / "three", multiprocessing.get_context("fork")
    hands = [fork.Process(target=judge_as, args=(rank, out)) for rank in range(3)]
    for hand in hands:
        hand.start()
    time.sleep(float(numpy_generator(attempt, "many scorers").uniform(0.05, 0.4)))
    assert hands[1].pid is not None
    os.kill(hands[1].pid, signal.SIGKILL)
    for hand in hands:
        hand.join()
    assert [hands[0].exitcode, hands[2].exitcode] == [0, 0]
    assert read_scores(out) == read_scores(tmp_path / "one")
    assert not (out / SCORE_PARTS).exists()


def test_what_a_killed_process_scored_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "UNIT", 4)
    rows = make_folder(tmp_path, {"set": ["a dog"] * 10})

    class Fails(Table):
        def score(self, images: Any, prompts: Any) -> Any:
            if self.seen >= 8:
                raise KeyboardInterrupt
            return super().score(images, prompts)

    first, other, again = (make(rows, lambda row: float(row.prompt_index)) for make in (Fails, Table, Table))
    with pytest.raises(KeyboardInterrupt):
        score(tmp_path, [first])
    other.name, other.fingerprint = "other", "print of another"
    score(tmp_path, [other])
    assert (tmp_path / SCORE_PARTS).is_dir()
    score(tmp_path, [again])
    assert first.seen + again.seen == other.seen == 20
    assert not (tmp_path / SCORE_PARTS).exists()
    assert {row.scorer for row in read_scores(tmp_path).rows} == {"metric", "other"}


def test_another_batch_size_shares_the_units(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    hands = [fork.Process(target=work, args=(tmp_path / "out", 0.1 * at, at, size)) for at, size in enumerate((4, 3))]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    assert [hand.exitcode for hand in hands] == [0, 0]
    found = read_manifest(tmp_path / "out")
    assert len(found.rows) == 2 * len(PROMPTS) * len(SEEDS)
    assert set(found.about.blocks.values()) in ({4}, {3})


def test_other_settings_are_refused_while_the_first_images_are_made(tmp_path: Path) -> None:
    out = tmp_path / "out"

    class Nested(Slow):
        def __call__(self, **given: Any) -> Any:
            for asked in ({"steps": 9}, {"steps": 9, "overwrite": True}):
                with pytest.raises(InputError, match=r"other weights|another finepref"):
                    generate({"a": models()["a"]}, PROMPTS, SEEDS, out, **asked)
            return super().__call__(**given)

    source = NamedModel(lambda *_: Nested(0.0), origin="a", fingerprint="a", rewards=())
    generate({"a": source}, PROMPTS.head(2), SEEDS, out, steps=5)
    assert {row.steps for row in read_rows(out)} == {5}


def test_a_torn_part_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    generate({"a": models()["a"]}, PROMPTS, SEEDS, tmp_path, batch_size=4)
    whole = (tmp_path / LINES).read_text()
    lines = whole.splitlines(keepends=True)
    (tmp_path / LINES).write_text("".join(lines[:20]))
    (tmp_path / PARTS).mkdir()
    (tmp_path / PARTS / "wkilled.jsonl").write_text("".join(lines[20:30]) + lines[30][:17])
    assert len(read_rows(tmp_path)) == 30
    generate({"a": models()["a"]}, PROMPTS, SEEDS, tmp_path, batch_size=4)
    assert (tmp_path / LINES).read_text() == whole


def test_a_unit_that_fails_is_free_again(tmp_path: Path) -> None:
    unit = ImageUnit("a", "few", 0, (0, 1))

    def fails(_: ImageUnit) -> Any:
        raise KeyError

    with maker(tmp_path / "out") as hand, pytest.raises(KeyError):
        next(hand.work([unit], fails))
    with maker(tmp_path / "out") as hand, pytest.raises(KeyError):
        next(hand.work([unit], fails))
