"""Inversions of a batch: every pair as if it were alone, at the price of the longest."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from drawn import examples
from finepref.core.errors import ConfigError
from finepref.core.tensors import Placed
from finepref.diffusion.inversion import guided
from finepref.diffusion.path import FLOW, Path, scaled_linear
from finepref.diffusion.programme import exact_levels, lowest_t, programme, steps_to
from finepref.diffusion.trajectories import TRAJECTORIES
from finepref.diffusion.trajectory_options import InversionOptions, RenoiseOptions
from small_network import SmallNetwork, keyed_draw, latents

SD = scaled_linear()
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("ddim_inversion", {}),
    "inpo": ("ddim_inversion", {"eta": 0.1}),
    "inpo official": ("ddim_inversion", {"grid": "official-0.20", "steps": 10, "eta": 0.1}),
    "smpo": ("renoise", {}),
    "smpo eta": ("renoise", {"eta": 0.3, "average": True}),
    "smpo official": (
        "renoise",
        {"grid": "official-0.20", "steps": 5, "renoise": "each", "label": "source", "average": True},
    ),
    "smpo today": ("renoise", {"grid": "official-current", "steps": 5, "renoise": "each", "average": True}),
    "each": ("renoise", {"renoise": "each"}),
}


def put(
    name: str, own: dict[str, Any], t: list[float], rows: list[int], path: Path = SD
) -> tuple[Placed, SmallNetwork, InversionOptions]:
    """Place the pairs `rows` of a fixed world of 12; conditions and draws belong to the pair."""
    world = {side: latents(8, 12, side) for side in "wl"}
    conditions = latents(8, 12, "cond")[:, :, 0, 0]
    chosen = torch.tensor(rows)
    network = SmallNetwork(
        8,
        scale=1000.0 if path.discrete else 1.0,
        conditions=torch.cat([conditions[chosen], -conditions[chosen]]),
    )
    row = TRAJECTORIES[name]
    options = row.options(**own)
    assert isinstance(options, InversionOptions)
    placed = row.place(
        world["w"][chosen],
        world["l"][chosen],
        torch.tensor(t, dtype=torch.int64 if path.discrete else torch.float64),
        path=path,
        options=options,
        denoise=network,
        draw=keyed_draw(8, rows),
    )
    return placed, network, options


def depth(path: Path, options: InversionOptions, t: float) -> int:
    """Network calls of a pair that is alone."""
    steps = len(steps_to(t, grid=options.grid, steps=options.steps, path=path))
    if not isinstance(options, RenoiseOptions):
        return steps
    return 2 * steps if options.renoise == "each" else steps + 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_equals_its_pairs(variant: str) -> None:
    """Placed together or alone: the same x_t and targets, to the last bits; nothing depends on a neighbour's level."""
    name, own = VARIANTS[variant]
    t = [37, 999, 500, 2, 201, 640]
    together, _, _ = put(name, own, t, list(range(6)))
    for index, level in enumerate(t):
        alone, _, _ = put(name, own, [level], [index])
        for field in ("xt_w", "xt_l", "target_w", "target_l", "t"):
            one, many = getattr(alone, field), getattr(together, field)[index : index + 1]
            torch.testing.assert_close(one, many, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("variant", VARIANTS)
def test_calls_are_the_longest_pairs(variant: str) -> None:
    """The network is called as often as the longest pair needs, with pairs that have arrived left out."""
    name, own = VARIANTS[variant]
    t = [37, 999, 500, 2, 201, 640]
    _, network, options = put(name, own, t, list(range(6)))
    depths = [depth(SD, options, level) for level in t]
    assert len(network.sizes) == max(depths)
    assert len(set(depths)) > 1
    assert sum(network.sizes) == 2 * sum(depths)
    assert network.sizes == sorted(network.sizes, reverse=True)


@given(
    t=st.lists(st.integers(2, 999), min_size=1, max_size=6),
    steps=st.integers(1, 12),
    renoise=st.sampled_from(["last", "each"]),
    label=st.sampled_from(["source", "destination"]),
    average=st.booleans(),
    grid=st.sampled_from(["exact", "official-0.20", "official-current"]),
)
@examples(40)
def test_ragged_property(t: list[int], steps: int, renoise: str, label: str, average: bool, grid: str) -> None:
    """Any levels, any knobs: calls == longest, finite, and x_t = a(t) x0 + b(t) tau exactly."""
    own = {"steps": steps, "renoise": renoise, "label": label, "average": average, "grid": grid}
    placed, network, options = put("renoise", own, list(t), list(range(len(t))))
    assert len(network.sizes) == max(depth(SD, options, level) for level in t)
    back = SD.add_noise(latents(8, 12, "w")[: len(t)], placed.target_w, placed.t)
    torch.testing.assert_close(back, placed.xt_w, rtol=1e-9, atol=1e-9)
    assert not placed.xt_w.requires_grad
    assert not placed.target_l.requires_grad


@given(t=st.integers(1, 999), steps=st.one_of(st.integers(1, 40), st.integers(900, 1000)))
def test_exact_levels(t: int, steps: int) -> None:
    """From 0 to t in max(1, ceil(steps t / 999)) strictly rising integer steps of nearly equal length."""
    levels = exact_levels(t, steps=steps, path=SD)
    count = min(t, max(1, -(-steps * t // 999)))
    assert levels[0] == 0
    assert levels[-1] == t
    assert len(levels) == count + 1
    gaps = [high - low for low, high in itertools.pairwise(levels)]
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1
    assert all(abs(level - k * t / count) <= 0.5 for k, level in enumerate(levels))


@given(s=st.floats(1e-4, 1.0), steps=st.integers(1, 40))
def test_exact_levels_of_a_flow(s: float, steps: int) -> None:
    """Equal steps from 0 to s, at most `steps` and none longer than 1 / steps."""
    levels = exact_levels(s, steps=steps, path=FLOW)
    assert levels[0] == 0
    assert levels[-1] == s
    assert len(levels) - 1 <= steps
    assert s / (len(levels) - 1) <= (1 + 1e-6) / steps
    assert all(high > low for low, high in itertools.pairwise(levels))


def test_paper_example() -> None:
    """9 steps at the top, 1 near the data: the published numbers of steps; labels of the source, refined at t."""
    assert [len(steps_to(t, grid="exact", steps=9, path=SD)) for t in (1, 111, 112, 888, 999)] == [1, 1, 2, 8, 9]
    plan = programme(torch.tensor([500]), path=SD, options=RenoiseOptions(steps=5))
    assert exact_levels(500, steps=15, path=SD) == [0, 62, 125, 188, 250, 312, 375, 438, 500]
    assert plan.label.flatten().tolist() == [0, 167, 333, 500]
    assert plan.source.flatten().tolist() == [0, 167, 333, 333]
    assert plan.destination.flatten().tolist() == [167, 333, 500, 500]
    assert plan.refine.flatten().tolist() == [False, False, False, True]
    assert plan.final.flatten().tolist() == [True, True, False, True]


@pytest.mark.parametrize(("grid", "lowest"), [("exact", 1), ("official-0.20", 0), ("official-current", 2)])
def test_lowest_t(grid: Any, lowest: int) -> None:
    """At the lowest level a step is made and the target is finite; below it the trajectory refuses."""
    assert lowest_t(grid) == lowest
    assert TRAJECTORIES["renoise"].lowest_t(RenoiseOptions(grid=grid)) == lowest
    placed, network, _ = put("ddim_inversion", {"grid": grid}, [lowest], [0])
    assert len(network.sizes) == 1
    assert torch.isfinite(placed.target_w).all()
    if lowest > 0:
        with pytest.raises(ValueError, match=f"draw t from {lowest} on"):
            put("ddim_inversion", {"grid": grid}, [lowest - 1], [0])


def test_renoise_last_by_hand() -> None:
    """SmPO Eq. 13-14 written out for one pair: step, step, then the last step again with the reached point's noise."""
    placed, network, _ = put("renoise", {"steps": 4}, [400], [3])
    assert [t[0] for t, _ in network.seen] == [0, 200, 400]
    assert SD.alpha_bar is not None
    a = {t: SD.alpha_bar[t].item() for t in (0, 200, 400)}

    def move(x: Tensor, eps: Tensor, source: int, destination: int) -> Tensor:
        x0 = (x - (1 - a[source]) ** 0.5 * eps) / a[source] ** 0.5
        return a[destination] ** 0.5 * x0 + (1 - a[destination]) ** 0.5 * eps

    def eps(x: Tensor, t: int) -> Tensor:
        return network(x, torch.tensor([t, t]), torch.tensor([0, 1])).detach()

    x0 = torch.cat([latents(8, 12, "w")[3:4], latents(8, 12, "l")[3:4]])
    first = move(x0, eps(x0, 0), 0, 200)
    hat = move(first, eps(first, 200), 200, 400)
    wanted = move(first, eps(hat, 400), 200, 400)
    torch.testing.assert_close(torch.cat([placed.xt_w, placed.xt_l]), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", ["ddim", "smpo", "each"])
def test_flow_by_hand(variant: str) -> None:
    """Euler up the flow: with the true constant velocity of a straight line x_s and its target come out exactly."""
    name, own = VARIANTS[variant]
    row = TRAJECTORIES[name]
    x0_w, x0_l, eps = latents(9, 3, "w"), latents(9, 3, "l"), latents(9, 3, "eps")
    velocity = torch.cat([eps - x0_w, eps - x0_l])
    s = torch.tensor([0.2, 0.55, 1.0], dtype=torch.float64)
    placed = row.place(x0_w, x0_l, s, path=FLOW, options=row.options(**own), denoise=lambda x, t, rows: velocity[rows])
    torch.testing.assert_close(placed.xt_w, FLOW.add_noise(x0_w, eps, s), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(placed.target_l, eps - x0_l, rtol=1e-12, atol=1e-12)
    ragged, network, options = put(name, own, [0.1, 0.93, 0.5], [0, 1, 2], FLOW)
    assert len(network.sizes) == max(depth(FLOW, options, level) for level in (0.1, 0.93, 0.5))
    for index, level in enumerate((0.1, 0.93, 0.5)):
        alone, _, _ = put(name, own, [level], [index], FLOW)
        torch.testing.assert_close(alone.xt_l, ragged.xt_l[index : index + 1], rtol=1e-12, atol=1e-12)


def test_eta_is_ddpm_noise() -> None:
    """One step with eta adds eta * sqrt((1-A_s)/(1-A_d) (1 - A_d/A_s)) * z to the step without."""
    still, _, _ = put("ddim_inversion", {"steps": 1}, [300], [5])
    noisy, _, _ = put("ddim_inversion", {"steps": 1, "eta": 0.7}, [300], [5])
    assert SD.alpha_bar is not None
    a_s, a_d = SD.alpha_bar[0].item(), SD.alpha_bar[300].item()
    sd = ((1 - a_s) / (1 - a_d) * (1 - a_d / a_s)) ** 0.5
    z = keyed_draw(8, [5])(torch.tensor([0]), torch.tensor([0]))
    torch.testing.assert_close(noisy.xt_w - still.xt_w, 0.7 * sd * z, rtol=1e-9, atol=1e-12)


def test_guided() -> None:
    """Scale 1 and 0 are one network alone; others extrapolate."""
    with_prompt, without = SmallNetwork(1), SmallNetwork(2)
    x, t, rows = latents(1, 2), torch.tensor([5, 9]), torch.tensor([0, 1])
    one, zero = with_prompt(x, t, rows), without(x, t, rows)
    assert torch.equal(guided(with_prompt, without, scale=1)(x, t, rows), one)
    assert torch.equal(guided(with_prompt, without, scale=0)(x, t, rows), zero)
    assert len(with_prompt.sizes) == len(without.sizes) == 2
    torch.testing.assert_close(guided(with_prompt, without, scale=7.5)(x, t, rows), zero + 7.5 * (one - zero))


def test_refusals() -> None:
    """What is missing is said; what a flow cannot do is a config error; unknown names name the nearest."""
    x0, t = latents(1, 1), torch.tensor([5])
    with pytest.raises(ValueError, match="noise"):
        TRAJECTORIES["forward"].place(x0, x0, t, path=SD)
    with pytest.raises(ValueError, match="denoise"):
        TRAJECTORIES["renoise"].place(x0, x0, t, path=SD, options=RenoiseOptions())
    with pytest.raises(ValueError, match="draw"):
        TRAJECTORIES["renoise"].place(x0, x0, t, path=SD, options=RenoiseOptions(eta=0.1), denoise=SmallNetwork(1))
    for own, place in (({"grid": "official-0.20"}, "grid"), ({"eta": 0.1}, "eta")):
        with pytest.raises(ConfigError, match=rf"trajectory\.{place}"):
            put("ddim_inversion", own, [0.5], [0], FLOW)
    with pytest.raises(ConfigError, match="did you mean 'renoise'"):
        TRAJECTORIES["renoyse"]
    for wrong in ({"steps": 0}, {"eta": -1}, {"renoise": "none"}, {"labels": "source"}, {"cfg": float("inf")}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RenoiseOptions.model_validate(wrong)
    assert RenoiseOptions(cfg=0).cfg == 0
