"""A program of a user, as type checkers see it: every `assert_type` holds, and every marked line is an error."""

# pyright: reportUnnecessaryTypeIgnoreComment=true
from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import torch

import finepref as fp
from finepref.arena.ratings import Ratings
from finepref.core.tensors import ObjectiveOutput
from finepref.formats.comparison import Comparison
from finepref.formats.manifest import Manifest
from finepref.formats.preferences import Preferences
from finepref.formats.scores import Scores
from finepref.formats.signals import Signals

votes = fp.read_votes("votes.csv")
ratings = fp.rate(votes, engine="batch")
prefs = fp.read_preferences("pairs.parquet")
assert_type(ratings, Ratings)
assert_type(fp.gaps(votes, ratings, kind="image"), np.ndarray[tuple[Any, ...], np.dtype[np.float64]])
assert_type(prefs, Preferences)
assert_type(fp.make_signals(prefs, kind="paper", ratings=ratings), Signals)

trainer = fp.Trainer("lab", prefs, method="dpo", out="run", callbacks=[fp.Callback()])
assert_type(trainer.train(), Path)
assert_type(fp.generate({"base": "lab"}, "lab-eval", [0], "eval"), Manifest)
assert_type(fp.score("eval", ["lab-true"]), Scores)
assert_type(fp.compare("eval", "base"), Comparison)
assert_type(fp.report("eval", "report.html"), Path)


def step(pred: fp.PairPrediction, signal: fp.PairSignal) -> None:
    """A part of a loop of one's own."""
    assert_type(fp.objectives.dpo(pred, signal, beta=2000.0), ObjectiveOutput)
    assert_type(fp.guards.sdpo(pred, mu=1.0), tuple[fp.PairPrediction, dict[str, torch.Tensor]])
    fp.objectives.dpo(pred, signal)  # type: ignore[call-arg]
    fp.guards.sdpo(pred, mu=1.0, scope="none")  # type: ignore[arg-type]


fp.rate(3)  # type: ignore[arg-type]
fp.rates()  # type: ignore[attr-defined]
