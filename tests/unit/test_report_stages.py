"""A report of whatever is there: images without scores, lost images, one prompt, unfinished and damaged runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from evaluation_folder import Table, make_folder
from finepref.core.errors import InputError
from finepref.core.rng import uniform
from finepref.evaluate.compare import ONE_PROMPT, compare, comparison_lines
from finepref.evaluate.score import score
from finepref.formats.comparison import read_comparison
from finepref.formats.metrics import StepMetrics, append_metrics
from finepref.report import report
from finepref.report.charts import axis_ends, nice_ticks, tick_text
from finepref.report.curves import readable
from finepref.report.inputs import find_inputs
from finepref.report.kit import Estimate, bars
from finepref.report.thumbnails import read_strips

TEXTS = [f"prompt {n}" for n in range(10)]


def written(folders: object, out: Path) -> tuple[str, str, dict]:
    """Page, text, and what the page's gallery holds."""
    page = report(folders, out).read_text(encoding="utf-8")
    island = re.search(r'id="images-data">(.*?)</script>', page)
    return page, out.with_suffix(".md").read_text(encoding="utf-8"), json.loads(island[1]) if island else {}


def heading(page: str) -> str:
    return re.search(r"<h1>(.*?)</h1>", page)[1]


def unfinished(folder: Path, *, steps: int = 5) -> Path:
    folder.mkdir(parents=True)
    for step in range(1, steps + 1):
        one = StepMetrics(step=step, means={"loss": 1.0 / step}, pairs=4, by_t=(), grad_norm=1.0, lr=1e-6)
        append_metrics(folder, one)
    return folder


def scored(folder: Path, **options) -> Path:
    rows = make_folder(folder, {"set": options.pop("texts", TEXTS)}, **options)
    value = {row.image_sha256: uniform(1, row.model, row.prompt_index, row.seed) for row in rows}
    score(folder, [Table(rows, lambda row: value[row.image_sha256])])
    return folder


def test_images_without_scores_can_be_looked_at_and_voted_on(tmp_path: Path) -> None:
    make_folder(tmp_path / "eval", {"set": TEXTS}, models=("a", "b", "c"), seeds=(0, 1))
    page, text, gallery = written([tmp_path / "eval"], tmp_path / "r.html")
    assert heading(page) == "Images of a, b and c, side by side"
    assert len(gallery["items"]) == 20
    assert all(list(item["images"]) == ["a", "b", "c"] for item in gallery["items"])
    assert (gallery["baseline"], gallery["metric"], gallery["metrics"]) == (None, None, [])
    assert "No scores yet" in page
    assert "No scores yet" in text
    for card in ("wins", "scores", "papers"):
        assert f'id="{card}"' not in page
        assert f'href="#{card}"' not in page


def test_images_of_one_model_are_shown(tmp_path: Path) -> None:
    make_folder(tmp_path / "eval", {"set": TEXTS}, models=("alone",))
    page, _, gallery = written([tmp_path / "eval"], tmp_path / "r.html")
    assert heading(page) == "Images of alone"
    assert len(gallery["items"]) == 10


def test_scores_without_a_comparison_stand_beside_the_images(tmp_path: Path) -> None:
    page, text, gallery = written([scored(tmp_path / "eval")], tmp_path / "r.html")
    assert "not compared yet" in page
    assert "not compared yet" in text
    assert gallery["items"][0]["scores"]["metric"].keys() == {"base", "new"}


def test_a_model_generated_after_the_comparison_is_shown_and_named(tmp_path: Path) -> None:
    folder = scored(tmp_path / "eval")
    compare(folder, "base", resamples=200)
    make_folder(tmp_path / "eval", {"set": TEXTS})
    with (folder / "manifest.jsonl").open("a") as lines:
        row = json.loads((folder / "manifest.jsonl").read_text().splitlines()[0])
        lines.write(json.dumps({**row, "model": "late"}) + "\n")
    page, _, gallery = written([folder], tmp_path / "r.html")
    assert gallery["models"] == ["base", "new", "late"]
    assert "Not compared, because not scored then: late." in page


def test_lost_images_are_counted_by_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = make_folder(tmp_path / "eval", {"set": TEXTS}, models=("a", "b", "c"), seeds=range(6))
    for number, row in enumerate(rows):
        if number % 6 == 0:  # rows alternate between the three models
            (tmp_path / "eval" / row.path).unlink()
    (tmp_path / "eval" / rows[1].path).write_bytes(b"cut short")
    page, text, gallery = written([tmp_path / "eval"], tmp_path / "r.html")
    said = capsys.readouterr().err
    for where in (said, page, text):
        assert "Images missing: 30 of 180 (30 of a)." in where
        assert "Images that cannot be read: 1 (1 of b)." in where
    shown = sum(len(item["images"]) for item in gallery["items"])
    assert shown == 180 - 31
    assert sum(len(item["paths"]) for item in gallery["items"]) == 180  # the page shows a placeholder for the others


def test_all_images_lost(tmp_path: Path) -> None:
    rows = make_folder(tmp_path / "eval", {"set": TEXTS})
    for row in rows:
        (tmp_path / "eval" / row.path).unlink()
    page, _, gallery = written([tmp_path / "eval"], tmp_path / "r.html")
    assert "Images missing: 20 of 20 (10 of base, 10 of new)." in page
    assert all(item["images"] == {} for item in gallery["items"])


