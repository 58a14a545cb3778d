"""examples/objectives_of_others.py: its lines against 40 digits, and two steps of each on the lab."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mpmath
import pytest
import torch

import finepref
import one_process
from finepref.core.tensors import PairPrediction, PairSignal
from finepref.objectives.table import OBJECTIVES, ObjectiveRow

FILE = Path(__file__).parents[2] / "examples" / "objectives_of_others.py"
U = (-30.0, -3.0, -0.4, 0.0, 0.7, 5.0)
SMALL = ("train.max_steps=2", "train.pairs_per_step=4", "train.micro_batch=4", "train.checkpoint_every=0")


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, ObjectiveRow]:
    """The rows that the file registers, checked as registering does, but not kept for other tests."""
    found: dict[str, ObjectiveRow] = {}

    def keep(*, objective: ObjectiveRow) -> None:
        OBJECTIVES.check(objective)
        found[objective.name] = objective

    monkeypatch.setattr(finepref, "register", keep)
    runpy.run_path(str(FILE))
    return found


def drawn(u: tuple[float, ...]) -> tuple[PairPrediction, PairSignal, torch.Tensor]:
    """Pairs whose logit is u at beta 2, weight 1, margin 0; their winners' errors."""
    given = torch.tensor(u, dtype=torch.float64)
    error_w = torch.linspace(0.2, 0.9, len(u), dtype=torch.float64)
    policy = error_w.sqrt()[:, None, None, None].expand(-1, 4, 2, 2).clone().requires_grad_()
    zero = torch.zeros_like(policy).detach()
    pred = PairPrediction(
        policy_w=policy, policy_l=zero + 1.0, target_w=zero, target_l=zero,
        ref_error_w=error_w + given, ref_error_l=torch.ones(len(u), dtype=torch.float64),
    )  # fmt: skip
    ones = torch.ones(len(u), dtype=torch.float64)
    return pred, PairSignal(margin=0 * ones, weight=ones), error_w


def sigmoid(u: mpmath.mpf) -> mpmath.mpf:
    return 1 / (1 + mpmath.exp(-u))


def poly(u: mpmath.mpf, error: mpmath.mpf) -> mpmath.mpf:
    return -mpmath.log(sigmoid(u)) + mpmath.mpf("0.5") * (1 - sigmoid(u))


def divergence(u: mpmath.mpf, error: mpmath.mpf) -> mpmath.mpf:
    """Amari's alpha-divergence generator at alpha 1/2, written as 2 (1 - sqrt p)^2."""
    return 2 * (1 - mpmath.sqrt(sigmoid(u))) ** 2


def beside(u: mpmath.mpf, error: mpmath.mpf) -> mpmath.mpf:
    return -mpmath.log(sigmoid(u)) + error


@pytest.mark.parametrize(("name", "line"), [("poly_dpo", poly), ("alpha_dpo", divergence), ("dpo_sft", beside)])
def test_lines(rows: dict[str, ObjectiveRow], name: str, line: Callable[..., mpmath.mpf]) -> None:
    """Loss, and its slope in the winner's error, which lowers u by as much as it rises."""
    pred, signal, error = drawn(U)
    row = rows[name]
    found = row.function(pred, signal, **{**row.options().model_dump(), "beta": 2.0})
    (slope,) = torch.autograd.grad(found.loss.sum(), pred.policy_w)
    with mpmath.workdps(40):
        for i, (u, e) in enumerate(zip(U, error.tolist(), strict=True)):
            assert found.loss[i].item() == pytest.approx(float(line(mpmath.mpf(u), mpmath.mpf(e))), rel=1e-9, abs=1e-12)
            wanted = mpmath.diff(lambda d, u=u, e=e: line(u - d, e + d), 0)
            got = slope[i].sum() / (2 * error[i].sqrt())  # dL/dpolicy = 2 policy / n, over the n values of an image
            assert float(got) == pytest.approx(float(wanted), rel=1e-7, abs=1e-12)


def test_zero_is_dpo(rows: dict[str, ObjectiveRow]) -> None:
    """Without their term, Poly-DPO and DPO with SFT are DPO."""
    pred, signal, _ = drawn(U)
    plain = OBJECTIVES["dpo"].function(pred, signal, beta=2.0).loss
    for name, off in (("poly_dpo", "alpha"), ("dpo_sft", "sft")):
        torch.testing.assert_close(rows[name].function(pred, signal, beta=2.0, **{off: 0.0}).loss, plain)


@pytest.mark.slow
def test_trained(tmp_path: Path) -> None:
    """As the file's first lines say: a `--plugin`, and the name of a row."""
    (tmp_path / "rows.py").write_text(FILE.read_text(encoding="utf-8"), encoding="utf-8")
    code = one_process.CODE
    lines = ["finepref lab votes --out votes.parquet --count 40 --prompts 4"]
    for name in ("poly_dpo", "alpha_dpo", "dpo_sft"):
        words = ["finepref train -c lab/dpo --plugin rows.py --out", name, f"objective.name={name}", *SMALL]
        lines.append(" ".join([*words, "data.paths=[votes.parquet]", "cache.folder=cache"]))
    ran = subprocess.run(
        [sys.executable, "-c", code], input="\n".join(lines), cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    for name in ("poly_dpo", "alpha_dpo", "dpo_sft"):
        first = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
        assert first["step"] == 1
        assert first["u"] == pytest.approx(0, abs=1e-5)
