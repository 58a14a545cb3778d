"""Objectives: values and gradients from formulas written a second time in numpy, edges, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from finepref.core import rng
from finepref.core.errors import ConfigError
from finepref.core.tensors import ObjectiveOutput, PairPrediction, PairSignal
from finepref.objectives.core import advantage_logit, mean_square, pair_errors
from finepref.objectives.dmpo import dmpo
from finepref.objectives.dpo import conservative_dpo, dpo, hinge
from finepref.objectives.dspo import dspo, dspo_brier, dspo_shift
from finepref.objectives.linear_dpo import linear_dpo
from finepref.objectives.mapo import mapo, phi
from finepref.objectives.published import huaishengzhu_dspo_sdxl, jaydenlyh_smpo
from finepref.objectives.sft import sft
from finepref.objectives.table import GUARDS, OBJECTIVES

PAIRS = 5


def normal(*words: object, shape: tuple[int, ...] = (PAIRS, 3, 4, 4), dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(3, *words), dtype=dtype)


@pytest.fixture
def pred() -> PairPrediction:
    """Policies near their reference, as in training, with the reference's tensors."""
    made = {}
    for side in "wl":
        target = normal("target", side)
        reference = target + 0.4 * normal("reference", side)
        made |= {
            f"target_{side}": target,
            f"ref_{side}": reference,
            f"policy_{side}": (reference + 0.02 * normal("policy", side)).requires_grad_(True),
        }
    return PairPrediction(**made)


@pytest.fixture
def signal() -> PairSignal:
    return PairSignal(margin=normal("margin", shape=(PAIRS,)), weight=normal("weight", shape=(PAIRS,)).exp())


def sigmoid(u: np.ndarray) -> np.ndarray:
    return np.where(u >= 0, 1 / (1 + np.exp(-np.abs(u))), np.exp(-np.abs(u)) / (1 + np.exp(-np.abs(u))))


def parts(pred: PairPrediction, signal: PairSignal, gain: float) -> dict[str, np.ndarray]:
    """Errors, residuals and logit in numpy, written from the paper's text."""
    a = {
        name: getattr(pred, name).detach().numpy()
        for name in ("policy_w", "policy_l", "ref_w", "ref_l", "target_w", "target_l")
    }
    error = {
        f"{net}_{side}": ((a[f"{net}_{side}"] - a[f"target_{side}"]) ** 2).mean(axis=(1, 2, 3))
        for net in ("policy", "ref")
        for side in "wl"
    }
    better = (error["ref_w"] - error["policy_w"]) - (error["ref_l"] - error["policy_l"])
    u = gain * signal.weight.numpy() * better - signal.margin.numpy()
    return {"L_w": error["policy_w"], "L_l": error["policy_l"], "u": u, "better": better, **a}


def expected(name: str, p: dict[str, np.ndarray], own: dict[str, float], signal: PairSignal) -> np.ndarray:
    s = sigmoid(p["u"])
    shift = p["policy_w"] - p["ref_w"]
    if name == "sft":
        return p["L_w"]
    if name == "dpo":
        return np.logaddexp(0, -p["u"])
    if name == "hinge":
        return np.maximum(0, 1 - p["u"])
    if name == "conservative_dpo":
        return (1 - own["epsilon"]) * np.logaddexp(0, -p["u"]) + own["epsilon"] * np.logaddexp(0, p["u"])
    if name == "linear_dpo":
        return np.minimum(np.maximum(0.5 - 0.4 * p["u"], own["eta"]), 1 - own["eta"]) * (p["L_w"] - p["L_l"])
    if name == "dspo":
        c = own["lambda_residual"] * (1 - s)[:, None, None, None]
        return ((p["policy_w"] - p["target_w"] - c * shift) ** 2).mean(axis=(1, 2, 3))
    if name == "dspo_brier":
        return (1 - s) ** 2
    if name == "dspo_shift":
        return (1 - s) ** 2 * (shift**2).mean(axis=(1, 2, 3))
    if name == "dmpo":
        q = 1 - own["alpha"]
        return s * np.log(s / q) + (1 - s) * np.log((1 - s) / (1 - q))
    assert name == "mapo"
    x_w, x_l = own["snr_value"] * p["L_w"], own["snr_value"] * p["L_l"]
    u = own["timesteps"] * signal.weight.numpy() * (x_w / np.expm1(x_w) - x_l / np.expm1(x_l)) - signal.margin.numpy()
    return p["L_w"] + own["beta"] * np.logaddexp(0, -u)


