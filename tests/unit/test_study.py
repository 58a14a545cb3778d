"""The study's plan, cost, comparisons and page; nothing is trained here."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from finepref.core.errors import ConfigError, InputError
from finepref.diffusion import inversion
from finepref.diffusion.path import scaled_linear
from finepref.diffusion.trajectory_options import InversionOptions, RenoiseOptions
from finepref.plan import methods
from finepref.study import arms as rows
from finepref.study import claims, schedule, trial
from finepref.study import contrasts as compare
from finepref.study import design as plan
from finepref.study.document import write_page
from finepref.study.trial import Point
from finepref.train.config import load_config
from finepref.train.method import make_method

SMALL: dict[str, Any] = {
    "seeds": [0, 1],
    "training": {"cost": 800},
    "evaluation": {"prompts": 6, "validation_prompts": 2},
    "tuning": {"seed": 9, "learning_rate": [1e-5, 1e-4], "strength": [1.0, 4.0]},
    "groups": [{"name": "methods", "title": "Methods", "arms": [{"name": "dpo", "method": "dpo"},
                                                                 {"name": "arenapo", "method": "arenapo"}]}],
    "claims": [{"text": "ArenaPO beats DPO", "source": "paper", "better": "arenapo", "than": "dpo"}],
}  # fmt: skip


GPU = Path(__file__).parents[2] / "benchmarks" / "study_gpu.yaml"


def small(tmp_path: Path, **changes: Any) -> plan.Study:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({**copy.deepcopy(SMALL), **changes}))
    return plan.load_study(file)


@pytest.mark.parametrize("file", [None, GPU])
def test_configs_of_studies(file: Path | None) -> None:
    """A study of the repository validates, and every config of it can be trained."""
    study = plan.load_study(file)
    assert len(study.seeds) >= 5
    for arm in study.arms():
        words = [f"{key}={value}" for key, value in arm.set.items()]
        words += ["signal.file=signals.parquet"] if words else []
        make_method(load_config(f"lab/{arm.method}", words))


def test_the_shipped_study() -> None:
    """It has what the papers' claims need."""
    study = plan.load_study()
    kinds = {kind for arm in study.arms() for kind in arm.kinds}
    assert {"paper", "truncated", "image", "uniform", "smoothed"} <= kinds
    left_out = {row.name for row in methods.shipped() if row.lab_config} - {arm.method for arm in study.arms()}
    assert left_out <= {"dspo_sdxl_shift", "dspo_sdxl_published", "dpo_lora"}


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    """Unknown keys, arms, methods, clashing seeds and names: one sentence each."""
    twice = [{"name": "a", "title": "A", "arms": [{"name": "dpo", "method": "dpo"}, {"name": "dpo", "method": "sft"}]}]
    unknown = [{"name": "a", "title": "A", "arms": [{"name": "dpo", "method": "dppo"}]}]
    own = [{"name": "a", "title": "A", "arms": [{"name": "b", "method": "dpo"},
                                                {"name": "dpo", "method": "dpo", "tuned": "arm"}]}]  # fmt: skip
    for changes, reason in (
        ({"groups": twice, "claims": []}, "names must differ"),
        ({"groups": unknown, "claims": []}, "did you mean 'dpo'"),
        ({"claims": [{"text": "x", "source": "y", "better": "nobody", "than": "dpo"}]}, "no arm is called 'nobody'"),
        ({"seeds": [0, 9]}, "seeds must differ"),
        ({"looks": [3, 2]}, "looks must ascend"),
        ({"looks": [2, 3]}, "at most the number of seeds"),
        ({"looks": [1, 2]}, "greater than or equal to 2"),
        ({"groups": own, "claims": []}, "needs another name than a method's"),
        (
            {"claims": [{"text": "x", "source": "y", "better": "dpo", "than": ["arenapo", "arenapo"]}]},
            "grid of its own",
        ),
        ({"evaluation": {"prompts": 250, "validation_prompts": 40}}, "252 held-out prompts"),
        ({"trainnig": {}}, "did you mean 'training'"),
    ):
        with pytest.raises(ConfigError, match=reason):
            small(tmp_path, **changes)
    with pytest.raises(InputError, match="shipped study"):
        plan.load_study(tmp_path / "nowhere.yaml")


