"""Paths and official grids against the schedulers of diffusers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDPMScheduler,
    EDMDPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from finepref.core.errors import ConfigError
from finepref.diffusion import forward
from finepref.diffusion.path import FLOW, from_scheduler_config, scaled_linear
from finepref.diffusion.trajectories import TRAJECTORIES
from small_network import SmallNetwork, latents

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def test_scaled_linear_is_the_schedulers_table() -> None:
    """Bit for bit, in float64."""
    table = scaled_linear().alpha_bar
    assert table is not None
    assert table.dtype == torch.float64
    assert torch.equal(table, DDPMScheduler(**SD).alphas_cumprod.double())


@pytest.mark.parametrize(
    "config",
    [
        SD,
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 200},
        {"trained_betas": [0.01, 0.02, 0.05]},
        {**SD, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ],
)
def test_any_scheduler_config(config: dict[str, Any]) -> None:
    """x_t and the v target equal add_noise and get_velocity of the scheduler that the config describes."""
    scheduler = DDPMScheduler(**config)
    path = from_scheduler_config({**scheduler.config, "prediction_type": "v_prediction"})
    count = scheduler.config.num_train_timesteps if "trained_betas" not in config else 3
    t = torch.tensor([0, count // 2, count - 1])
    x0, noise = latents(1, 3, "x0", dtype=torch.float32), latents(1, 3, "noise", dtype=torch.float32)
    placed = forward.place(x0, -x0, t, path=path, noise=noise)
    torch.testing.assert_close(placed.xt_w, scheduler.add_noise(x0, noise, t), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(placed.target_w, scheduler.get_velocity(x0, noise, t), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(placed.xt_l, scheduler.add_noise(-x0, noise, t), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(placed.target_l, scheduler.get_velocity(-x0, noise, t), rtol=1e-6, atol=1e-6)


PUBLISHED = {
    "PNDMScheduler": {"num_train_timesteps": 1000, "set_alpha_to_one": False, "steps_offset": 1, "trained_betas": None},
    "EulerDiscreteScheduler": {"prediction_type": "epsilon", "timestep_spacing": "leading", "use_karras_sigmas": False},
    "DDIMScheduler": {"prediction_type": "v_prediction", "clip_sample": False, "set_alpha_to_one": False},
}
"""What the scheduler files of SD 1.5, SDXL and SD 2.1 hold beside their betas."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_scheduler_files_are_read(name: str) -> None:
    path = from_scheduler_config({"_class_name": name, **SD, **PUBLISHED[name]})
    assert path.alpha_bar is not None
    assert torch.equal(path.alpha_bar, DDPMScheduler(**SD).alphas_cumprod.double())
    assert path.parametrisation == PUBLISHED[name].get("prediction_type", "epsilon")


def test_a_scheduler_without_betas_is_refused() -> None:
    """Playground v2.5 is an SDXL pipeline on EDM's path; diffusers' default betas would be read in silence."""
    edm = dict(EDMDPMSolverMultistepScheduler().config)
    message = "EDMDPMSolverMultistepScheduler has no beta_schedule, so its noise path is not known; take a base with"
    with pytest.raises(ConfigError, match=f"scheduler_config.json: {message}"):
        from_scheduler_config({"_class_name": "EDMDPMSolverMultistepScheduler", **edm})
    with pytest.raises(ConfigError, match="has EDM's sigma_data"):
        from_scheduler_config({**SD, "sigma_data": 0.5})
    with pytest.raises(ConfigError, match="has EDM's sigma_data"):
        from_scheduler_config({"trained_betas": [0.01, 0.02], "sigma_data": 0.5})
    for name in SD:
        with pytest.raises(ConfigError, match=f"the scheduler has no {name}"):
            from_scheduler_config({**SD, name: None})
        with pytest.raises(ConfigError, match=f"the scheduler has no {name}"):
            from_scheduler_config({key: value for key, value in SD.items() if key != name})
    assert from_scheduler_config({"trained_betas": [0.01, 0.02]}).discrete


