"""The table of trajectories: where a pair is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from finepref.core.batches import Placed
from finepref.core.errors import ConfigError, nearest
from finepref.diffusion import forward, inversion
from finepref.diffusion.programme import lowest_t
from finepref.diffusion.trajectory_options import ForwardOptions, InversionOptions, RenoiseOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One trajectory.

    place: (x0_w, x0_l, t, *, path, options, noise, denoise, draw) -> Placed.
    options: pydantic model. uses_network: whether it calls the denoiser (else it uses noise).
    lowest_t: options -> the lowest discrete level that may be drawn.
    """

    name: str
    place: Callable[..., Placed]
    options: type[BaseModel]
    uses_network: bool
    lowest_t: Callable[[BaseModel], int]
    reference: str
    deviations: str
    golden: str


def _lowest_of_grid(options: BaseModel) -> int:
    assert isinstance(options, InversionOptions)
    return lowest_t(options.grid)


def _lowest_forward(options: BaseModel) -> int:
    return 0


ROWS: tuple[Row, ...] = (
    Row(
        name="forward",
        place=forward.place,
        options=ForwardOptions,
        uses_network=False,
        lowest_t=_lowest_forward,
        reference="Diffusion-DPO (arXiv 2311.12908)",
        deviations="none",
        golden="forward_noising.json",
    ),
    Row(
        name="ddim_inversion",
        place=inversion.place,
        options=InversionOptions,
        uses_network=True,
        lowest_t=_lowest_of_grid,
        reference="DDIM-InPO",
        deviations="exact levels by default; own depth for every pair",
        golden="inpo_inversion_official.json",
    ),
    Row(
        name="renoise",
        place=inversion.place,
        options=RenoiseOptions,
        uses_network=True,
        lowest_t=_lowest_of_grid,
        reference="SmPO-Diffusion Eq. 13-16",
        deviations="exact levels by default; own depth for every pair",
        golden="smpo_inversion_paper.json, smpo_inversion_official.json",
    ),
)

TABLE: Mapping[str, Row] = {row.name: row for row in ROWS}


def get(name: str) -> Row:
    """The row of a trajectory.

    Raises:
        ConfigError: an unknown name, with the nearest valid one.
    """
    if name not in TABLE:
        raise ConfigError(f"unknown trajectory {name!r}", where="trajectory.name", remedy=nearest(name, TABLE))
    return TABLE[name]