CASES: dict[str, tuple[Callable[..., ObjectiveOutput], dict[str, float]]] = {
    "sft": (sft, {}),
    "dpo": (dpo, {"beta": 300.0}),
    "hinge": (hinge, {"beta": 300.0}),
    "conservative_dpo": (conservative_dpo, {"beta": 300.0, "epsilon": 0.2}),
    "linear_dpo": (linear_dpo, {"beta": 300.0, "eta": 0.05}),
    "dspo": (dspo, {"beta": 300.0, "lambda_residual": 0.7}),
    "dspo_brier": (dspo_brier, {"beta": 300.0}),
    "dspo_shift": (dspo_shift, {"beta": 300.0}),
    "dmpo": (dmpo, {"beta": 300.0, "alpha": 0.03}),
    "mapo": (mapo, {"beta": 0.4, "snr_value": 0.8, "timesteps": 50.0}),
}


@pytest.mark.parametrize("name", CASES)
def test_value(name: str, pred: PairPrediction, signal: PairSignal) -> None:
    """Every objective is its formula, pair by pair."""
    function, own = CASES[name]
    output = function(pred, signal, **own)
    assert output.loss.shape == (PAIRS,)
    wanted = expected(name, parts(pred, signal, own.get("beta", 0.0) / 2), own, signal)
    np.testing.assert_allclose(output.loss.detach().numpy(), wanted, rtol=1e-11)
    for statistic in output.stats.values():
        assert statistic.shape == (PAIRS,)
        assert not statistic.requires_grad


@pytest.mark.parametrize("name", [name for name in CASES if name != "linear_dpo"])  # below
def test_gradient(name: str, pred: PairPrediction, signal: PairSignal) -> None:
    """The gradient of the summed loss is its finite difference, for winner and loser."""
    function, own = CASES[name]
    leaves = (pred.policy_w, pred.policy_l)
    found = torch.autograd.grad(function(pred, signal, **own).loss.sum(), leaves, allow_unused=True)
    for field, leaf, gradient in zip(("policy_w", "policy_l"), leaves, found, strict=True):
        direction = normal("direction", field)
        ends = []
        for sign in (1, -1):
            moved = replace(pred, **{field: leaf.detach() + sign * 1e-5 * direction})
            ends.append(function(moved, signal, **own).loss.sum().item())
        slope = 0.0 if gradient is None else (gradient * direction).sum().item()
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-7)


def test_linear_dpo_has_no_gradient_through_its_coefficient(pred: PairPrediction, signal: PairSignal) -> None:
    """c times the gradient of L_w - L_l; 0.5 of it, whatever beta, where policy and reference are one."""
    leaves = (pred.policy_w, pred.policy_l)
    output = linear_dpo(pred, signal, beta=300.0, eta=0.05)
    found = torch.autograd.grad(output.loss.sum(), leaves)
    errors = pair_errors(pred)
    wanted = torch.autograd.grad((output.stats["coefficient"] * (errors.w - errors.l)).sum(), leaves)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    same = replace(pred, policy_w=pred.ref_w, policy_l=pred.ref_l)
    none = PairSignal(margin=torch.zeros(PAIRS), weight=torch.ones(PAIRS))
    assert linear_dpo(same, none, beta=300.0, eta=0.05).stats["coefficient"].tolist() == [0.5] * PAIRS


def test_conservative_dpo_is_torch_s_cross_entropy(pred: PairPrediction, signal: PairSignal) -> None:
    """Of the soft label 1 - epsilon; without doubt in the labels it is DPO; at u = 0 it is ln 2 for every epsilon."""
    for epsilon in (0.0, 0.1, 0.45):
        output = conservative_dpo(pred, signal, beta=300.0, epsilon=epsilon)
        label = torch.full((PAIRS,), 1 - epsilon, dtype=torch.float64)
        wanted = torch.nn.functional.binary_cross_entropy_with_logits(output.stats["u"], label, reduction="none")
        torch.testing.assert_close(output.loss.detach(), wanted, rtol=1e-12, atol=0)
    assert torch.equal(conservative_dpo(pred, signal, beta=300.0, epsilon=0.0).loss, dpo(pred, signal, beta=300.0).loss)


