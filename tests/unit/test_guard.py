"""The winner-preserving guard: what it leaves alone, what it scales, and what it promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from drawn import examples
from finepref.core import rng
from finepref.core.tensors import PairPrediction, PairSignal
from finepref.objectives.dpo import dpo
from finepref.objectives.guards import GuardOptions, norm, pair_scale, sdpo


def prediction(seed: int, pairs: int = 4, dtype: torch.dtype = torch.float64) -> PairPrediction:
    """Losers that share most of their residual with their winner, as with common noise."""

    def normal(word: str) -> Tensor:
        return torch.randn((pairs, 2, 3, 3), generator=rng.torch_generator(seed, word), dtype=torch.float64)

    common = normal("common")
    sign = torch.where(torch.arange(pairs) % 3 == 2, -1.0, 1.0).view(-1, 1, 1, 1)
    tensors = {
        "policy_w": 0.3 * common + 0.1 * normal("w"),
        "policy_l": 0.5 * sign * common + 0.1 * normal("l"),
        "ref_w": 0.3 * common,
        "ref_l": 0.4 * common,
        "target_w": 0.02 * normal("tw"),
        "target_l": 0.02 * normal("tl"),
    }
    return PairPrediction(**{name: value.to(dtype) for name, value in tensors.items()})


def signal(pairs: int) -> PairSignal:
    return PairSignal(margin=torch.linspace(0, 1, pairs).double(), weight=torch.linspace(0.5, 2, pairs).double())


def by_hand(pred: PairPrediction, row: int, mu: float) -> float:
    r_w = (pred.policy_w[row] - pred.target_w[row]).flatten().tolist()
    r_l = (pred.policy_l[row] - pred.target_l[row]).flatten().tolist()
    inner = sum(x * y for x, y in zip(r_l, r_w, strict=True))
    return min(max((1 - mu) * sum(x * x for x in r_w) / inner, 0.0), 1.0) if inner > 0 else 1.0


@pytest.mark.parametrize("mu", [0.0, 0.2, 0.9, 1.0])
def test_one_lambda_per_pair(mu: float) -> None:
    """Each pair has its own lambda, equal to the formula in plain Python; opposed residuals are left alone."""
    pred = prediction(1)
    scale = sdpo(pred, mu=mu)[1]["guard_lambda"]
    assert scale.tolist() == pytest.approx([by_hand(pred, row, mu) for row in range(4)], rel=1e-12)
    assert scale[2] == 1.0
    assert mu in (0.0, 1.0) or scale.unique().numel() > 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_stay_gradients_scale(dtype: torch.dtype) -> None:
    """The loss is bitwise the same; the winner's gradient too; the loser's is multiplied by lambda."""
    pred = prediction(2, dtype=dtype)
    leaves = pred.policy_w.requires_grad_(True), pred.policy_l.requires_grad_(True)
    guarded, stats = sdpo(pred, mu=0.9)
    assert torch.equal(guarded.policy_l, pred.policy_l)
    free, kept = dpo(pred, signal(4), beta=50.0).loss, dpo(guarded, signal(4), beta=50.0).loss
    assert torch.equal(free, kept)
    plain, scaled = torch.autograd.grad(free.sum(), leaves), torch.autograd.grad(kept.sum(), leaves)
    assert torch.equal(plain[0], scaled[0])
    torch.testing.assert_close(scaled[1], plain[1] * stats["guard_lambda"].view(-1, 1, 1, 1).to(dtype))


def test_half_precision_loser() -> None:
    """A half-precision loser is promoted; its value does not change."""
    pred = prediction(3, dtype=torch.bfloat16)
    guarded, _ = sdpo(pred, mu=0.6)
    assert guarded.policy_l.dtype == torch.float32
    assert torch.equal(guarded.policy_l, pred.policy_l.float())


def test_batch_scope_is_the_published_scalar() -> None:
    """scope batch repeats one lambda made of sums over the batch."""
    pred = prediction(4)
    r_w, r_l = pred.policy_w - pred.target_w, pred.policy_l - pred.target_l
    wanted = min(1.0, (0.4 * (r_w * r_w).sum() / (r_l * r_w).sum()).item())
    assert sdpo(pred, mu=0.6, scope="batch")[1]["guard_lambda"].tolist() == pytest.approx([wanted] * 4)


def test_zero_loser_residual() -> None:
    """No residual, no conflict: lambda is 1, not nan."""
    pred = prediction(5)
    assert sdpo(replace(pred, policy_l=pred.target_l), mu=0.9)[1]["guard_lambda"].tolist() == [1.0] * 4


@given(seed=st.integers(0, 10_000), mu=st.floats(0, 1), factor=st.floats(1e-3, 1e3))
@examples(40)
def test_promise(seed: int, mu: float, factor: float) -> None:
    """0 <= lambda <= 1; the first-order change of the winner's error keeps mu of its own descent; scale-free.

    Output gradients are g_w = r_w and g_l = r_l (up to one factor); the step is -g_w + lambda g_l, and
    (-g_w + lambda g_l) . g_w <= -mu |g_w|^2.
    """
    pred = prediction(seed)
    scale = pair_scale(pred, mu=mu)
    assert ((scale >= 0) & (scale <= 1)).all()
    r_w, r_l = (pred.policy_w - pred.target_w).flatten(1), (pred.policy_l - pred.target_l).flatten(1)
    change = ((-r_w + scale[:, None] * r_l) * r_w).sum(1)
    kept = -mu * (r_w * r_w).sum(1)
    opposed = (r_l * r_w).sum(1) <= 0
    assert (opposed | (change <= kept + 1e-9 * kept.abs() + 1e-12)).all()
    names = ("policy_w", "policy_l", "target_w", "target_l")
    stretched = replace(pred, **{name: getattr(pred, name) * factor for name in names})
    torch.testing.assert_close(pair_scale(stretched, mu=mu), scale, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("wrong", [{"mu": -0.1}, {"mu": 1.5}, {"scope": "micro"}, {"mue": 0.5}])
def test_options_refuse(wrong: dict[str, object]) -> None:
    """mu in [0, 1], two scopes, nothing else."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GuardOptions.model_validate(wrong)
    assert GuardOptions(mu=0).mu == 0


