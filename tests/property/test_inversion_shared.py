"""Several levels of a pair on one trajectory: what is read on the way, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from drawn import examples
from finepref.core.tensors import Placed
from finepref.diffusion.path import FLOW, Path, scaled_linear
from finepref.diffusion.programme import mean_calls, programme
from finepref.diffusion.trajectories import TRAJECTORIES
from finepref.diffusion.trajectory_options import InversionOptions, RenoiseOptions
from small_network import SmallNetwork, keyed_draw, latents

SD = scaled_linear()
LEVELS = [[37, 201, 202, 999], [5, 5, 640, 641], [2, 300, 900, 950]]


def put(own: dict[str, Any], t: list[Any], rows: list[int], path: Path = SD) -> tuple[Placed, SmallNetwork]:
    """Place pairs `rows` of a fixed world at levels t (numbers, or lists of numbers)."""
    world = {side: latents(8, 12, side)[torch.tensor(rows)] for side in "wl"}
    conditions = latents(8, 12, "cond")[torch.tensor(rows), :, 0, 0]
    network = SmallNetwork(8, scale=1000.0 if path.discrete else 1.0, conditions=torch.cat([conditions, -conditions]))
    row = TRAJECTORIES[own.get("name", "renoise")]
    options = row.options(**{key: value for key, value in own.items() if key != "name"})
    kind = torch.int64 if path.discrete else torch.float64
    placed = row.place(
        world["w"],
        world["l"],
        torch.tensor(t, dtype=kind),
        path=path,
        options=options,
        denoise=network,
        draw=keyed_draw(8, rows),
    )
    return placed, network


@pytest.mark.parametrize("grid", ["official-0.20", "official-current"])
@pytest.mark.parametrize("own", [{"name": "ddim_inversion"}, {"renoise": "each", "average": True}, {"renoise": "each"}])
def test_official_grids_read_on_the_way_what_a_pair_alone_reaches(grid: str, own: dict[str, Any]) -> None:
    """There a lower level's steps are the first ones of a higher level's: equal x_t and targets."""
    own = {**own, "grid": grid, "steps": 5}
    shared, network = put(own, LEVELS, [0, 1, 2])
    assert shared.t.tolist() == [level for levels in LEVELS for level in levels]
    for pair, levels in enumerate(LEVELS):
        for place, level in enumerate(levels):
            alone, _ = put(own, [level], [pair])
            row = 4 * pair + place
            for field in ("xt_w", "xt_l", "target_w", "target_l"):
                torch.testing.assert_close(
                    getattr(shared, field)[row : row + 1], getattr(alone, field), rtol=1e-13, atol=1e-13
                )
    highest, alone_network = put(own, [levels[-1] for levels in LEVELS], [0, 1, 2])
    assert network.sizes == alone_network.sizes
    torch.testing.assert_close(shared.xt_w[3::4], highest.xt_w, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("own", [{"name": "ddim_inversion"}, {"renoise": "last"}, {"renoise": "each", "average": True}])
@pytest.mark.parametrize("path", [SD, FLOW])
def test_exact_levels_stop_at_every_level(own: dict[str, Any], path: Path) -> None:
    """The lowest level is reached as a pair alone reaches it; the next in as many steps from there."""
    levels = [120, 500, 930] if path.discrete else [0.12, 0.5, 0.93]
    shared, network = put({**own, "steps": 9}, [levels], [3], path)
    alone, before = put({**own, "steps": 9}, [levels[0]], [3], path)
    torch.testing.assert_close(shared.xt_w[:1], alone.xt_w, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(shared.target_l[:1], alone.target_l, rtol=1e-12, atol=1e-12)
    assert network.seen[: len(before.seen)] == before.seen
    steps = 2 + 4 + 4
    extra = {"ddim_inversion": 0, "last": 3, "each": steps}[own.get("renoise", "ddim_inversion")]
    assert len(network.sizes) == steps + extra


def test_one_step_by_hand() -> None:
    """DDIM in one step to each of two levels: the second step starts at the first level, with its prediction."""
    placed, network = put({"name": "ddim_inversion", "steps": 1}, [[300, 800]], [4])
    assert [t[0] for t, _ in network.seen] == [0, 300]
    assert SD.alpha_bar is not None
    a = {t: SD.alpha_bar[t].item() for t in (0, 300, 800)}

    def move(x: Tensor, source: int, destination: int) -> Tensor:
        eps = network(x, torch.tensor([source, source]), torch.tensor([0, 1])).detach()
        x0 = (x - (1 - a[source]) ** 0.5 * eps) / a[source] ** 0.5
        return a[destination] ** 0.5 * x0 + (1 - a[destination]) ** 0.5 * eps

    first = move(torch.cat([latents(8, 12, "w")[4:5], latents(8, 12, "l")[4:5]]), 0, 300)
    second = move(first, 300, 800)
    torch.testing.assert_close(placed.xt_w, torch.cat([first[:1], second[:1]]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(placed.xt_l, torch.cat([first[1:], second[1:]]), rtol=1e-12, atol=1e-12)
    assert placed.t.tolist() == [300, 800]


def test_last_refines_before_every_level_that_is_read() -> None:
    plan = programme(torch.tensor([[250, 500]]), path=SD, options=RenoiseOptions(steps=8))
    assert plan.refine.flatten().tolist() == [False, False, False, True, False, False, False, True]
    assert plan.label.flatten().tolist() == [0, 83, 167, 250, 250, 333, 417, 500]
    assert plan.reads.tolist() == [[4], [8]]
    assert plan.calls.tolist() == [8]


@given(
    t=st.lists(st.lists(st.integers(2, 999), min_size=3, max_size=3).map(sorted), min_size=1, max_size=4),
    steps=st.integers(1, 12),
    renoise=st.sampled_from(["last", "each"]),
    grid=st.sampled_from(["exact", "official-0.20", "official-current"]),
    eta=st.sampled_from([0.0, 0.3]),
)
@examples(40)
def test_shared_property(t: list[list[int]], steps: int, renoise: str, grid: str, eta: float) -> None:
    """Any levels: a batch equals its pairs, x_t = a(t) x0 + b(t) tau, and as many calls as the longest trajectory."""
    own = {"steps": steps, "renoise": renoise, "grid": grid, "eta": eta}
    placed, network = put(own, t, list(range(len(t))))
    depths = []
    for pair, levels in enumerate(t):
        alone, single = put(own, [levels], [pair])
        depths.append(len(single.sizes))
        torch.testing.assert_close(placed.xt_l[3 * pair : 3 * pair + 3], alone.xt_l, rtol=1e-11, atol=1e-11)
    assert len(network.sizes) == max(depths)
    assert sum(network.sizes) == 2 * sum(depths)
    x0 = latents(8, 12, "w")[: len(t)].repeat_interleave(3, dim=0)
    torch.testing.assert_close(SD.add_noise(x0, placed.target_w, placed.t), placed.xt_w, rtol=1e-9, atol=1e-9)


def test_mean_calls_are_those_that_are_made() -> None:
    """Over many stratified draws: the calls of `place` are what is planned."""
    options = RenoiseOptions(steps=9, share=4)
    draw = torch.Generator().manual_seed(3)
    parts = (torch.arange(4) + torch.rand(2000, 4, generator=draw, dtype=torch.float64)) / 4
    t = SD.draw_t(parts.flatten(), lowest=1).view(2000, 4)
    x0, images = torch.zeros(2000, 1, 1, 1), 0

    def denoise(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        nonlocal images
        images += len(x)
        return x * 0

    TRAJECTORIES["renoise"].place(x0, x0, t, path=SD, options=options, denoise=denoise)
    assert images / 4000 == pytest.approx(mean_calls(options, SD), rel=0.01)
    assert mean_calls(options, SD) < 4 * mean_calls(RenoiseOptions(steps=9), SD)
    assert mean_calls(InversionOptions(share=1), SD) == pytest.approx(5.0, abs=0.51)