def test_table_covers_every_objective() -> None:
    """A row of the table has its row in the tests: here, below for KTO, or among the published quirks."""
    assert {name for name, row in OBJECTIVES.items() if row.needs.paired and not row.batch_dependent} == set(CASES)


def test_statistics(pred: PairPrediction, signal: PairSignal) -> None:
    """L, A, u, implicit accuracy and sigmoid(-u) are what their names say."""
    p, stats = parts(pred, signal, 150.0), dpo(pred, signal, beta=300.0).stats
    np.testing.assert_allclose(stats["L_w"], p["L_w"], rtol=1e-12)
    np.testing.assert_allclose(stats["L_l"], p["L_l"], rtol=1e-12)
    np.testing.assert_allclose(stats["A_w"] - stats["A_l"], p["better"], rtol=1e-9)
    np.testing.assert_allclose(stats["u"], p["u"], rtol=1e-9)
    np.testing.assert_allclose(stats["sigmoid_minus_u"], sigmoid(-p["u"]), rtol=1e-9)
    assert stats["implicit_accuracy"].tolist() == [float(value > 0) for value in p["better"]]
    assert set(mapo(pred, signal, beta=0.1, snr_value=0.5, timesteps=1000).stats) >= {"L_w", "L_l", "u"}
    assert set(sft(pred, signal).stats) == {"L_w"}


def test_implicit_accuracy_ignores_the_margin(pred: PairPrediction) -> None:
    """A pair that the policy orders rightly counts, however large its margin; a draw does not."""
    p = parts(pred, PairSignal(margin=torch.zeros(PAIRS), weight=torch.ones(PAIRS)), 150.0)
    far = PairSignal(margin=torch.full((PAIRS,), 50.0), weight=torch.ones(PAIRS))
    assert dpo(pred, far, beta=300.0).stats["implicit_accuracy"].tolist() == (p["better"] > 0).astype(float).tolist()
    same = replace(pred, policy_w=pred.ref_w, policy_l=pred.ref_l)
    assert dpo(same, far, beta=300.0).stats["implicit_accuracy"].tolist() == [0.0] * PAIRS


def test_reference_errors_and_tensors_agree(pred: PairPrediction, signal: PairSignal) -> None:
    """Two scalars do where an objective only needs errors; tensors and scalars give the same loss."""
    given = replace(
        pred,
        ref_w=None,
        ref_l=None,
        ref_error_w=mean_square(pred.ref_w, pred.target_w),
        ref_error_l=mean_square(pred.ref_l, pred.target_l),
    )
    for name, (function, own) in CASES.items():
        if OBJECTIVES[name].needs.reference == "tensors":
            with pytest.raises(ValueError, match="ref_w"):
                function(given, signal, **own)
        else:
            assert torch.equal(function(given, signal, **own).loss, function(pred, signal, **own).loss), name


@pytest.mark.parametrize("name", CASES)
def test_missing_reference(name: str, pred: PairPrediction, signal: PairSignal) -> None:
    """Objectives that need a reference refuse a prediction without one, the others do not look for it."""
    function, own = CASES[name]
    bare = replace(pred, ref_w=None, ref_l=None)
    if OBJECTIVES[name].needs.reference == "none":
        assert torch.equal(function(bare, signal, **own).loss, function(pred, signal, **own).loss)
    else:
        with pytest.raises(ValueError, match="reference"):
            function(bare, signal, **own)


