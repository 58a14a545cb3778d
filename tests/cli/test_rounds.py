"""`finepref rounds` on the lab: two rounds, a second call, a round that was ended, people who vote meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from finepref.align.starter import Starter
from finepref.align.timed import Stage, Timing
from finepref.core.errors import InputError
from finepref.formats.collection import read_study
from finepref.formats.ratings import read_ratings
from finepref.formats.rounds import read_rounds
from finepref.rounds import closed_loop

Run = Callable[..., tuple[int, str, str]]
WORDS = (
    "rounds", "--base", "lab", "--prompts", "lab-train", "--held-out", "lab-eval", "--judge", "lab-true", "--scorer",
    "lab-reward", "--sets", "16", "--limit", "10", "--steps", "2", "--guidance", "2", "--people", "3",
    "--images", "2", "train.max_steps=3", "train.pairs_per_step=4", "train.micro_batch=4", "train.lr_warmup_steps=0",
    "validation.draws=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A second model, whose pictures are others."""
    from finepref.lab.model import materialise

    return "--also", f"early={materialise(tmp_path_factory.mktemp('early') / 'model', 'early')}"


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch, finepref: Run) -> list[tuple[str, ...]]:
    """Stages run in this process; a run always keeps its last step, so that the second round has another model."""
    from finepref.train import stopping

    monkeypatch.setattr(stopping, "speaks", lambda lines: True)
    monkeypatch.setattr(stopping, "sound", lambda lines, far: list(lines))
    told: list[tuple[str, ...]] = []

    def run_stage(stage: Stage, starter: Starter, *, workers: int, number: str) -> Timing:
        for words in stage.commands:
            told.append(words)
            code, _, err = finepref(*words)
            assert code == 0, err
        return Timing(stage.name, 0.0, 0.0, 0.0)

    monkeypatch.setattr(closed_loop, "run_stage", run_stage)
    return told


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "run" / "unet" / "diffusion_pytorch_model.safetensors")


