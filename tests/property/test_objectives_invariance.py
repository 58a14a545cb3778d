"""A pair's loss depends on that pair alone: for every objective on every trajectory, with and without the guard."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from drawn import examples
from finepref.core import rng
from finepref.core.tensors import ImagePrediction, ObjectiveOutput, PairPrediction, PairSignal
from finepref.diffusion.path import Path, scaled_linear
from finepref.diffusion.trajectories import TRAJECTORIES
from finepref.objectives.dpo import dpo
from finepref.objectives.kto import kto
from finepref.objectives.table import GUARDS, OBJECTIVES
from finepref.plan import methods
from small_network import SmallNetwork, keyed_draw, latents

WORLD = 8
PATHS = {kind: scaled_linear(parametrisation=kind) for kind in ("epsilon", "v_prediction")}
T = [3, 850, 420, 111, 999, 640, 200, 77]
PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "forward": ("forward", {}),
    "inpo": ("ddim_inversion", {"eta": 0.1}),
    "smpo": ("renoise", {}),
    "smpo official": (
        "renoise",
        {"grid": "official-0.20", "steps": 5, "renoise": "each", "label": "source", "average": True},
    ),
}
PAIRED = [row.name for row in OBJECTIVES.values() if row.needs.paired and not row.batch_dependent]
# for every objective that has the option: at their defaults the losses of this world's large errors saturate
MILD = {"beta": 300.0, "lambda_residual": 0.5, "timesteps": 40.0}


def numbers(word: str) -> Tensor:
    return torch.rand(WORLD, generator=rng.torch_generator(12, word), dtype=torch.float64)


def signals(rows: list[int]) -> PairSignal:
    return PairSignal(margin=4 * numbers("margin")[rows] - 1, weight=2 * numbers("weight")[rows])


def step(
    rows: list[int],
    *,
    place: str,
    objective: str,
    guard: str = "none",
    kind: str = "epsilon",
    signal: PairSignal | None = None,
    own: dict[str, Any] | None = None,
) -> tuple[ObjectiveOutput, Tensor, SmallNetwork]:
    """One training step on the pairs `rows` of a fixed world: loss, gradient of its sum in the network, inversions."""
    trajectory, knobs = PLACES[place]
    row, path = TRAJECTORIES[trajectory], PATHS[kind]
    policy, reference, inverter = SmallNetwork(1), SmallNetwork(2), SmallNetwork(1)
    t = torch.tensor([T[r] for r in rows])
    placed = row.place(
        latents(12, WORLD, "w")[rows],
        latents(12, WORLD, "l")[rows],
        t,
        path=path,
        options=row.options(**knobs),
        noise=latents(12, WORLD, "noise")[rows],
        denoise=inverter,
        draw=keyed_draw(12, rows),
    )
    here = torch.arange(2 * len(rows))
    x, level = torch.cat([placed.xt_w, placed.xt_l]), torch.cat([t, t])
    predicted = policy(x, level, here)
    ref = reference(x, level, here).detach()
    count = len(rows)
    pred = PairPrediction(
        policy_w=predicted[:count],
        policy_l=predicted[count:],
        target_w=placed.target_w,
        target_l=placed.target_l,
        ref_w=ref[:count],
        ref_l=ref[count:],
        error_scale=path.error_scale(t, "epsilon"),
    )
    chosen = GUARDS[guard]
    pred, _ = chosen.function(pred, **chosen.options().model_dump())
    found = OBJECTIVES[objective]
    mild = {option: value for option, value in MILD.items() if option in found.options.model_fields}
    options = found.options(**{**mild, **(own or {})})
    output = found.function(pred, signals(rows) if signal is None else signal, **options.model_dump())
    if pred.penalty is not None:
        output = replace(output, loss=output.loss + pred.penalty)
    (gradient,) = torch.autograd.grad(output.loss.sum(), policy.weight)
    return output, gradient, inverter


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("objective", PAIRED)
def test_batch_split_invariance(objective: str, place: str, guard: str, kind: str) -> None:
    """loss(batch) is the losses of its pairs, gradients add up, and so does every statistic."""
    own: dict[str, Any] = {"place": place, "objective": objective, "guard": guard, "kind": kind}
    whole, gradient, _ = step(list(range(WORLD)), **own)
    alone = [step([row], **own) for row in range(WORLD)]
    loss = torch.cat([output.loss for output, _, _ in alone])
    torch.testing.assert_close(whole.loss, loss, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, torch.stack([g for _, g, _ in alone]).sum(0), rtol=1e-8, atol=1e-10)
    for name, statistic in whole.stats.items():
        one = torch.cat([output.stats[name] for output, _, _ in alone])
        torch.testing.assert_close(statistic, one, rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.parametrize("objective", [r.name for r in OBJECTIVES.values() if r.needs.paired and r.batch_dependent])
def test_published_quirks_are_not_invariant(objective: str) -> None:
    """The rows marked batch_dependent are so: split, their losses change."""
    rows, own = list(range(WORLD)), {}
    if objective == "huaishengzhu_dspo_sdxl":
        shift = step(rows, place="forward", objective="dspo_shift")[0]
        squared = shift.loss / (torch.sigmoid(-shift.stats["u"]) ** 2)
        own = {"threshold": squared.mean().item()}
    whole, _, _ = step(rows, place="forward", objective=objective, own=own)
    alone = torch.cat([step([row], place="forward", objective=objective, own=own)[0].loss for row in rows])
    assert not torch.allclose(whole.loss, alone, rtol=1e-3)


def test_smpo_at_batch_8_is_eight_batches_of_1() -> None:
    """SmPO's whole step: own level, depth and weight for every pair (the published code uses the first pair's)."""
    for place in ("smpo", "smpo official"):
        whole, gradient, network = step(list(range(8)), place=place, objective="dpo")
        alone = [step([row], place=place, objective="dpo") for row in range(8)]
        torch.testing.assert_close(whole.loss, torch.cat([o.loss for o, _, _ in alone]), rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(gradient, sum(g for _, g, _ in alone), rtol=1e-9, atol=1e-12)
        assert len(network.sizes) == max(len(n.sizes) for _, _, n in alone)
        assert len(network.sizes) < sum(len(n.sizes) for _, _, n in alone)


@given(order=st.permutations(range(WORLD)))
@examples(10)
def test_permuting_a_batch_permutes_its_losses(order: list[int]) -> None:
    """The order of a batch changes nothing."""
    whole, _, _ = step(list(range(WORLD)), place="smpo", objective="dspo", guard="sdpo")
    mixed, _, _ = step(order, place="smpo", objective="dspo", guard="sdpo")
    torch.testing.assert_close(mixed.loss, whole.loss[order], rtol=1e-10, atol=1e-13)


def test_kto_is_the_declared_exception() -> None:
    """Split in two, KTO's losses change through the anchor and through nothing else."""
    policy, target, reference = (latents(12, WORLD, word) for word in ("policy", "target", "reference"))
    error = (policy + 0.2 * reference - target).square().mean((1, 2, 3)) + 0.2
    label = torch.tensor([0, 1] * 4)
    own = OBJECTIVES["kto"].options(beta=3.0).model_dump()

    def losses(rows: slice, anchor: Tensor | None) -> ObjectiveOutput:
        pred = ImagePrediction(policy=policy[rows], target=target[rows], label=label[rows], ref_error=error[rows])
        return kto(pred, **own, anchor=anchor)

    whole = losses(slice(0, 8), None)
    parts = [losses(rows, None).loss for rows in (slice(0, 4), slice(4, 8))]
    assert not torch.allclose(whole.loss, torch.cat(parts), rtol=1e-6)
    anchor = whole.stats["anchor"][0]
    assert anchor > 0
    fixed = [losses(rows, anchor).loss for rows in (slice(0, 4), slice(4, 8))]
    assert torch.equal(whole.loss, torch.cat(fixed))