def test_error_scale_multiplies_every_error(pred: PairPrediction, signal: PairSignal) -> None:
    """A loss space is a factor on L and L_ref alike, given or computed, and on DSPO's residual."""
    scale = torch.linspace(0.3, 2.0, PAIRS, dtype=torch.float64)
    scaled = replace(pred, error_scale=scale)
    root = scale.sqrt().view(-1, 1, 1, 1)
    by_hand = PairPrediction(
        **{
            name: getattr(pred, name) * root
            for name in ("policy_w", "policy_l", "target_w", "target_l", "ref_w", "ref_l")
        }
    )
    for name, (function, own) in CASES.items():
        found = function(scaled, signal, **own).loss
        torch.testing.assert_close(found, function(by_hand, signal, **own).loss, rtol=1e-9, atol=0, msg=name)
    scalars = replace(
        scaled,
        ref_w=None,
        ref_l=None,
        ref_error_w=mean_square(pred.ref_w, pred.target_w),
        ref_error_l=mean_square(pred.ref_l, pred.target_l),
    )
    torch.testing.assert_close(dpo(scalars, signal, beta=300.0).loss, dpo(scaled, signal, beta=300.0).loss)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_promoted(dtype: torch.dtype) -> None:
    """Half-precision predictions are subtracted, squared and averaged in float32, policy and reference alike."""
    tensors = {
        f"{kind}_{side}": normal(kind, side, shape=(2, 4, 16, 16)).to(dtype)
        for kind in ("policy", "target", "ref")
        for side in "wl"
    }
    none = PairSignal(margin=torch.zeros(2), weight=torch.ones(2))
    found = pair_errors(PairPrediction(**tensors))
    exact = pair_errors(PairPrediction(**{name: value.double() for name, value in tensors.items()}))
    for side in ("w", "l", "ref_w", "ref_l"):
        assert getattr(found, side).dtype == torch.float32
        torch.testing.assert_close(getattr(found, side).double(), getattr(exact, side), rtol=2e-6, atol=0)
    assert advantage_logit(exact, none, beta=5000).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_policy_equal_to_reference_is_ln_2(dtype: torch.dtype) -> None:
    """Equal networks give u == 0 exactly and a loss of ln 2, in every precision and at every beta."""
    target = {side: normal("t", side, shape=(3, 4, 32, 32)).to(dtype) for side in "wl"}
    both = {side: normal("p", side, shape=(3, 4, 32, 32)).to(dtype) for side in "wl"}
    pred = PairPrediction(
        policy_w=both["w"],
        policy_l=both["l"],
        target_w=target["w"],
        target_l=target["l"],
        ref_w=both["w"],
        ref_l=both["l"],
    )
    output = dpo(pred, PairSignal(margin=torch.zeros(3), weight=torch.ones(3)), beta=5000)
    assert output.stats["u"].tolist() == [0.0, 0.0, 0.0]
    assert output.loss.tolist() == pytest.approx([math.log(2)] * 3, rel=1e-7)


def test_zero_weight_keeps_the_margin(pred: PairPrediction) -> None:
    """w = 0 leaves u = -m: a constant loss without gradient, still one pair of the mean."""
    signal = PairSignal(margin=torch.tensor([0.0, 1.0, -2.0, 3.0, 0.5]).double(), weight=torch.zeros(PAIRS).double())
    loss = dpo(pred, signal, beta=5000).loss
    np.testing.assert_allclose(loss.detach(), np.logaddexp(0, signal.margin), rtol=1e-12)
    for gradient in torch.autograd.grad(loss.sum(), (pred.policy_w, pred.policy_l)):
        assert gradient.abs().max() == 0


def test_large_logits_stay_finite(pred: PairPrediction, signal: PairSignal) -> None:
    """No objective overflows where a run has gone far."""
    far = replace(pred, policy_w=pred.policy_w + 30, policy_l=pred.policy_l - 10)
    for name, (function, own) in CASES.items():
        options = {**own, "beta": 5000.0} if "beta" in own else own
        for one in (far, replace(far, policy_w=far.policy_l, policy_l=far.policy_w)):
            loss = function(one, signal, **options).loss
            assert torch.isfinite(loss).all(), name
            for gradient in torch.autograd.grad(loss.sum(), (pred.policy_w, pred.policy_l), allow_unused=True):
                assert gradient is None or torch.isfinite(gradient).all(), name


def test_dspo_without_residual_is_sft(pred: PairPrediction, signal: PairSignal) -> None:
    """lambda_residual = 0 is SFT, bit for bit, in value and gradient."""
    one, two = dspo(pred, signal, beta=300.0, lambda_residual=0.0).loss, sft(pred, signal).loss
    assert torch.equal(one, two)
    left, right = (torch.autograd.grad(loss.sum(), pred.policy_w)[0] for loss in (one, two))
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-15)


def test_mapo_without_pair_term_is_sft(pred: PairPrediction, signal: PairSignal) -> None:
    """beta = 0 is SFT."""
    assert torch.equal(mapo(pred, signal, beta=0.0, snr_value=0.5, timesteps=1000.0).loss, sft(pred, signal).loss)


