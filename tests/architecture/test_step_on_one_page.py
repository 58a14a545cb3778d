"""A training step can be followed: how many of our functions run, in how many files, between optimiser steps."""

from __future__ import annotations

import itertools
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import finepref
from finepref.lab.ballots import make_votes
from finepref.lab.world import prompts
from finepref.train.config import load_config
from finepref.train.run import train_run

PACKAGE = str(Path(finepref.__file__).parent) + "/"
Call = tuple[str, str]  # file, function
WORDS = ("data.paths=[votes.parquet]", "signal={file: null}", "train.max_steps=4", "train.checkpoint_every=0")


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """Our functions between the second and the third optimiser step of the plain case, in order.

    Comprehensions, lambdas and generator expressions are left out. The reading thread counts too.
    """
    folder = tmp_path_factory.mktemp("plain")
    make_votes(folder / "votes.parquet", seed=0, votes=80, prompts=prompts("train")[:8])
    running: list[Call] = []
    between: list[list[Call]] = []

    def profile(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and not code.co_name.startswith("<"):
            running.append((code.co_filename.removeprefix(PACKAGE), code.co_qualname))

    hooks = [
        register_optimizer_step_pre_hook(lambda *_: between.append([*running])),
        register_optimizer_step_post_hook(lambda *_: running.clear()),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = load_config("lab/arenapo", [*WORDS, f"cache.folder={folder / 'cache'}"])
        threading.setprofile(profile)
        sys.setprofile(profile)
        try:
            train_run(config, folder / "run")
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
            for hook in hooks:
                hook.remove()
    assert len(between) == 4
    return between[2]


def test_between_two_optimiser_steps(calls: list[Call]) -> None:
    """At most 45 functions in 14 files, and at most 30 moves from one file to another (75, 21 and 69 on 2026-11-28)."""
    moves = sum(one[0] != other[0] for one, other in itertools.pairwise(calls))
    assert len(set(calls)) <= 45
    assert len({file for file, _ in calls}) <= 14
    assert moves <= 30


def test_from_the_draw_to_the_loss(calls: list[Call]) -> None:
    """From the entry of step.py to the loss at most 20 functions in 6 files."""
    start = calls.index(("train/step.py", "pair_loss"))
    stop = next(at for at, (file, _) in enumerate(calls) if at > start and file == "train/log.py")
    inside = set(calls[start:stop])
    assert ("objectives/dpo.py", "dpo") in inside, "the instrument sees the objective"
    assert len(inside) <= 20
    assert len({file for file, _ in inside}) <= 6
