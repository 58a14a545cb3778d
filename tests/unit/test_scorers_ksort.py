"""K-Sort Eval: matching, parsing, the corrected step, resuming, and the data's form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finepref.arena.freeforall import rank_game
from finepref.arena.online import get_preset
from finepref.arena.ratings import BETA, MU0, SIGMA0
from finepref.core.errors import InputError
from finepref.evaluate.scorers.judge import Endpoint, EndpointSettings, Unparsable
from finepref.evaluate.scorers.ksort import (
    KSortSettings,
    agreement,
    choose,
    parse_ranking,
    run,
    update,
)
from finepref.evaluate.scorers.ksort_data import Benchmark, load_benchmark
from tiny_endpoint import endpoint
from tiny_ksort import LEADERS, brightest_first, write_data


def _judge(url: str, folder: Path, **own: Any) -> Endpoint:
    settings = EndpointSettings(base_url=url, model="m", **{"retries": 0, **own})
    return Endpoint(settings, folder / "transcripts", wait=lambda seconds: None)


def test_data_are_read(tmp_path: Path) -> None:
    data = load_benchmark(write_data(tmp_path))
    assert len(data.instances) == 6
    assert data.instances[2].prompt == "prompt 2"
    assert data.instances[0].models == ("A", "B", "C", "LCM-v1.5")
    assert data.capability[0] == pytest.approx(20.375)
    assert data.leaderboard == LEADERS
    assert data.mean_sigma == pytest.approx(0.7925)


def test_a_pickled_array_is_refused(tmp_path: Path) -> None:
    folder = write_data(tmp_path)
    np.save(folder / "Image_meta" / "subfolders.npy", np.array(["a", None], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not a plain array"):
        load_benchmark(folder)


@pytest.mark.parametrize("gone", ["Image_meta/total_overlaps.npy", "Image/inst003/2.jpg", "Image/inst001/result.json"])
def test_missing_files_are_named(tmp_path: Path, gone: str) -> None:
    folder = write_data(tmp_path)
    (folder / gone).unlink()
    with pytest.raises(InputError) as caught:
        load_benchmark(folder)
    assert Path(gone).name in str(caught.value)


def test_the_nearest_unused_instance_is_chosen() -> None:
    data = Benchmark((), np.array([20.0, 25.0, 26.0]), np.array([0.0, 4.0, 0.0]), LEADERS)
    assert choose(data, 25.0, [], alpha=0.5) == 2  # 1 against 0 + 2
    assert choose(data, 25.0, [], alpha=0.0) == 1
    assert choose(data, 25.0, [2], alpha=0.5) == 1
    assert choose(data, 25.0, [2, 1], alpha=0.5) == 0


@pytest.mark.parametrize(
    ("reply", "places"),
    [
        ("Image 3, Image 1, Image 2", [1, 2, 0]),
        ("image 1,image 2 , IMAGE 3.", [0, 1, 2]),
        ('"Image 2, Image 3, Image 1"', [2, 0, 1]),
    ],
)
def test_rankings_are_read(reply: str, places: list[int]) -> None:
    assert parse_ranking(reply, 3) == places


@pytest.mark.parametrize(
    "reply", ["", "I cannot rank people.", "Image 1, Image 2", "Image 1, Image 1, Image 2", "Image 1, Image 2, Image 4"]
)
def test_malformed_rankings_are_unparsable(reply: str) -> None:
    with pytest.raises(Unparsable, match="Image 1 to Image 3"):
        parse_ranking(reply, 3)


def test_defaults_are_the_published_ones() -> None:
    golden = json.loads((Path(__file__).parents[1] / "goldens" / "eval_ksort.json").read_text())
    preset = get_preset("ksort")
    assert golden["env"] == {
        "mu": MU0, "sigma": SIGMA0, "beta": BETA, "tau": preset.tau, "draw_probability": preset.draw_probability
    }  # fmt: skip
    chosen = KSortSettings()
    assert (chosen.sharpness, chosen.alpha) == (golden["sigmoid_k"], golden["alpha"])
    assert (chosen.stop_sigma, chosen.limit) == (golden["stop_sigma"], golden["max_iterations"])


def test_agreement() -> None:
    assert agreement([0, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(1)
    assert agreement([0, 1, 2, 3], [4, 3, 2, 0]) == pytest.approx(-1)
    assert agreement([0, 0, 0, 0], [0, 1, 2, 3]) == 0


def test_full_disagreement_leaves_the_rating_nearly_alone() -> None:
    me = (25.0, 8.0)
    step = update(me, list(LEADERS.values()), human_rank=[0, 1, 2, 3], judged_rank=[4, 3, 2, 1, 0])
    assert step.rho == pytest.approx(-1)
    assert abs(step.rating[0] - me[0]) < 0.01 * abs(step.proposal[0] - me[0]) + 1e-9
    assert step.rating[1] == pytest.approx(me[1], rel=1e-4)


def test_equal_human_places_take_half_the_step() -> None:
    step = update((25.0, 8.0), list(LEADERS.values()), human_rank=[0] * 4, judged_rank=[0, 1, 2, 3, 4])
    assert (step.rho, step.lam, step.gain) == (0, 0.5, 0.5)
    assert step.rating[0] == pytest.approx((25.0 + step.proposal[0]) / 2)


def test_hopeless_results_stay_finite() -> None:
    """The package raises FloatingPointError here."""
    for before in ([0.0, 500.0], [500.0, 0.0]):
        mu, var = rank_game(before, [0.01, 0.01], [0, 1], draw_margin=get_preset("ksort").draw_margin)
        assert np.isfinite(mu).all()
        assert min(var) > 0


def test_a_whole_run_and_its_resumption(tmp_path: Path) -> None:
    data = load_benchmark(write_data(tmp_path / "data"))
    settings = KSortSettings(limit=5, seed=3)
    better = Image.new("RGB", (16, 16), (250, 0, 0))
    with endpoint(brightest_first) as script:
        judge = _judge(script.url, tmp_path)
        result = run(data, lambda instance: better, judge, out=tmp_path / "a", settings=settings)
        assert len(script.requests) == 5
        orders = {tuple(p["text"] for p in r["messages"][0]["content"] if p["type"] == "text") for r in script.requests}
    assert len(orders) == 5
    assert result["comparisons"] == 5
    assert result["mu"] > 28
    assert result["score"] == pytest.approx(result["mu"] - 3 * 0.7925)
    assert all(r["judged_rank"] == [1, 2, 3, 4, 0] for r in result["rounds"])
    assert len({r["instance"] for r in result["rounds"]}) == 5
    again = run(data, lambda instance: better, judge, out=tmp_path / "b", settings=settings)  # nobody serves now
    assert json.loads((tmp_path / "b" / "ksort.json").read_text()) == json.loads(
        (tmp_path / "a" / "ksort.json").read_text()
    )
    assert again == result


def test_a_killed_run_continues(tmp_path: Path) -> None:
    data = load_benchmark(write_data(tmp_path / "data"))
    settings, image = KSortSettings(limit=4), Image.new("RGB", (16, 16), (100, 0, 0))
    with endpoint(lambda body, n: brightest_first(body, n) if n < 2 else 500) as script:
        judge = _judge(script.url, tmp_path)
        with pytest.raises(InputError, match="run again"):
            run(data, lambda instance: image, judge, out=tmp_path / "a", settings=settings)
    assert not (tmp_path / "a" / "ksort.json").exists()
    with endpoint(brightest_first) as script:
        judge = _judge(script.url, tmp_path)
        resumed = run(data, lambda instance: image, judge, out=tmp_path / "a", settings=settings)
        assert len(script.requests) == 2
        whole = run(
            data, lambda instance: image, _judge(script.url, tmp_path / "new"), out=tmp_path / "b", settings=settings
        )
    assert resumed == whole


def test_unanswered_rounds_are_counted_and_change_nothing(tmp_path: Path) -> None:
    data = load_benchmark(write_data(tmp_path / "data", count=3))
    image = Image.new("RGB", (16, 16))
    with endpoint(lambda body, n: "I cannot do that") as script:
        judge = _judge(script.url, tmp_path, attempts=2)
        result = run(data, lambda instance: image, judge, out=tmp_path, settings=KSortSettings())
    assert (result["comparisons"], result["unanswered"]) == (0, 3)
    assert (result["mu"], result["sigma"]) == (25.0, 25.0 / 3.0)
    assert not result["stopped_by_sigma"]
    assert "Image 1 to Image 5" in result["rounds"][0]["reason"]


def test_it_stops_when_sigma_is_small(tmp_path: Path) -> None:
    data = load_benchmark(write_data(tmp_path / "data"))
    image = Image.new("RGB", (16, 16), (100, 0, 0))
    with endpoint(brightest_first) as script:
        settings = KSortSettings(stop_sigma=4.0)
        result = run(data, lambda instance: image, _judge(script.url, tmp_path), out=tmp_path, settings=settings)
    assert result["stopped_by_sigma"]
    assert result["sigma"] < 4.0
    assert len(result["rounds"]) < 6