def test_dmpo_is_zero_where_the_model_agrees() -> None:
    """KL(p || q) = 0 at sigmoid(u) = 1 - alpha, positive elsewhere."""
    alpha = 0.2
    zero = torch.zeros(3, 1, 1, 1, dtype=torch.float64)
    margin = torch.tensor([-math.log(4.0), 1.0, -4.0], dtype=torch.float64)
    pred = PairPrediction(policy_w=zero, policy_l=zero, target_w=zero, target_l=zero, ref_w=zero, ref_l=zero)
    loss = dmpo(pred, PairSignal(margin=margin, weight=torch.ones(3)), beta=1.0, alpha=alpha).loss
    assert loss[0].item() == pytest.approx(0, abs=1e-15)
    assert (loss[1:] > 0.05).all()


def test_phi_matches_mpmath() -> None:
    """phi and its slope against 40 digits, from 0 over the series' end to the far tail, in float64 and float32."""
    mp = pytest.importorskip("mpmath")
    with mp.workdps(40):
        points = [0.0, 1e-12, 1e-6, 0.01, 0.2, 0.4999, 0.5, 0.5001, 1.0, 3.0, 40.0, 300.0]
        k = mp.mpf("0.5")
        value = [mp.mpf(1) if x == 0 else k * x / mp.expm1(k * x) for x in map(mp.mpf, points)]
        slope = [
            -k / 2 if x == 0 else k * (mp.expm1(k * x) - k * x * mp.exp(k * x)) / mp.expm1(k * x) ** 2
            for x in map(mp.mpf, points)
        ]
    for dtype, rtol in ((torch.float64, 1e-12), (torch.float32, 3e-6)):
        loss = torch.tensor(points, dtype=dtype, requires_grad=True)
        found = phi(loss, snr_value=0.5)
        np.testing.assert_allclose(found.detach().double(), [float(v) for v in value], rtol=rtol, atol=1e-44)
        (gradient,) = torch.autograd.grad(found.sum(), loss)
        np.testing.assert_allclose(gradient.double(), [float(v) for v in slope], rtol=10 * rtol, atol=1e-44)


def test_published_quirks_couple_a_batch(pred: PairPrediction, signal: PairSignal) -> None:
    """The modes named after repositories do what their repositories do, and so are marked in the table."""
    first = jaydenlyh_smpo(pred, signal, beta=300.0).loss
    repeated = PairSignal(margin=signal.margin, weight=signal.weight[0].expand(PAIRS))
    assert torch.equal(first, dpo(pred, repeated, beta=300.0).loss)
    assert not torch.allclose(first, dpo(pred, signal, beta=300.0).loss)
    shift = mean_square(pred.policy_w.detach(), pred.ref_w).mean().item()
    for threshold, branch in ((shift * 0.99, dspo_shift), (shift * 1.01, dspo_brier)):
        found = huaishengzhu_dspo_sdxl(pred, signal, beta=300.0, threshold=threshold).loss
        assert torch.equal(found, branch(pred, signal, beta=300.0).loss)
    marked = {name for name, row in OBJECTIVES.items() if row.batch_dependent}
    assert marked == {"kto", "huaishengzhu_dspo_sdxl", "jaydenlyh_smpo"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dpo", {"beta": 0}),
        ("dpo", {"beta": float("nan")}),
        ("dpo", {"betta": 1}),
        ("sft", {"beta": 5000}),
        ("dspo", {"lambda_residual": -0.1}),
        ("dmpo", {"alpha": 0}),
        ("dmpo", {"alpha": 1}),
        ("mapo", {"beta": -1}),
        ("mapo", {"snr_value": 0}),
        ("kto", {"utility": "cautious"}),
        ("kto", {"lambda_desirable": -1}),
    ],
)
def test_options_refuse(name: str, options: dict[str, Any]) -> None:
    """Bounds and unknown keys are refused when the options are read."""
    with pytest.raises(ValueError, match=next(iter(options))):
        OBJECTIVES[name].options(**options)


def test_zero_is_a_number() -> None:
    """Zero is kept where it is allowed."""
    assert OBJECTIVES["dspo"].options(lambda_residual=0).model_dump()["lambda_residual"] == 0
    assert OBJECTIVES["mapo"].options(beta=0).model_dump()["beta"] == 0
    assert OBJECTIVES["kto"].options(lambda_undesirable=0).model_dump()["lambda_undesirable"] == 0


def test_unknown_objective_names_the_nearest() -> None:
    """A typing error is answered with the right name."""
    with pytest.raises(ConfigError, match="did you mean 'dspo_brier'"):
        OBJECTIVES["dspo_bier"]
    with pytest.raises(ConfigError, match=r"guard\.name.*did you mean 'sdpo'"):
        GUARDS["spdo"]