@pytest.mark.parametrize("place", PLACES)
def test_margin_0_and_weight_1_is_dpo_bit_for_bit(place: str) -> None:
    """The formula of Diffusion-DPO, written without margin and weight, gives the same bits."""
    rows = list(range(WORLD))
    none = PairSignal(margin=torch.zeros(WORLD), weight=torch.ones(WORLD))
    output, _, _ = step(rows, place=place, objective="dpo", signal=none)
    stats = output.stats
    plain = -torch.nn.functional.logsigmoid(150.0 * (stats["A_w"] - stats["A_l"]))
    assert torch.equal(output.loss, plain)
    assert torch.equal(stats["u"], 150.0 * (stats["A_w"] - stats["A_l"]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("place", PLACES)
def test_policy_equal_to_reference_starts_at_ln_2(place: str, dtype: torch.dtype) -> None:
    """Wherever the pair is placed, equal networks give u == 0 exactly and ln 2."""
    trajectory, own = PLACES[place]
    row, network = TRAJECTORIES[trajectory], SmallNetwork(1)
    t = torch.tensor(T)
    placed = row.place(
        latents(12, WORLD, "w").to(dtype),
        latents(12, WORLD, "l").to(dtype),
        t,
        path=PATHS["epsilon"],
        options=row.options(**own),
        noise=latents(12, WORLD, "noise").to(dtype),
        denoise=network,
        draw=keyed_draw(12, list(range(WORLD))),
    )
    predicted = network(torch.cat([placed.xt_w, placed.xt_l]), torch.cat([t, t]), torch.arange(2 * WORLD)).to(dtype)
    both = {"w": predicted[:WORLD], "l": predicted[WORLD:]}
    pred = PairPrediction(
        policy_w=both["w"],
        policy_l=both["l"],
        target_w=placed.target_w,
        target_l=placed.target_l,
        ref_w=both["w"].detach().clone(),
        ref_l=both["l"].detach().clone(),
    )
    output = dpo(pred, PairSignal(margin=torch.zeros(WORLD), weight=torch.ones(WORLD)), beta=5000.0)
    assert output.stats["u"].tolist() == [0.0] * WORLD
    assert output.loss.tolist() == pytest.approx([math.log(2)] * WORLD, rel=1e-7)


@given(seed=st.integers(0, 1000), beta=st.floats(1e-3, 1e4), margin=st.floats(0, 5))
@examples(40)
def test_swapping_winner_and_loser(seed: int, beta: float, margin: float) -> None:
    """u(w, l) = -u(l, w) at margin 0; a margin lowers both by the same amount."""
    names = ("policy", "target", "ref")
    side = {f"{name}_{s}": latents(seed, 3, name, s) for name in names for s in "wl"}
    swapped = {f"{name[:-1]}{'l' if name[-1] == 'w' else 'w'}": value for name, value in side.items()}
    signal = PairSignal(margin=torch.full((3,), margin).double(), weight=torch.linspace(0.5, 2, 3).double())
    one = dpo(PairPrediction(**side), signal, beta=beta).stats["u"]
    two = dpo(PairPrediction(**swapped), signal, beta=beta).stats["u"]
    torch.testing.assert_close(one + two, torch.full((3,), -2 * margin).double(), rtol=1e-9, atol=1e-9 * beta)


@given(t=st.integers(1, 999))
@examples(25)
def test_loss_space_epsilon_undoes_the_parametrisation(t: int) -> None:
    """One network, told as epsilon or as v: in the epsilon space errors, and so every loss, are the same."""
    x0, eps, mistake = (latents(20, 2, word) for word in ("x0", "eps", "mistake"))
    level = torch.tensor([t, t])
    found = []
    for path in PATHS.values():
        assert isinstance(path, Path)
        a, b = path.coefficients(level, x0)
        guess = eps + 0.3 * mistake
        x_t = path.add_noise(x0, eps, level)
        said = guess if path.parametrisation == "epsilon" else (guess - b * x_t) / a
        scale = path.error_scale(level, "epsilon")
        target = path.target(x0, eps, level)
        ref = target + 0.1
        pred = PairPrediction(
            policy_w=said, policy_l=target, target_w=target, target_l=target, ref_w=ref, ref_l=ref, error_scale=scale
        )
        signal = PairSignal(margin=torch.zeros(2), weight=torch.ones(2))
        found.append(dpo(pred, signal, beta=1.0).stats["L_w"])
    torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", [method.name for method in methods.shipped()])
def test_every_method_takes_a_step(name: str) -> None:
    """Every row of the method table is made of rows of its axes, with options that they accept."""
    method = methods.get(name)
    own = {axis: {key: value for key, value in row.items() if key != "name"} for axis, row in method.axes.items()}
    place, link, held = (method.axes[axis]["name"] for axis in ("trajectory", "objective", "guard"))
    trajectory, objective, guard = TRAJECTORIES[place], OBJECTIVES[link], GUARDS[held]
    assert trajectory.options(**own["trajectory"])
    objective.options(**own["objective"])
    guard.options(**own["guard"])
    assert guard.name == "none" or objective.needs.loser
    needs = method.needs()
    assert needs["reference"] == ("tensors" if guard.tensors else objective.needs.reference)
    assert needs["arena"] or "arena" not in " ".join(method.about.signal)
    if objective.needs.paired:
        PLACES["one"] = (place, own["trajectory"])
        try:
            output, gradient, _ = step([1, 2], place="one", objective=link, guard=held)
        finally:
            del PLACES["one"]
        assert torch.isfinite(output.loss).all()
        assert gradient.abs().sum() > 0