def test_every_method_gets_the_same_budget() -> None:
    """As many grid points for SFT, which has no strength, as for the others, and no point twice."""
    tuning = plan.load_study().tuning
    sizes = {method.name: len(set(plan.grid(tuning, method.name))) for method in methods.shipped()}
    assert set(sizes.values()) == {len(tuning.learning_rate) * len(tuning.strength)}
    assert plan.strength_option("sft") is None
    assert plan.strength_option("dspo") == "lambda_residual"
    assert plan.strength_option("kto") == "beta"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sft", 3), ("dpo", 8), ("mapo", 6), ("kto", 4), ("dspo", 8), ("sdpo_dpo", 8)],
)
def test_cost_by_hand(name: str, expected: float) -> None:
    """Images times (3 for the policy, 1 for the reference)."""
    assert trial.per_row(make_method(load_config(f"lab/{name}"))) == expected


@pytest.mark.parametrize(
    "options",
    [
        InversionOptions(),
        RenoiseOptions(),
        RenoiseOptions(steps=4),
        RenoiseOptions(grid="official-0.20", renoise="each", steps=5),
    ],
)
def test_inversion_calls_are_those_that_are_made(options: InversionOptions) -> None:
    """The expected number of calls is the number that `place` makes for every level once."""
    path, made = scaled_linear(), 0

    def denoise(x: torch.Tensor, t: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        nonlocal made
        made += len(x)
        return x * 0

    lowest = 0 if options.grid != "exact" else 1
    t = torch.arange(lowest, 1000)
    x0 = torch.zeros(len(t), 1, 1, 1)
    inversion.place(x0, x0, t, path=path, options=options, denoise=denoise)
    assert trial.inversion_calls(options) == pytest.approx(made / 2 / len(t), abs=1e-9)


def test_cost_of_guidance_and_steps() -> None:
    """A second pass doubles the inversion; the budget is spent to half a step."""
    one, two = (make_method(load_config("lab/smpo", [f"trajectory.cfg={cfg}"])) for cfg in (1, 5))
    assert trial.per_row(two) - 8 == 2 * (trial.per_row(one) - 8)
    for method in (one, two):
        steps = trial.steps_for(8192, method, per_step=16)
        assert abs(8192 / 16 / trial.per_row(method) - steps) <= 0.5
    assert trial.spent({"policy": 10, "reference": 7, "inversion": 100}) == 137


def test_jobs_come_in_order(tmp_path: Path) -> None:
    """The base first; every method is tuned before its arms, on votes that are made before."""
    study = small(tmp_path)
    jobs = schedule.jobs(study, {"dpo": 2, "arenapo": 2})
    place = {key: i for i, key in enumerate(jobs)}
    assert len(jobs) == 2 + 3 + 2 * 4 + 2 * 2
    assert list(jobs)[:2] == [("arm", None, 0), ("arm", None, 1)]
    for key, needs in jobs.items():
        assert all(place[need] < place[key] for need in needs)
    assert jobs["arm", "dpo", 1] == {("seed", 1), *(("tune", "dpo", i) for i in range(4))}


def test_the_best_point_wins_and_failures_do_not() -> None:
    """Highest validation mean; a tie goes to the earlier point; a failed training never wins."""
    grid = [(1e-5, 1.0), (1e-4, 1.0), (1e-5, 4.0)]
    row = {"grid": {"0": {"mean": 1.0}, "1": {"mean": 1.5}, "2": {"mean": 1.5}}}
    assert rows.best_point(row, grid) == Point(1e-4, 1.0)
    row["grid"]["1"] = {"failed": "nan"}  # type: ignore[dict-item]
    assert rows.best_point(row, grid) == Point(1e-5, 4.0)
    assert rows.best_point({"grid": {"0": {"mean": 1.0}}}, grid) is None
    with pytest.raises(InputError, match="no grid point of dpo"):
        rows.best_point({"method": "dpo", "grid": {key: {"failed": "nan"} for key in "012"}}, grid)


def results(means: list[float], *, prompts: int = 40, spread: float = 0.05) -> dict[str, Any]:
    """A row whose seeds have these mean qualities."""
    draws = np.random.default_rng(0)
    return {
        str(seed): {
            "quality": (mean + spread * draws.normal(size=prompts)).tolist(),
            "reward": [mean] * prompts, "steps": 4, "judge_seconds": 1.0, "train_seconds": 2.0, "cost": 800,
        }
        for seed, mean in enumerate(means)
    }  # fmt: skip


def test_contrast_by_hand() -> None:
    """Mean, win rate and seeds of differences that are known; only common seeds count."""
    base = {
        "seeds": {"0": {"quality": [0.0, 0.0], "reward": [0.0, 0.0]}, "1": {"quality": [1.0, 1.0], "reward": [0, 0]}}
    }
    arm = {"seeds": {"0": {"quality": [1.0, -1.0], "reward": [2, 2]}, "1": {"quality": [2.0, 3.0], "reward": [0, 0]}}}
    found = compare.contrast(arm, base)
    assert found is not None
    assert found.by_seed == (0.0, 1.5)
    assert found.gain.value == 0.75
    assert found.wins.value == 0.75
    assert found.reward == 1.0
    del arm["seeds"]["1"]
    again = compare.contrast(arm, base)
    assert again is not None
    assert again.by_seed == (0.0,)
    assert compare.contrast({"seeds": {"0": {"failed": "nan"}}}, base) is None


def test_verdicts(tmp_path: Path) -> None:
    """Clear and agreed is decided, in either direction; seeds that disagree, or no difference, leave it open."""
    study = small(tmp_path, seeds=list(range(5)))
    dpo = {"seeds": results([1.0] * 5)}
    for means, word in (
        ([1.5] * 5, "holds"),
        ([0.5] * 5, "fails"),
        ([1.0] * 5, "equivalent"),
        ([1.01, 0.99, 1.0, 1.01, 0.99], "equivalent"),
        ([1.03, 0.99, 1.0, 1.04, 0.99], "undecided"),
        ([2.0, 2.0, 2.0, 0.9, 0.9], "undecided"),
    ):
        arenapo = {"seeds": results(means)}
        (verdict,) = claims.verdicts(study, {"dpo": dpo, "arenapo": arenapo}, {})
        assert verdict.word == word, means
    assert claims.verdicts(study, {"dpo": dpo}, {}) == []


def test_a_claim_goes_on_while_its_interval_is_wide(tmp_path: Path) -> None:
    """Both arms of a wide claim are to have the next seeds; a narrow one stops, and later seeds do not change it."""
    study = small(tmp_path, seeds=list(range(6)), looks=[2, 4, 6])
    base = {"seeds": results([1.0] * 6)}
    for means, wanted, stopped in (
        ([1.5, 1.5], 2, 2),  # narrow
        ([1.5, 1.9], 4, None),  # wide: the next look, which is not there yet
        ([1.5, 1.9, 1.5, 1.9], 6, None),
        ([1.5, 1.9, 1.5, 1.9, 1.5, 1.9], 6, 6),  # wide to the end
        ([1.5, 1.5, 9.0, 9.0], 2, 2),
    ):
        rows_held = {"dpo": base, "arenapo": {"seeds": results(means)}}
        assert claims.seeds_wanted(study, rows_held, {}) == {"dpo": wanted, "arenapo": wanted}, means
        (found,) = claims.verdicts(study, rows_held, {})
        assert (found.word == "goes on") == (stopped is None), means
        assert stopped is None or len(found.contrast.by_seed) == stopped, means
    assert claims.seeds_wanted(study, {}, {}) == {"dpo": 2, "arenapo": 2}
    failed = {str(seed): {"failed": "nan"} for seed in range(2)}
    assert claims.seeds_wanted(study, {"dpo": base, "arenapo": {"seeds": failed}}, {}) == {"dpo": 4, "arenapo": 4}


def test_the_strongest_of_a_family_is_the_opponent(tmp_path: Path) -> None:
    """Whoever the tuning's prompts like best, whatever the evaluation says; nobody while a grid is not finished."""
    arms = [{"name": "arenapo", "method": "arenapo"}, {"name": "uniform_margin", "method": "uniform_margin"},
            {"name": "four", "method": "uniform_margin", "options": {"margin": 4.0}, "tuned": "arm"}]  # fmt: skip
    group = {"name": "a", "title": "A", "against": "arenapo", "arms": arms}
    claim = {"text": "x", "source": "y", "better": "arenapo", "than": ["uniform_margin", "four"]}
    study = small(tmp_path, groups=[group], claims=[claim])
    assert {name: arm.name for name, arm in study.tuned().items()} == {name: name for name in study.tuned()}
    assert list(study.tuned()) == ["arenapo", "uniform_margin", "four"]
    held = {"arenapo": {"seeds": results([1.5] * 2)}, "four": {"seeds": results([2.0] * 2)}}
    held["uniform_margin"] = {"seeds": results([1.0] * 2)}
    for tuned, word in ({"uniform_margin": 1.2, "four": 1.1}, "holds"), ({"uniform_margin": 1.2, "four": 1.3}, "fails"):
        assert [verdict.word for verdict in claims.verdicts(study, held, tuned)] == [word]
    assert claims.verdicts(study, held, {"four": 1.0}) == []
    four = study.tuned()["four"]
    assert rows.tuning_identity(study, four, "w") != rows.tuning_identity(study, study.tuned()["uniform_margin"], "w")


def test_stopping_by_width_keeps_the_interval_true(tmp_path: Path) -> None:
    """Simulated claims, crossed effects of seeds and prompts, three looks: about 95 % hold the truth."""
    study = small(tmp_path, seeds=list(range(40)), looks=[10, 20, 40], tuning={**SMALL["tuning"], "seed": 99})
    draws, held = np.random.default_rng(5), 0
    stops = set()
    for _ in range(400):
        by_seed, by_prompt = 0.045 * draws.normal(size=(40, 1)), 0.02 * draws.normal(size=30)
        table = 0.1 + by_seed + by_prompt + 0.2 * draws.normal(size=(40, 30))
        arm, other = ({str(s): {"quality": list(q), "reward": [0.0] * 30} for s, q in enumerate(values)}
                      for values in (table, np.zeros_like(table)))  # fmt: skip
        (verdict,) = claims.verdicts(study, {"arenapo": {"seeds": arm}, "dpo": {"seeds": other}}, {})
        stops.add(len(verdict.contrast.by_seed))
        held += verdict.contrast.gain.low <= 0.1 <= verdict.contrast.gain.high
    assert 0.93 <= held / 400 <= 0.99
    assert len(stops) > 1


def test_rows_of_other_settings_are_refused(tmp_path: Path) -> None:
    """A row carries the hash of all that decides it; labels are not part of it."""
    study, other = small(tmp_path), small(tmp_path, training={"cost": 900})
    arm = next(study.arms())
    point = Point(1e-4, 1.0)
    mine = rows.arm_identity(study, arm, point, "world")
    assert mine == rows.arm_identity(study, arm.model_copy(update={"label": "other words"}), point, "world")
    assert len({mine, rows.arm_identity(other, arm, point, "world"), rows.arm_identity(study, arm, point, "new"),
                rows.arm_identity(study, arm, Point(1e-4, 4.0), "world")}) == 4  # fmt: skip
    file = tmp_path / "dpo.json"
    rows.write_row(file, {"identity": mine, "seeds": results([1.0])})
    assert json.loads(file.read_text())["seeds"].keys() == {"0"}
    assert rows.read_row(file, mine)["seeds"]["0"]["steps"] == 4
    with pytest.raises(InputError, match="other settings or other lab weights"):
        rows.read_row(file, "another")


def test_page(tmp_path: Path) -> None:
    """Everything on the page comes from the rows; what has not run is said."""
    study, folder, page = small(tmp_path), tmp_path / "rows", tmp_path / "page.md"

    def write(name: str, means: list[float], *, world: str = "world") -> str:
        arm, point = next((arm for arm in study.arms() if arm.name == name), None), Point(1e-4, 4.0)
        identity = rows.arm_identity(study, arm, None if arm is None else point, world)
        row = {"identity": identity, "learning_rate": 1e-4, "strength": 4.0, "seeds": results(means, prompts=6)}
        rows.write_row(folder / f"{name}.json", row)
        write_page(study, rows=folder, page=page, world="world")
        return page.read_text()

    with pytest.raises(InputError, match="no row of the base model"):
        write_page(study, rows=folder, page=page, world="world")
    write("base", [1.0, 1.0])
    text = write("dpo", [2.0, 2.2])
    assert "## The claims" not in text
    assert "| dpo | 4 | +1.10 [" in text
    assert "100.0% [" in text
    text = write("arenapo", [0.5, 0.5])
    assert "ArenaPO beats DPO (paper)" in text
    assert "Of 1 claims 0 hold here, 1 fail (" in text
    assert "\n\n\n" not in text
    with pytest.raises(InputError, match="other settings or other lab weights"):
        write("dpo", [2.0, 2.2], world="another")


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pictures of noise, judged by the lab, with votes and a reward of each."""
    from finepref.formats.rewards import Rewards
    from finepref.lab import world
    from finepref.signals.parts import SignalVotes
    from finepref.study import ground as module

    draws = np.random.default_rng(0)
    prompts = tuple(np.repeat(world.prompts("train")[:12], 3))
    images = draws.integers(0, 256, (36, 32, 32, 3)).astype(np.uint8)
    left, side = draws.integers(0, 36, 90), draws.integers(1, 3, 90)
    right = left // 3 * 3 + (left + side) % 3
    table = SignalVotes(
        [f"r{k}" for k in range(90)], draws.choice([0.0, 0.5, 1.0], 90, p=[0.45, 0.1, 0.45]),
        *([f"model {k % 3}" for k in codes] for codes in (left, right)),
        *([f"image {k}" for k in codes] for codes in (left, right)),
    )  # fmt: skip
    made = module.Ground(table, images, prompts, left, right)
    score = draws.normal(size=36)
    monkeypatch.setattr(module, "read_ground", lambda folder: made)
    monkeypatch.setattr(module, "read_rewards", lambda *given: Rewards(score[left], score[right], "lab-reward", "f"))
    return made, score, world.judge(images, prompts).quality


def test_controls_truth_and_a_wrong_reward(tmp_path: Path, ground: Any) -> None:
    """The truth has the paper's mean, a control the same margins elsewhere, a wrong reward other images' scores."""
    from finepref.formats.signals import read_signals
    from finepref.study.ground import signal_file

    made, score, quality = ground

    def of(**arm: Any) -> Any:
        return read_signals(signal_file(tmp_path, plan.Arm(name="x", **arm), seed=3, reward_steps=1))

    paper, truth = of(method="arenapo"), of(method="arenapo", signal=["truth"])
    row = [made.table.pair_id.index(pair) for pair in truth.pair_id]
    lead = (quality[made.left] - quality[made.right])[row] * np.where(truth.winner == 0, 1, -1)
    wanted = np.maximum(lead, 0)
    assert truth.margin == pytest.approx(wanted * paper.margin.mean() / wanted.mean(), rel=1e-5)
    for kind in ({}, {"signal": ["truth"]}):
        plain = of(method="arenapo", **kind)
        dealt, flat = (of(method="arenapo", control=how, **kind) for how in ("permute", "constant"))
        assert sorted(dealt.margin) == sorted(plain.margin)
        assert (dealt.margin != plain.margin).any()
        assert flat.margin == pytest.approx(plain.margin.mean(dtype=np.float64), rel=1e-6)
    soft, wrong = of(method="reward_soft"), of(method="reward_soft", reward="wrong")
    assert wrong.rewards == ("wrong reward",)
    assert (soft.winner == np.where(score[made.left] > score[made.right], 0, 1)[made.table.label != 0.5]).all()
    assert np.mean(soft.winner == wrong.winner) < 0.8
    assert of(method="posterior").rewards == ("lab-reward",)


def test_an_arm_without_a_control_is_the_row_that_it_was() -> None:
    plain, control = plan.Arm(name="dpo", method="dpo"), plan.Arm(name="dpo", method="dpo", control="permute")
    one, other = (rows.arm_identity(plan.load_study(), arm, Point(1e-5, 1.0), "world") for arm in (plain, control))
    assert one != other
    tuned = plan.Arm(name="dpo", method="dpo", tuned="arm")  # whose grid is its own has its values in the point
    assert rows.arm_identity(plan.load_study(), tuned, Point(1e-5, 1.0), "world") == one


def test_rows_without_a_mark_are_known_while_they_are_held(tmp_path: Path) -> None:
    """Rows of the version before carry no `finepref.json`; the lock of a command does not hide that."""
    from finepref.core.outfolders import own_folder
    from finepref.formats.folders import STUDY

    rows.write_row(tmp_path / "rows" / "dpo.json", {"identity": "x"})
    with own_folder(tmp_path / "rows", STUDY):
        assert (tmp_path / "rows" / "dpo.json").is_file()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.json").write_text("{}")
    with pytest.raises(InputError, match="not the rows of a study"), own_folder(tmp_path / "other", STUDY):
        pass


def test_workers_end_with_a_study_that_was_killed(tmp_path: Path) -> None:
    """SIGKILL, which no handler sees, in the middle of a trial."""
    import os
    import signal
    import subprocess
    import sys
    import time

    program = f"""
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from finepref.study.schedule import _start
if __name__ == "__main__":
    pool = ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), initializer=_start, initargs=(Path({str(tmp_path)!r}),)
    )
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 900).result()
"""
    (tmp_path / "program.py").write_text(program)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "program.py")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.stdout.close()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(600):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        state = Path(f"/proc/{worker}/stat")
        if state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its study")


SEED = {"quality": [0.1] * 6, "reward": [0.2] * 6}


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": []}, {"seeds": {"x": SEED}}, {"seeds": {"0": {}}}, {"seeds": {"0": {**SEED, "quality": "abc"}}},
        {"seeds": {"0": {"quality": [0.1] * 6}}}, {"seeds": {"0": {**SEED, "quality": [0.1]}}},
        {"seeds": {"0": {**SEED, "quality": [None] * 6}}}, {"seeds": {"0": SEED, "1": {**SEED, "reward": [0.2]}}},
        {"grid": []}, {"grid": {"0": "x"}}, {"grid": {"0": {"learning_rate": 1, "strength": 1, "mean": "x"}}},
        {"grid": {"0": {"mean": 0.1}}}, {"learning_rate": "x"}, {"identity": None},
    ],
)  # fmt: skip
def test_a_damaged_row_is_one_sentence(tmp_path: Path, change: dict[str, Any]) -> None:
    """Whatever is wrong in a row file, it is named where it is read; a whole one is read."""
    file, whole = tmp_path / "dpo.json", {"identity": "me", "seeds": {"0": SEED, "1": {"failed": "nan"}}}
    file.write_text(json.dumps(whole))
    assert rows.read_row(file, "me") == whole
    file.write_text(json.dumps(whole | change))
    with pytest.raises(InputError, match=r"dpo\.json"):
        rows.read_row(file, "me")
    file.write_text(json.dumps(whole)[:40])
    assert not rows.is_row(file)
    with pytest.raises(InputError, match="remove this file"):
        rows.read_row(file, "me")


def one(**arm: Any) -> list[dict[str, Any]]:
    return [{"name": "g", "title": "G", "arms": [{"name": "dpo", "method": "dpo", **arm}]}]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"groups": one(name="../evil")}, "pattern"), ({"groups": one(name="")}, "pattern"),
        ({"groups": one(name="tuning/dpo")}, "pattern"), ({"groups": one(name="finepref")}, "names must differ"),
        ({"groups": one(name="Base")}, "names must differ"), ({"groups": []}, "at least 1 item"),
        ({"groups": [{"name": "g", "title": "G"}]}, "there is no arm"), ({"seeds": []}, "at least 1 item"),
        ({"groups": one(signal=["xx"])}, "arm dpo: .*unknown kind"),
        ({"groups": one(set={"train.nope": 1})}, "arm dpo: .*unknown key 'train.nope'"),
        ({"groups": one(set={"train.max_steps": 1})}, "arm dpo: .*train.max_steps is set by the study"),
        ({"groups": one(set={"objective.beta": 1})}, "arm dpo: .*objective.beta is set by the study"),
        ({"groups": one(set={"train.levels": "{low: 0.9, high: 0.1}"})}, "arm dpo: .*low must lie below high"),
        ({"tuning": {"learning_rate": [], "strength": [1.0]}}, "at least 1 item"),
        ({"tuning": {"learning_rate": [-1.0], "strength": [1.0]}}, "greater than 0"),
        ({"tuning": {"learning_rate": [1e-5], "strength": []}}, "at least 1 item"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_told_at_the_start(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        small(tmp_path, **{"claims": [], **changes})


def test_claims_against_nobody(tmp_path: Path) -> None:
    for than in ([], ["base", "dpo"], "arenapo", ["dpo", "arenapo"]):
        claim = {"text": "x", "source": "y", "better": "arenapo", "than": than}
        with pytest.raises(ConfigError, match=r"at least 1 item|against itself"):
            small(tmp_path, claims=[claim])


def test_one_seed_decides_nothing() -> None:
    """A difference that is the same everywhere is no verdict where one seed was looked at."""
    from finepref.study.claims import _word
    from finepref.study.contrasts import contrast

    row, other = ({"seeds": {"0": {"quality": [v] * 6, "reward": [v] * 6}}} for v in (0.5, 0.1))
    found = contrast(row, other)
    assert found is not None
    assert _word(found, 0.001, True, seeds=1) == "undecided"
    assert _word(found, 0.001, True, seeds=2) == "holds"
