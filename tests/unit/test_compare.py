"""The paired comparison: pairing, direction, clusters, families, refusals, reproducibility."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats as scipy_stats

from evaluation_folder import Table, make_folder
from finepref.core.errors import InputError
from finepref.core.files import read_parquet, write_parquet
from finepref.core.rng import uniform
from finepref.evaluate.compare import compare, comparison_lines, model_pairs
from finepref.evaluate.score import score
from finepref.evaluate.sheets import read_sheets
from finepref.formats.comparison import Comparison, PairRow, read_comparison
from finepref.formats.manifest import read_rows, write_rows
from finepref.formats.scores import COLUMNS

TEXTS = [f"prompt {n}" for n in range(12)]


def noise(row, scale: float = 1.0) -> float:
    return scale * uniform(3, row.model, row.prompt_index, row.seed)


def scored(folder: Path, value, *, models=("base", "new"), seeds=(0, 1), texts=TEXTS, rewards=None, **options) -> Path:
    rows = make_folder(folder, {"set": texts}, models=models, seeds=seeds, rewards=rewards)
    score(folder, [Table(rows, value, **options)])
    return folder


def compared(folder: Path, baseline: str = "base", **options) -> Comparison:
    return compare(folder, baseline, resamples=options.pop("resamples", 500), **options)


def pair(folder: Path, **options) -> PairRow:
    return compared(folder, **options).pair("new", "base", "metric")


def test_a_constant_shift_wins_everywhere(tmp_path: Path) -> None:
    scored(tmp_path, lambda row: row.prompt_index + 0.25 * (row.model == "new"))
    row = pair(tmp_path)
    assert (row.n, row.prompts, row.wins, row.ties, row.losses, row.missing) == (24, 12, 24, 0, 0, 0)
    assert (row.mean_difference, row.difference_low, row.difference_high) == (0.25, 0.25, 0.25)
    assert (row.win_rate, row.win_high) == (1.0, 1.0)
    assert row.sign_p == pytest.approx(2 * 0.5**12)
    assert row.permutation_p == pytest.approx(2 / 2**12)  # 12 prompts are enumerated


def test_lower_is_better_turns_wins_but_not_the_difference(tmp_path: Path) -> None:
    scored(tmp_path, lambda row: row.prompt_index + 0.25 * (row.model == "new"), higher_is_better=False)
    row = pair(tmp_path)
    assert (row.wins, row.losses, row.win_rate) == (0, 24, 0.0)
    assert row.mean_difference == 0.25


def test_ties_count_half(tmp_path: Path) -> None:
    scored(
        tmp_path,
        lambda row: (
            float(row.model == "new" and row.prompt_index < 3) - (row.model == "new" and row.prompt_index == 11)
        ),
    )
    row = pair(tmp_path)
    assert (row.wins, row.ties, row.losses) == (6, 16, 2)
    assert row.win_rate == pytest.approx((6 + 8) / 24)


def test_both_directions_mirror_each_other(tmp_path: Path) -> None:
    scored(tmp_path, lambda row: noise(row), models=("base", "a", "b"))
    comparison = compared(tmp_path)
    one, other = (comparison.pair(*pair, "metric") for pair in (("a", "b"), ("b", "a")))
    assert one.win_rate == pytest.approx(1 - other.win_rate)
    assert one.win_low == pytest.approx(1 - other.win_high)
    assert one.mean_difference == pytest.approx(-other.mean_difference)
    assert one.difference_low == pytest.approx(-other.difference_high)
    assert one.permutation_p == other.permutation_p
    assert model_pairs(["base", "a", "b"], "base") == [("a", "base"), ("b", "base"), ("a", "b"), ("b", "a")]


def test_pairs_meet_by_row_index_even_where_prompts_repeat(tmp_path: Path) -> None:
    """Rows of one text keep their own images: the difference is constant by row, whatever the text order."""
    texts = ["same", "other", "same", "same"]
    scored(tmp_path, lambda row: 10.0 * row.prompt_index + (row.model == "new"), texts=texts, seeds=(0,))
    row = pair(tmp_path)
    assert (row.n, row.prompts) == (4, 2)  # rows of one text are one cluster
    assert (row.difference_low, row.difference_high) == (1.0, 1.0)


def test_missing_scores_leave_their_pair_out_and_are_counted(tmp_path: Path) -> None:
    scored(
        tmp_path, lambda row: math.nan if row.model == "new" and row.prompt_index < 2 else 1.0 + (row.model == "new")
    )
    comparison = compared(tmp_path)
    row = comparison.pair("new", "base", "metric")
    assert (row.n, row.missing, row.prompts, row.wins) == (20, 4, 10, 20)
    single = {row.model: row for row in comparison.models}
    assert (single["new"].missing, single["base"].missing) == (4, 0)
    assert single["new"].mean == 2.0


def test_single_model_rows_are_plain_statistics(tmp_path: Path) -> None:
    scored(tmp_path, noise)
    row = next(row for row in compared(tmp_path).models if row.model == "base")
    rows = [r for r in make_folder(tmp_path / "again", {"set": TEXTS}, seeds=(0, 1)) if r.model == "base"]
    values = np.array([noise(r) for r in rows])
    assert row.mean == pytest.approx(values.mean())
    assert row.median == pytest.approx(np.median(values))
    assert row.sd == pytest.approx(values.std(ddof=1))
    assert row.seed_means == pytest.approx({str(s): np.mean([noise(r) for r in rows if r.seed == s]) for s in (0, 1)})
    assert row.mean_low < row.mean < row.mean_high


def test_holm_runs_over_the_metrics_and_sets_of_a_pair(tmp_path: Path) -> None:
    rows = make_folder(tmp_path, {"one": TEXTS, "two": TEXTS[:8]}, seeds=(0,))
    score(tmp_path, [Table(rows, noise), Table(rows, lambda r: r.model == "new", name="sure", fingerprint="2")])
    pairs = compared(tmp_path).pairs
    assert [row.family for row in pairs] == [4] * 4
    raw = np.array([row.sign_p for row in pairs])
    order = np.argsort(raw)
    expected = np.maximum.accumulate(np.minimum(1, raw[order] * [4, 3, 2, 1]))
    assert [pairs[k].sign_holm for k in order] == pytest.approx(expected.tolist())


def test_a_metric_used_in_training_is_marked(tmp_path: Path) -> None:
    scored(tmp_path, noise, rewards={"new": ["metric"]})
    comparison = compared(tmp_path)
    assert comparison.metrics["metric"].used_in_training == ("new",)
    assert "metric (trained on)" in comparison_lines(comparison)[1]


def test_a_second_comparison_is_the_same_file_but_for_the_time(tmp_path: Path) -> None:
    scored(tmp_path, noise)
    first, second = compared(tmp_path), compared(tmp_path, out=tmp_path / "x.json")
    assert (read_comparison(tmp_path), read_comparison(tmp_path / "x.json")) == (first, second)
    texts = [json.loads((tmp_path / name).read_text()) for name in ("comparison.json", "x.json")]
    for text in texts:
        del text["provenance"]["created"]
    assert json.dumps(texts[0]) == json.dumps(texts[1])
    assert compared(tmp_path, seed=1).models != first.models


def test_the_interval_of_one_seed_agrees_with_students(tmp_path: Path) -> None:
    texts = [f"p{n}" for n in range(150)]
    scored(tmp_path, lambda row: noise(row, 2.0), texts=texts, seeds=(0,))
    row = pair(tmp_path, resamples=4000)
    rows = make_folder(tmp_path / "again", {"set": texts})
    values = np.array([[noise(r, 2.0) for r in rows if r.model == m] for m in ("new", "base")])
    test = scipy_stats.ttest_rel(values[0], values[1])
    low, high = test.confidence_interval()
    assert row.mean_difference == pytest.approx((low + high) / 2)
    assert (row.difference_low, row.difference_high) == pytest.approx((low, high), abs=0.02)
    assert row.permutation_p == pytest.approx(test.pvalue, abs=0.03)


def _rewrite(folder: Path, change) -> None:
    path = folder / "scores.parquet"
    rows = read_parquet(path).to_pylist()
    change(rows)
    write_parquet(path, pa.Table.from_pylist(rows, schema=COLUMNS), {})


def test_different_fingerprints_are_not_compared_unless_forced(tmp_path: Path) -> None:
    scored(tmp_path, noise)
    _rewrite(tmp_path, lambda rows: [row.update(fingerprint="other") for row in rows if row["model"] == "new"])
    with pytest.raises(InputError, match=r"scores of 'metric' come from 2 different scorers.*--force"):
        compare(tmp_path, "base")
    assert not (tmp_path / "comparison.json").exists()
    forced = compared(tmp_path, force=True)
    assert forced.forced is True
    assert forced.metrics["metric"].fingerprints == ("other", "print-1")


def test_unusable_scores_are_refused(tmp_path: Path) -> None:
    scored(tmp_path, noise)
    with pytest.raises(InputError, match="no model 'bas'; did you mean 'base'"):
        compare(tmp_path, "bas")
    with pytest.raises(InputError, match="no such file"):
        compare(tmp_path / "none", "base")
    _rewrite(tmp_path, lambda rows: rows.append(rows[0]))
    with pytest.raises(InputError, match="is there twice"):
        compare(tmp_path, "base")
    _rewrite(tmp_path, lambda rows: (rows.pop(), rows[-1].update(prompt_sha256="x")))
    with pytest.raises(InputError, match="another prompt"):
        compare(tmp_path, "base")
    _rewrite(tmp_path, lambda rows: rows.clear())
    with pytest.raises(InputError, match="no score"):
        compare(tmp_path, "base")


def test_scores_of_images_that_were_made_again_are_refused(tmp_path: Path) -> None:
    scored(tmp_path, noise)
    rows = read_rows(tmp_path)
    write_rows(tmp_path, [dataclasses.replace(rows[0], image_sha256="new"), *rows[1:]])
    with pytest.raises(InputError, match="the score of base, set 0, seed 0 is of an image that is no longer there"):
        compare(tmp_path, "base")
    write_rows(tmp_path, rows[1:])
    with pytest.raises(InputError, match="no longer there"):
        compare(tmp_path, "base")


def test_one_model_alone_cannot_be_compared(tmp_path: Path) -> None:
    scored(tmp_path, noise, models=("base",))
    with pytest.raises(InputError, match="only one model"):
        compare(tmp_path, "base")


def test_a_model_without_a_metric_is_left_out_of_it(tmp_path: Path) -> None:
    scored(tmp_path, noise, models=("base", "a", "b"))
    _rewrite(
        tmp_path, lambda rows: rows.__setitem__(slice(None), [r for r in rows if r["model"] != "b" or r["seed"] == 1])
    )
    comparison = compared(tmp_path)
    assert comparison.pair("b", "base", "metric").n == 12
    assert comparison.pair("a", "base", "metric").n == 24
    with pytest.raises(InputError, match="0 comparisons"):
        comparison.pair("b", "base", "nothing")


def test_scores_are_read_by_set_model_and_metric(tmp_path: Path) -> None:
    rows = make_folder(tmp_path, {"one": TEXTS[:2], "two": TEXTS[:3]})
    score(tmp_path, [Table(rows, noise)])
    found = read_sheets(tmp_path)
    assert [sheet.prompt_set for sheet in found.sheets] == ["one", "two"]
    assert found.models == ("base", "new")
    assert found.sheets[1].values["new"]["metric"].shape == (3,)