def longer(pred: PairPrediction, factor_w: float, factor_l: float) -> PairPrediction:
    """Policies that are the reference's predictions, so many times as long."""
    return replace(pred, policy_w=factor_w * pred.ref_w, policy_l=factor_l * pred.ref_l)


@pytest.mark.parametrize(
    ("factors", "penalty"), [((1.0, 1.0), 0.0), ((0.5, 0.9), 0.0), ((1.2, 0.5), 0.02), ((1.1, 1.3), 0.05)]
)
def test_the_norm_guard_by_hand(factors: tuple[float, float], penalty: float) -> None:
    """Half the squares of what the lengths exceed the reference's by, times the weight; nothing for shorter ones."""
    found, stats = norm(longer(prediction(4), *factors), weight=3.0)
    torch.testing.assert_close(
        found.penalty, torch.full((4,), 3.0 * penalty, dtype=torch.float64), rtol=1e-12, atol=1e-15
    )
    torch.testing.assert_close(stats["guard_length"], torch.full((4,), sum(factors) / 2, dtype=torch.float64))


def test_the_norm_guard_pulls_along_the_prediction_alone() -> None:
    """Its gradient is weight h / |v_ref| along the unit vector of v, by autograd; values stay; it needs the tensors."""
    pred = longer(prediction(5), 1.25, 0.7)
    pred = replace(pred, policy_w=pred.policy_w.requires_grad_(), policy_l=pred.policy_l.requires_grad_())
    found, _ = norm(pred, weight=2.0)
    assert found.policy_w is pred.policy_w
    of_w, of_l = torch.autograd.grad(found.penalty.sum(), (pred.policy_w, pred.policy_l))
    assert not of_l.any()
    for row in range(4):
        v, ref = pred.policy_w[row].detach(), pred.ref_w[row]
        torch.testing.assert_close(of_w[row], 2.0 * 0.25 / ref.norm() * v / v.norm(), rtol=1e-10, atol=0)
    with pytest.raises(ValueError, match="needs the reference's predictions"):
        norm(replace(pred, ref_w=None), weight=1.0)