def test_two_rounds_and_one_that_was_ended(
    tmp_path: Path, finepref: Run, stages: list[tuple[str, ...]], early: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Each round starts from the one before; ended in the middle and called again, the weights are the same bits."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    code, out, err = finepref(*WORDS, *early, "--by", "lab", "--rounds", "2", "--out", whole)
    assert code == 0, err
    found = read_rounds(whole)
    assert [played.number for played in found.rounds] == [1, 2]
    assert [played.sets for played in found.rounds] == [16, 16]
    assert found.ended
    assert "result: " in out
    (train,) = [words for words in stages if words[0] == "train" and "round-02" in str(words)]
    config = (whole / "round-02" / "run" / "config.yaml").read_text()
    assert f"init_from: {whole / 'round-01' / 'run'}" in config, train
    board = json.loads((whole / "round-02" / "board" / "ratings.json").read_text())
    assert {row["name"] for row in board["models"]} == {"base", "round-1", "early"}
    metrics = {gain.metric: gain.trained for gain in found.rounds[1].gains}
    assert metrics == {"lab-true": False, "lab-reward": True}

    done = len(stages)
    assert finepref(*WORDS, *early, "--by", "lab", "--rounds", "2", "--out", whole)[0] == 0
    assert len(stages) == done
    code, _, err = finepref(*WORDS, *early, "--by", "lab", "--rounds", "2", "--seed", "1", "--out", whole)
    assert code == 2
    assert "asked for otherwise: seed (" in err

    real, left = closed_loop.run_stage, [7]

    def ends(stage: Stage, starter: Starter, *, workers: int, number: str) -> Timing:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(stage, starter, workers=workers, number=number)

    monkeypatch.setattr(closed_loop, "run_stage", ends)
    assert finepref(*WORDS, *early, "--by", "lab", "--rounds", "2", "--out", halves)[0] == 130
    left[0] = 10
    assert finepref(*WORDS, *early, "--by", "lab", "--rounds", "2", "--out", halves)[0] == 130
    left[0] = 99
    assert finepref(*WORDS, *early, "--by", "lab", "--rounds", "2", "--out", halves)[0] == 0
    for number in ("round-01", "round-02"):
        ours, theirs = weights(halves / number), weights(whole / number)
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    strip = lambda record: [(each.number, each.sets, each.kept, each.gains) for each in record.rounds]  # noqa: E731
    assert strip(read_rounds(halves)) == strip(found)


def test_people_are_waited_for_and_one_model_is_enough(
    tmp_path: Path, finepref: Run, stages: list[tuple[str, ...]]
) -> None:
    out = tmp_path / "rounds"
    code, said, err = finepref(*WORDS, "--by", "people", "--rounds", "1", "--out", out)
    assert code == 0, err
    assert "round 1 waits for votes: 0 of 16 sets have an answer" in said
    assert read_study(out / "round-01" / "study").models == ("base, seed 1000", "base, seed 1001")
    assert finepref("collect", out / "round-01" / "study", "--by", "lab", "--sets", "16")[0] == 0
    assert finepref(*WORDS, "--by", "people", "--rounds", "1", "--out", out)[0] == 0
    assert read_rounds(out).rounds[0].sets == 16
    assert [row.name for row in read_ratings(out / "round-01" / "board").models] == ["base"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--judge", "lab-reward"), "would judge what is learned from it"),
        (("--by", "nobody", "--rounds", "1"), "nobody"),
        (("--judge", "nosuch"), "nosuch"),
        (("--scorer", "lab-nosuch"), "lab-nosuch"),
        (("--method", "nosuch"), "nosuch"),
        (("--also", "base=lab"), "is a name of the rounds' own models"),
        (("train.nosuch=1",), "nosuch"),
        (("--images", "1"), "nothing to be compared with"),
    ],
)
def test_what_cannot_be(
    tmp_path: Path, finepref: Run, stages: list[tuple[str, ...]], change: tuple[str, ...], said: str
) -> None:
    also = () if "--also" in change or "--images" in change else ("--also", "early=lab")
    at = WORDS.index("--images") if "--images" in change else len(WORDS)
    code, _, err = finepref(*WORDS[:at], *WORDS[at + 2 :], *also, *change, "--out", tmp_path / "rounds")
    assert code == 2
    assert said in err
    assert not any(words[0] == "generate" for words in stages)
    assert not (tmp_path / "rounds" / "rounds.json").exists()


@pytest.mark.parametrize("option", ["--judge", "--scorer"])
def test_a_scorer_that_cannot_be_opened(
    tmp_path: Path, finepref: Run, stages: list[tuple[str, ...]], option: str
) -> None:
    (tmp_path / "clip").mkdir()
    code, _, err = finepref(*WORDS, option, f"clip@{tmp_path / 'clip'}", "--out", tmp_path / "rounds")
    assert code == 2
    assert str(tmp_path / "clip") in err
    assert not stages


def test_prompts_that_are_not_there(tmp_path: Path, finepref: Run, stages: list[tuple[str, ...]]) -> None:
    words = ["nowhere.txt" if word == "lab-eval" else word for word in WORDS]
    code, _, err = finepref(*words, "--also", "early=lab", "--by", "lab", "--out", tmp_path / "rounds")
    assert code == 2
    assert "nowhere.txt" in err
    assert not stages


def test_a_reward_is_known_by_its_name_however_it_is_spelled(tmp_path: Path) -> None:
    """A judge of that name would judge what is learned from it."""
    place = tmp_path / "clip"
    place.mkdir()
    request = closed_loop.RoundsRequest(
        base="lab", out=tmp_path, prompts="lab-train", held_out="lab-eval", rounds=1, sets=1, by="lab", people=1,
        images=1, also=("early=lab",), judges=("pickscore",), scorers=(f"pickscore@{place}",),
    )  # fmt: skip
    with pytest.raises(InputError, match="pickscore would judge what is learned from it"):
        closed_loop.check_asked(request)