@pytest.mark.parametrize("texts", [["one"], ["same", "same", "same"]])
def test_one_prompt_gives_no_interval_and_says_why(tmp_path: Path, texts: list[str]) -> None:
    folder = scored(tmp_path / "eval", texts=texts, models=("base", "new"), seeds=(0, 1, 2, 3))
    found = compare(folder, "base", resamples=200)
    (pair,) = found.pairs
    assert (pair.win_low, pair.win_high, pair.difference_low, pair.difference_high) == (None,) * 4
    assert {row.no_interval for row in (*found.models, *found.pairs)} == {ONE_PROMPT}
    assert [(row.mean_low, row.mean_high) for row in found.models] == [(None, None)] * 2
    held = json.loads((folder / "comparison.json").read_text())["pairs"][0]
    assert (held["win_low"], held["difference_high"], held["no_interval"]) == (None, None, ONE_PROMPT)
    assert read_comparison(folder) == found
    lines = comparison_lines(found)
    assert lines[-1] == f"- no interval: {ONE_PROMPT}"
    assert lines[1].split()[-3:-1][-1] == "-"
    page, text, _ = written([folder], tmp_path / "r.html")
    assert f"no interval: {ONE_PROMPT}" in page
    assert ONE_PROMPT in text
    assert "on one prompt" in heading(page)
    assert 'class="whisker"' not in page


def test_scores_of_both_models_on_one_prompt_only(tmp_path: Path) -> None:
    """Each model has an interval of its own, their difference has none."""
    rows = make_folder(tmp_path, {"set": TEXTS})
    missing = {"base": range(1, 5), "new": range(5, 10)}
    value = lambda row: float("nan") if row.prompt_index in missing[row.model] else row.prompt_index  # noqa: E731
    score(tmp_path, [Table(rows, value)])
    found = compare(tmp_path, "base", resamples=200)
    assert all(row.mean_low < row.mean < row.mean_high for row in found.models)
    assert (found.pairs[0].n, found.pairs[0].win_low, found.pairs[0].no_interval) == (1, None, ONE_PROMPT)


def test_a_run_that_is_not_finished_and_a_checkpoint_of_it(tmp_path: Path) -> None:
    run = unfinished(tmp_path / "runs" / "x")
    (run / "checkpoints" / "step-000003").mkdir(parents=True)
    page, text, _ = written([run], tmp_path / "r.html")
    assert heading(page) == "Training of x"
    assert "x (not finished)" in text
    (found,) = find_inputs([run / "checkpoints" / "step-000003"]).runs
    assert (found.name, found.step, list(found.curves["loss"][0])) == ("x@3", 3, [1.0, 2.0, 3.0])
    page, text, _ = written([run / "checkpoints" / "step-000003"], tmp_path / "r.html")
    assert "x@3 (a checkpoint)" in text


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    unfinished(tmp_path / "a" / "run")
    unfinished(tmp_path / "b" / "run")
    assert [run.name for run in find_inputs([tmp_path]).runs] == ["a/run", "b/run"]


@pytest.mark.parametrize("held", ['{"method": "d', "[]", '{"method": 3}'])
def test_a_damaged_record_of_a_run_says_what_it_is_and_how_to_go_on(tmp_path: Path, held: str) -> None:
    run = unfinished(tmp_path / "runs" / "x")
    (run / "run.json").write_text(held)
    with pytest.raises(InputError) as error:
        report([tmp_path], tmp_path / "r.html")
    said = str(error.value)
    assert str(run / "run.json") in said
    assert "the record of a finished run: remove it and resume the run" in said
    assert f"or name the other folders, without {run}" in said
    assert not (tmp_path / "r.html").exists()


def test_a_metric_where_nothing_is_scored_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "eval", {"set": TEXTS})
    with pytest.raises(InputError, match="nothing here is scored"):
        report([tmp_path / "eval"], tmp_path / "r.html", metric="pickscore")


def test_samples_that_are_lost_or_of_other_prompts(tmp_path: Path) -> None:
    run = unfinished(tmp_path / "x")
    for step, prompts in ((1, ["p", "q"]), (2, ["q"]), (3, ["q", "new"])):
        folder = run / "samples" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "samples.json").write_text(json.dumps({"prompts": prompts, "seeds": [0]}))
        for number in range(len(prompts)):
            Image.new("RGB", (8, 8), (step, number, 0)).save(folder / f"{number:03d}-0.png")
    (run / "samples" / "step-000002" / "000-0.png").unlink()
    strips = {strip.prompt: dict(strip.pictures) for strip in read_strips(find_inputs([run]).runs[0])}
    assert {prompt: list(pictures) for prompt, pictures in strips.items()} == {"q": [1, 2, 3], "new": [3]}
    assert (strips["q"][2], bool(strips["q"][1])) == ("", True)
    page, _, _ = written([run], tmp_path / "r.html")
    assert page.count('<div class="gone">missing</div>') == 1


def test_numbers_that_differ_by_rounding_only_have_an_axis() -> None:
    """The kind of `math domain error`: a step between ticks of zero has no logarithm."""
    for low, high in ((1.0, 1.0 + 2e-16), (0.0, 0.0), (5e-324, 1e-323), (-3.0, -3.0 + 1e-15)):
        ends = axis_ends([low, high])
        ticks = nice_ticks(*ends)
        assert ends[0] < low <= high < ends[1]
        assert all(tick_text(tick, ticks) for tick in ticks)
    close = bars([Estimate("a", 25.0, 25.0, 25.0 + 4e-15)], title="", axis="")
    assert 0 <= close.bars[0].left <= 100
    assert readable([("a", [1.0], [5e-324])])[1] == 300


def test_one_estimate_without_an_interval_has_a_place() -> None:
    (bar,) = bars([Estimate("a", 3.0, None, None)], title="", axis="").bars
    assert (bar.width, bar.span) == (0.0, "–")
    assert bar.middle == pytest.approx(50.0)