def test_flow_matching() -> None:
    """x_s = (1 - s) x0 + s eps as scale_noise; the velocity is eps - x0."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    assert from_scheduler_config({"_class_name": "FlowMatchEulerDiscreteScheduler"}) is FLOW
    x0, noise = latents(2, 1, "x0", dtype=torch.float32), latents(2, 1, "noise", dtype=torch.float32)
    for index in (0, 400, 999):
        s = scheduler.sigmas[index : index + 1].double()
        placed = forward.place(x0, x0, s, path=FLOW, noise=noise)
        wanted = scheduler.scale_noise(x0, scheduler.timesteps[index : index + 1], noise)
        torch.testing.assert_close(placed.xt_w, wanted, rtol=1e-6, atol=1e-6)
        assert torch.equal(placed.target_w, noise - x0)


@pytest.mark.parametrize("parametrisation", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("steps", "t"), [(5, 500), (5, 2), (5, 201), (5, 999), (10, 321), (3, 334), (3, 335), (20, 777)]
)
def test_official_current_grid(steps: int, t: int, parametrisation: Any) -> None:
    """The grid of today's DDIMInverseScheduler, loop and labels included, epsilon and v."""
    scheduler = DDIMInverseScheduler(
        **SD, steps_offset=1, set_alpha_to_one=False, clip_sample=False, prediction_type=parametrisation
    )
    scheduler.set_timesteps(steps)
    network = SmallNetwork(4)
    x0 = torch.cat([latents(3, 1, "w"), latents(3, 1, "l")])
    x, rows = x0, torch.arange(2)
    for level in scheduler.timesteps:
        if level < t:
            prediction = network(x, level.expand(2), rows)
            x = scheduler.step(prediction, level, x).prev_sample
    mine = SmallNetwork(4)
    row = TRAJECTORIES["ddim_inversion"]
    placed = row.place(
        x0[:1],
        x0[1:],
        torch.tensor([t]),
        path=scaled_linear(parametrisation=parametrisation),
        options=row.options(grid="official-current", steps=steps),
        denoise=mine,
    )
    assert mine.seen == network.seen
    assert len(mine.seen) >= 1
    torch.testing.assert_close(torch.cat([placed.xt_w, placed.xt_l]), x.detach(), rtol=1e-6, atol=1e-6)


def test_official_020_differs_from_current() -> None:
    """The pinned scheduler's first label is negative and it ends one level higher."""
    levels = {}
    for grid in ("official-0.20", "official-current"):
        network, row = SmallNetwork(5), TRAJECTORIES["ddim_inversion"]
        x0 = latents(4, 1)
        row.place(
            x0, x0, torch.tensor([500]), path=scaled_linear(), options=row.options(grid=grid, steps=5), denoise=network
        )
        levels[grid] = [t[0] for t, _ in network.seen]
    assert levels == {"official-0.20": [-199, 1, 201, 401], "official-current": [1, 201, 401]}


def test_half_precision_latents_do_not_lose_the_schedule() -> None:
    """Tables are gathered in float64 and multiply in float32: at t = 1, bfloat16 would make b(t) zero."""
    x0 = latents(6, 2, dtype=torch.bfloat16)
    t = torch.tensor([0, 1])
    a, b = scaled_linear().coefficients(t, x0)
    assert a.dtype == b.dtype == torch.float32
    wanted = (1 - DDPMScheduler(**SD).alphas_cumprod.double()[t]).sqrt()
    torch.testing.assert_close(b.flatten().double(), wanted, rtol=1e-6, atol=0)


def test_unknown_prediction_type() -> None:
    """A scheduler that predicts something else is refused with a name."""
    with pytest.raises(ConfigError, match="did you mean 'epsilon'"):
        from_scheduler_config({**SD, "prediction_type": "epsilonn"})
