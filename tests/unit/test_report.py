"""The report built from files: what it recognises, says, escapes, embeds; without torch."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation_folder import Table, make_folder
from finepref import Votes, rate
from finepref.arena.ratings import save_ratings
from finepref.core.errors import InputError
from finepref.core.rng import uniform
from finepref.evaluate.compare import compare
from finepref.evaluate.score import score
from finepref.formats.manifest import read_record, read_rows, write_record, write_rows
from finepref.formats.metrics import StepMetrics, append_metrics
from finepref.formats.run import write_run
from finepref.report import report
from finepref.report.charts import density
from finepref.report.curves import readable, smoothed
from finepref.report.inputs import find_inputs
from finepref.report.paper_tables import published, user_rows, user_win_rates
from finepref.report.results import headline, primary_metric, summary_sentences
from finepref.report.thumbnails import choose, data_uri, extremes, find_items, read_strips, spread
from finepref.report.wording import decimals, duration, percent, significant
from run_record import run_record

TEXTS = [f"prompt {n}" for n in range(20)]


def evaluation(folder: Path, gain: float, *, models=("base", "new"), sets=None, metrics=("metric",), **options) -> Path:
    rows = make_folder(folder, sets or {"set": TEXTS}, models=models, **options)
    value = {
        row.image_sha256: gain * models.index(row.model) + uniform(1, row.model, row.prompt_index, row.seed)
        for row in rows
    }
    score(folder, [Table(rows, lambda row: value[row.image_sha256], name=n, fingerprint=n) for n in metrics])
    compare(folder, models[0], resamples=200)
    return folder


def run_folder(folder: Path, **about) -> Path:
    write_run(folder, run_record(**about))
    for step in range(1, 10):
        means = {"loss": 0.7 - step / 100}
        append_metrics(folder, StepMetrics(step=step, means=means, pairs=4, by_t=(), grad_norm=1.0, lr=1e-6))
    return folder


def arena_folder(folder: Path) -> Path:
    votes = Votes.from_columns(
        left=["a", "b", "a", "c"] * 5, right=["b", "c", "c", "a"] * 5, outcome=["left", "left", "tie", "right"] * 5
    )
    folder.mkdir(parents=True)
    save_ratings(folder / "ratings.json", rate(votes), provenance={})
    return folder


def one(folder: Path):
    return find_inputs([folder]).evaluations[0]


def test_folders_are_recognised_by_what_they_hold(tmp_path: Path) -> None:
    evaluation(tmp_path / "demo" / "eval", 1.0)
    run_folder(tmp_path / "demo" / "runs" / "x")
    arena_folder(tmp_path / "demo" / "arena")
    found = find_inputs([tmp_path / "demo"])
    assert (len(found.evaluations), [run.name for run in found.runs], len(found.arenas)) == (1, ["x"], 1)
    again = find_inputs([tmp_path / "demo", tmp_path / "demo" / "eval", tmp_path / "demo" / "runs" / "x"])
    assert (len(again.evaluations), len(again.runs)) == (1, 1)


def test_empty_or_damaged_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no arena"):
        find_inputs([tmp_path / "empty"])
    (evaluation(tmp_path / "e", 1.0) / "scores.parquet").unlink()
    with pytest.raises(InputError, match=r"comparison.json is there, scores.parquet is not; run `finepref score`"):
        find_inputs([tmp_path / "e"])
    run_folder(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "pairs": 4}\n{"st')
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 2"):
        find_inputs([tmp_path / "run"])
    with pytest.raises(InputError, match="no such folder"):
        find_inputs([tmp_path / "none"])


@pytest.mark.parametrize(
    ("gain", "said"),
    [(5.0, "new beats base in 100.0 %"), (0.0, "cannot be told apart"), (-5.0, "new falls behind base")],
)
def test_the_headline_says_what_the_interval_says(tmp_path: Path, gain: float, said: str) -> None:
    found = one(evaluation(tmp_path / "e", gain))
    assert said in headline(found.comparison, "metric")
    (sentence,) = summary_sentences(found.comparison, "metric")
    assert "20 prompts, 20 comparisons" in sentence
    row = found.comparison.pairs[0]
    assert f"[{percent(row.win_low)}, {percent(row.win_high)}]" in sentence


def test_the_summary_avoids_a_metric_that_was_trained_on(tmp_path: Path) -> None:
    found = one(evaluation(tmp_path / "e", 1.0, metrics=("first", "second"), rewards={"new": ["first"]}))
    assert primary_metric(found, None) == "second"
    assert primary_metric(found, "first") == "first"
    with pytest.raises(InputError, match="did you mean 'second'"):
        primary_metric(found, "secnd")


def test_the_page_and_its_text_hold_the_numbers_of_the_files(tmp_path: Path) -> None:
    evaluation(tmp_path / "eval", 0.3, seeds=(0, 1), rewards={"new": ["metric"]})
    run_folder(tmp_path / "runs" / "new")
    arena_folder(tmp_path / "arena")
    page = report([tmp_path], tmp_path / "out" / "r.html").read_text(encoding="utf-8")
    text = (tmp_path / "out" / "r.md").read_text(encoding="utf-8")
    row = json.loads((tmp_path / "eval" / "comparison.json").read_text())["pairs"][0]
    for written in (page, text):
        assert f"{100 * row['win_rate']:.1f} %" in written
        assert f"{100 * row['win_low']:.1f} %" in written
    assert "trained on" in page
    assert "trained on" in text
    assert "1.7 min" in page
    for anchor in ("wins", "scores", "images", "training", "arena", "provenance"):
        assert page.count(f'id="{anchor}"') == 1
        assert f'href="#{anchor}"' in page
    assert not re.search(r"(src|href)=[\"']?https?:", page)
    assert "default-src 'none'" in page


def test_a_comparison_of_older_scores_is_refused(tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "e", 1.0)
    rows = read_rows(folder)
    score(folder, [Table(rows, lambda row: 0.0, name="later", fingerprint="l")])
    with pytest.raises(InputError, match=r"is of other scores.*finepref compare"):
        report([folder], tmp_path / "r.html")


def test_two_evaluations_keep_their_ids_apart(tmp_path: Path) -> None:
    evaluation(tmp_path / "one", 1.0)
    evaluation(tmp_path / "two", 1.0)
    page = report([tmp_path / "one", tmp_path / "two"], tmp_path / "r.html").read_text(encoding="utf-8")
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {"wins", "wins-1", "images-data", "images-1-data"} <= set(ids)


def test_markup_in_names_stays_text(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>|`x`"
    evaluation(tmp_path / "e", 1.0, models=("base", "<i>n</i>"), sets={"set": [evil, *TEXTS]})
    run_folder(tmp_path / "runs" / "x", method="<b>m</b> dpo|x")
    page = report([tmp_path], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<i>n</i>" not in page
    assert "<b>m</b>" not in page
    assert page.count("<script") == 2  # the images' data and the page's own
    assert "<b>m" not in (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "dpo\\|x" in (tmp_path / "r.md").read_text(encoding="utf-8")


def test_a_budget_keeps_even_and_extreme_images(tmp_path: Path) -> None:
    found = one(evaluation(tmp_path / "e", 0.0, size=8))
    items = find_items(found)
    assert [item.index for item in items] == list(range(20))
    whole = choose(found, items, "metric", budget=10**7)
    assert [item.index for item in whole] == list(range(20))
    size = sum(len(p) for p in whole[0].pictures.values())
    for item in items:
        item.pictures = {}
    some = choose(found, items, "metric", budget=6 * size + 20)
    far = extremes(items, "metric", "base")
    assert len(some) in (5, 6, 7)
    assert {0, far[0], far[1]} <= {item.index for item in some}
    assert list(spread(5)) == [0, 4, 2, 1, 3]
    assert sorted(spread(300)) == list(range(300))
    widest = items[far[0]].scores["metric"]
    assert abs(widest["new"] - widest["base"]) == max(
        abs(i.scores["metric"]["new"] - i.scores["metric"]["base"]) for i in items
    )


def test_pictures_are_small_and_missing_ones_are_empty(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 500, 4), dtype=np.uint8)).save(tmp_path / "big.png")
    Image.new("L", (32, 32)).save(tmp_path / "tiny.png")
    assert data_uri(tmp_path / "big.png").startswith("data:image/webp;base64,")
    assert len(data_uri(tmp_path / "big.png")) < 120_000
    assert data_uri(tmp_path / "tiny.png").startswith("data:image/png;base64,")
    (tmp_path / "bad.png").write_bytes(b"x")
    assert data_uri(tmp_path / "bad.png") == data_uri(tmp_path / "none.png") == ""


def _paper_evaluation(folder: Path, protocol: str | None, pipeline: str = "StableDiffusionPipeline"):
    names = ("pickscore", "hpsv2.1", "imagereward", "aesthetic", "clip-h")
    evaluation(folder, 0.5, sets={"hpsv2": TEXTS}, metrics=names)
    record = read_record(folder)
    models = {name: replace(about, pipeline=pipeline) for name, about in record.models.items()}
    protocols = {f"{name}/hpsv2": protocol for name in ("base", "new") if protocol}
    write_record(folder, replace(record, models=models, protocols=protocols))
    return one(folder)


def test_own_rows_stand_in_the_papers_tables(tmp_path: Path) -> None:
    found = _paper_evaluation(tmp_path / "e", "smpo-2025")
    from finepref.evaluate.papers import load_tables

    table = next(t for t in load_tables() if t.id == "smpo-2-sd15-hpsv2")
    models = {(row.model, row.metric): row for row in found.comparison.models}
    rows = user_rows(found.comparison, table)
    assert rows["new"] == pytest.approx(
        [scale * models[("new", metric)].median for metric, scale in zip(table.metrics, table.scale, strict=True)]
    )
    best, rates = user_win_rates(found.comparison, table)
    pair = next(row for row in found.comparison.pairs if row.metric == "pickscore")
    assert best == "new"
    assert rates["base"][0] == pytest.approx(100 * pair.win_rate)
    assert rates["new"] == [None] * 5
    page = report([tmp_path], tmp_path / "r.html").read_text(encoding="utf-8")
    before, after = page.split("tables of other protocols or backbones")
    assert "Table 2: HPDv2 (3200 prompts), Stable Diffusion 1.5" in before
    assert "Table 2: HPDv2 (3200 prompts), Stable Diffusion XL" in after
    assert "20 of the 3,200 prompts of hpsv2" in before
    assert "88.0" in before  # a printed win rate
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "Stable Diffusion 1.5" in text
    assert "Stable Diffusion XL" not in text


def test_without_the_protocol_no_printed_table_is_taken_for_comparable(tmp_path: Path) -> None:
    shown = published(_paper_evaluation(tmp_path / "e", None))
    assert shown is not None
    assert shown.main == shown.ablations == ()
    assert shown.other
    page = report([tmp_path], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "this evaluation" in page[page.index("not comparable number by number") :]
    assert published(one(evaluation(tmp_path / "lab", 1.0))) is None


def test_strips_over_the_steps_of_a_run(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "runs" / "x")
    for step in range(0, 1100, 100):
        folder = run / "samples" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (32, 32), (step // 5, 0, 0)).save(folder / f"{number:03d}-7.png")
        (folder / "samples.json").write_text(
            json.dumps({"prompts": ["<p>", "q"], "seeds": [7], "steps": 3, "guidance": 1})
        )
    strips = read_strips(find_inputs([run]).runs[0])
    assert [(s.prompt, s.seed) for s in strips] == [("<p>", 7), ("q", 7)]
    steps = [step for step, _ in strips[0].pictures]
    assert (steps[0], steps[-1], len(steps)) == (0, 1000, 8)
    page = report([run], tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 16
    assert "&lt;p&gt;" in page
    (run / "samples" / "step-001000" / "samples.json").write_text("[]")
    with pytest.raises(InputError, match="not of the form"):
        read_strips(find_inputs([run]).runs[0])


def test_missing_images_leave_a_gap_not_an_error(tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "e", 1.0)
    rows = read_rows(folder)
    (folder / rows[0].path).unlink()
    write_rows(folder, rows)
    page = report([folder], tmp_path / "r.html").read_text(encoding="utf-8")
    island = json.loads(re.search(r'id="images-data">(.*?)</script>', page)[1])
    assert list(island["items"][0]["images"]) == ["new"]


def test_numbers_in_words() -> None:
    assert (percent(0.1234), percent(None), percent(float("nan"))) == ("12.3 %", "–", "–")
    assert (significant(-0.012345), significant(1234567.0, 3)) == ("−0.01235", "1234567")
    assert (duration(50), duration(600), duration(7200), duration(None)) == ("50 s", "10.0 min", "2.0 h", "–")
    assert (decimals([0.02]), decimals([3.0, 0.5]), decimals([]), decimals([1e-12])) == (3, 2, 1, 6)
    assert readable([("a", [1.0], [2e-5])]) == ([("a", [1.0], [pytest.approx(2.0)])], 5)
    assert readable([("a", [1.0], [0.5])])[1] == 0


def test_a_constant_curve_has_an_axis(tmp_path: Path) -> None:
    """The moving average of a constant is that constant up to rounding."""
    write_run(tmp_path / "run", run_record())
    for step, value in enumerate([0.1 + 0.2, 0.3] * 60, start=1):
        append_metrics(
            tmp_path / "run", StepMetrics(step=step, means={}, pairs=4, by_t=(), grad_norm=math.nan, lr=value)
        )
    page = report([tmp_path / "run"], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Learning rate" in page
    assert "Gradient norm" not in page


def test_moving_averages_keep_lines_and_ends_and_flatten_noise() -> None:
    x = [float(k) for k in range(241)]
    places, line = smoothed(x, [2.0 * k + 1 for k in x])
    assert line == pytest.approx([2 * k + 1 for k in places])
    assert (places[0], places[-1], len(places)) == (0.0, 240.0, 80)
    _, wave = smoothed(x, [(-1.0) ** int(k) for k in x])
    assert max(abs(v) for v in wave[10:-10]) <= 1 / 21 + 1e-12
    assert smoothed([1.0, 2.0], [float("nan"), 3.0]) == ([2.0], [3.0])
    assert smoothed([], []) == ([], [])


def test_a_density_integrates_to_one() -> None:
    values = np.random.default_rng(0).normal(3, 2, 500)
    at = np.linspace(-15, 20, 4000)
    curve = density(values, at)
    assert np.trapezoid(curve, at) == pytest.approx(1.0, abs=1e-6)
    from scipy.stats import gaussian_kde

    quartiles = np.subtract(*np.quantile(values, [0.75, 0.25]))
    width = 0.9 * min(values.std(ddof=1), quartiles / 1.34) * 500**-0.2
    other = gaussian_kde(values, bw_method=width / values.std(ddof=1))(at)
    assert curve == pytest.approx(other, abs=1e-12)
    assert np.isfinite(density(np.full(5, 2.0), at)).all()


def test_a_report_loads_no_torch(tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "e", 1.0)
    code = (
        "import sys; from finepref.report import report; "
        f"report([{str(folder)!r}], {str(tmp_path / 'r.html')!r}); "
        "print([m for m in ('torch', 'diffusers', 'transformers', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
