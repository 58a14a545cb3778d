"""The method table: published combinations are all there, their words are words of the axes, their files exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from finepref.cli.main import COMMANDS
from finepref.core.errors import ConfigError
from finepref.core.tensors import ImagePrediction, PairPrediction, PairSignal
from finepref.diffusion.trajectories import TRAJECTORIES
from finepref.diffusion.trajectory_options import RenoiseOptions
from finepref.objectives.dpo import dpo
from finepref.objectives.kto import KtoOptions, kto
from finepref.objectives.table import GUARDS, OBJECTIVES
from finepref.plan import methods
from finepref.signals.kinds import SIGNALS
from finepref.signals.make import check_request

DOCS = Path(__file__).parents[2] / "docs" / "objectives.md"
GOLDENS = Path(__file__).parents[1] / "goldens"
PUBLISHED = {
    "sft",
    "dpo",
    "dpo_hinge",
    "uniform_margin",
    "arenapo",
    "arenapo_dspo",
    "arenapo_dspo_brier",
    "dspo",
    "dspo_sdxl_shift",
    "dspo_sdxl_brier",
    "dmpo",
    "mapo",
    "kto",
    "sdpo_dpo",
    "sdpo_dspo",
    "sdpo_dmpo",
    "inpo",
    "smpo",
    "reward_margin",
    "reward_relabel",
    "reward_soft",
    "linear_dpo",
    "npo",
    "conservative_dpo",
}
UNPUBLISHED = {
    "arenapo_smpo_trajectory",
    "smpo_sdpo",
    "arena_image_dspo",
    "posterior",
    "arena_fused",
    "dpo_norm",
    "plackett_luce",
}


def test_every_method_is_there() -> None:
    """Both papers, their baselines, what came since, and seven of nobody."""
    assert {m.name for m in methods.shipped()} >= PUBLISHED | UNPUBLISHED
    assert {m.name for m in methods.shipped() if m.about.source.startswith("unpublished")} == UNPUBLISHED


@pytest.mark.parametrize("method", methods.shipped(), ids=lambda m: m.name)
def test_a_method_is_made_of_words_of_its_axes(method: methods.NamedMethod) -> None:
    """Signal kinds and options are those of `finepref signals`; needs follow from them; golden files exist."""
    needs = method.needs()
    check_request(
        method.about.signal or ("binary",),
        method.about.options,
        ratings=needs["arena"],
        rewards=needs["reward"],
    )
    assert method.about.golden
    assert all((GOLDENS / file).exists() for file in method.about.golden)
    assert method.about.deviations
    assert (method.lab_config is None) == ("real" in method.about.bases)


def test_documented() -> None:
    """Every row of every axis has its row in docs/objectives.md: the fourth edit of a new one."""
    text = DOCS.read_text(encoding="utf-8")
    for name in OBJECTIVES:
        assert f"| `{name}` |" in text, name
    for name in TRAJECTORIES:
        assert f"| `{name}` |" in text, name
    for kind in SIGNALS:
        assert kind in text, kind


def test_statistics_and_knobs_are_documented() -> None:
    """What a run logs has its row in docs/explanation/flat_losses.md; objectives.md names all knobs of inversions."""
    text = DOCS.read_text(encoding="utf-8")
    watched = (DOCS.parent / "explanation" / "flat_losses.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"`(\w+)`", "".join(line for line in watched.splitlines() if line.startswith("| `"))))
    one = torch.ones(2, 1, 1, 1)
    pair = PairPrediction(policy_w=one, policy_l=one, target_w=one, target_l=one, ref_w=one, ref_l=one)
    guarded, statistics = GUARDS["sdpo"].function(pair, mu=0.9, scope="sample")
    image = ImagePrediction(policy=one, target=one, label=torch.tensor([0, 1]), ref_error=torch.ones(2))
    signal = PairSignal(margin=torch.zeros(2), weight=torch.ones(2))
    logged = {*statistics, *dpo(guarded, signal, beta=1.0).stats, *kto(image, **KtoOptions().model_dump()).stats}
    assert {"guard_lambda", "A_w", "A_desirable", "A_undesirable", "anchor"} <= logged
    assert logged <= rows
    knobs = text.partition("## Trajectories")[2].partition("## Signals")[0]
    for option in RenoiseOptions.model_fields:
        assert re.search(rf"`(trajectory\.)?{option}\b", knobs), option
    assert "`train.trajectory_cache" in knobs


def test_unknown_method() -> None:
    """The nearest name is offered."""
    with pytest.raises(ConfigError, match="did you mean 'arenapo'"):
        methods.get("arenpo")


@pytest.mark.parametrize("method", methods.shipped(), ids=lambda m: m.name)
def test_source_is_an_equation_or_says_that_there_is_none(method: methods.NamedMethod) -> None:
    """Paper and equation, or its table or appendix where the text has no equation, or the code alone, or nobody."""
    assert re.search(r" Eq\. \d| Table \d| Appendix [A-Z]|code only|^unpublished", method.about.source)


def test_plain_list_says_where_the_rest_is() -> None:
    """What the table has no column for is one command away."""
    done = subprocess.run([sys.executable, "-m", "finepref", "methods"], capture_output=True, text=True, check=True)
    *_, last = done.stdout.splitlines()
    assert all(word in last for word in ("-c lab/NAME", "finepref methods NAME", "golden", "eviations", "--json"))
    for kind in SIGNALS:
        assert f"signal {kind}: " in done.stdout


def test_command() -> None:
    """`finepref methods --json` has the methods with what they need, and every option with its default."""
    assert "methods" in COMMANDS
    done = subprocess.run(
        [sys.executable, "-m", "finepref", "methods", "--json"], capture_output=True, text=True, check=True
    )
    content = json.loads(done.stdout)
    by_name = {row["name"]: row for row in content["methods"]}
    assert by_name["smpo"]["needs"] == {
        "paired": True,
        "reference": "errors",
        "labels": False,
        "reward": True,
        "arena": False,
    }
    assert by_name["kto"]["needs"]["paired"] is False
    assert by_name["arenapo_dspo"]["needs"]["reference"] == "tensors"
    assert content["objective"]["dmpo"]["options"]["alpha"]["default"] == 0.01
    assert content["trajectory"]["renoise"]["options"]["steps"]["default"] == 9
    assert content["guard"]["sdpo"]["options"]["mu"]["default"] == 0.9
    assert by_name["arenapo"]["lab_config"] == "lab/arenapo"
    assert by_name["arenapo"]["golden"] == ["arena.json", "composed_reconstructions.json"]
    assert list(content["signal"]) == list(SIGNALS)
    options = {kind: set(row["options"]) for kind, row in content["signal"].items()}
    assert options["smoothed"] == {"gamma", "quantile", "extremes"}
    assert options["image"] == {"clip", "rho"}
    assert content["signal"]["uniform"]["options"]["margin"] == {
        "default": 1,
        "description": "The margin of every pair.",
    }
    for axis in ("signal", "objective", "trajectory", "guard"):
        for row in content[axis].values():
            assert all(option["description"] for option in row["options"].values())
