"""Files of signals and rewards that something else wrote: checked before they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finepref.core.errors import InputError
from finepref.formats.rewards import read_rewards
from finepref.formats.signals import read_signals


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("winner", 2, "neither 0 nor 1"),
        ("weight", -1.0, "negative or not finite"),
        ("weight", float("nan"), "negative or not finite"),
        ("margin_0", float("inf"), "margin is not finite"),
        ("label_1", 3, "none of 0, 1 and null"),
        ("pair_id", "same", "occurs twice"),
        ("margin_1", None, "'margin_1' is missing"),
    ],
)
def test_broken_sidecar(tmp_path: Path, column: str, value: Any, fault: str) -> None:
    """A sidecar that was written by something else is checked before it is used."""
    columns = {
        "pair_id": pa.array(["a", "b"]),
        "winner": pa.array([0, 0], pa.int8()),
        "margin_0": pa.array([1.0, 1.0], pa.float32()),
        "margin_1": pa.array([1.0, 1.0], pa.float32()),
        "weight": pa.array([1.0, 1.0], pa.float32()),
        "label_0": pa.array([None, None], pa.int8()),
        "label_1": pa.array([None, None], pa.int8()),
    }
    if value is None:
        del columns[column]
    else:
        columns[column] = pa.array([value, value], columns[column].type)
    pq.write_table(pa.table(columns), tmp_path / "s.parquet")
    with pytest.raises(InputError, match=fault):
        read_signals(tmp_path / "s.parquet")


def write_rewards(path: Path, **changed: Any) -> Path:
    columns = {
        "pair_id": ["r0", "r0", "r1", "r1"],
        "side": [0, 1, 1, 0],
        "scorer": ["s"] * 4,
        "fingerprint": ["f"] * 4,
        "value": [0.5, 0.25, None, 0.75],
    } | changed
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path)
    return path


def test_read_rewards(tmp_path: Path) -> None:
    """Aligned with the votes by pair and side; a missing score is nan, never a neighbour's."""
    found = read_rewards(write_rewards(tmp_path / "r.parquet"), ["r1", "other", "r0"])
    np.testing.assert_array_equal(found.score_0, [0.75, np.nan, 0.5])
    np.testing.assert_array_equal(found.score_1, [np.nan, np.nan, 0.25])
    several = write_rewards(tmp_path / "several.parquet", scorer=["s", "s", "t", "t"])
    assert read_rewards(several, ["r0"], scorer="s").score_0.tolist() == [0.5]
    for changed, asked, fault in (
        ({"scorer": ["s", "s", "t", "t"]}, {}, "choose one with --scorer"),
        ({}, {"scorer": "pickscor"}, "no scores of 'pickscor'"),
        ({"fingerprint": ["f", "f", "g", "g"]}, {}, "2 versions"),
        ({"side": [0, 1, 2, 0]}, {}, "neither 0 nor 1"),
        ({"pair_id": ["x", "x", "y", "y"]}, {}, "none of its pairs"),
        ({"value": [0.5, float("inf"), 0.1, 0.2]}, {}, "infinite"),
        ({"pair_id": ["r0", "r0", "r0", "r0"], "side": [0, 1, 0, 1]}, {}, "two scores for one image"),
    ):
        path = write_rewards(tmp_path / "wrong.parquet", **changed)
        with pytest.raises(InputError, match=fault):
            read_rewards(path, ["r0", "r1"], **asked)
