"""The table of trajectories: where a pair is looked at.

Their functions by the names of their rows: `forward(x0_w, x0_l, t, path=path, noise=noise)`; `renoise` with its options
and a denoiser. A path is that of a scheduler: `from_scheduler_config(pipeline.scheduler.config)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from finepref.core.errors import ConfigError, InputError
from finepref.core.options import Options, check_function
from finepref.core.rows import RowTable
from finepref.core.tensors import Placed
from finepref.diffusion.forward import place as forward
from finepref.diffusion.inversion import place as ddim_inversion
from finepref.diffusion.path import from_scheduler_config
from finepref.diffusion.programme import lowest_t
from finepref.diffusion.trajectory_options import InversionOptions, RenoiseOptions

__all__ = [
    "TRAJECTORIES", "InversionOptions", "RenoiseOptions", "TrajectoryRow", "ddim_inversion", "forward",
    "from_scheduler_config", "renoise",
]  # fmt: skip
renoise = ddim_inversion
HANDED = ("path", "options", "noise", "denoise", "draw")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryRow:
    """One trajectory.

    place: (x0_w, x0_l, t, *, path, options, noise, denoise, draw) -> Placed.
    options: pydantic model, of `InversionOptions` where it uses the network. uses_network: whether it calls the
    denoiser (else it uses noise). lowest_t: options -> the lowest discrete level that may be drawn.
    """

    name: str
    place: Callable[..., Placed]
    options: type[Options] = Options
    uses_network: bool = False
    lowest_t: Callable[[Any], int] = lambda options: 0
    source: str = ""
    deviations: str = ""


def _of_grid(options: InversionOptions) -> int:
    return lowest_t(options.grid)


def check_trajectory(row: TrajectoryRow) -> None:
    """Refuse a trajectory that cannot be called like ours.

    Raises:
        InputError: arguments or options that differ.
    """
    check_function(row.place, Options, *HANDED, positional=3)
    check_function(lambda **_: None, row.options, positional=0)
    if row.uses_network != issubclass(row.options, InversionOptions):
        raise InputError("only one of uses_network and InversionOptions", remedy="a network needs their options")


TRAJECTORIES = RowTable("trajectory", TrajectoryRow, (
    TrajectoryRow(
        name="forward", place=forward, source="Diffusion-DPO (arXiv 2311.12908)", deviations="none",
    ),
    TrajectoryRow(
        name="ddim_inversion", place=ddim_inversion, options=InversionOptions, uses_network=True, lowest_t=_of_grid,
        source="DDIM-InPO", deviations="exact levels by default; own depth for every pair",
    ),
    TrajectoryRow(
        name="renoise", place=renoise, options=RenoiseOptions, uses_network=True, lowest_t=_of_grid,
        source="SmPO-Diffusion Eq. 13-16", deviations="exact levels by default; own depth for every pair",
    ),
), where="trajectory.name", error=ConfigError, check=check_trajectory)  # fmt: skip
