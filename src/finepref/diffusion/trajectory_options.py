"""Options of the trajectories, and of their grids. Frozen, checked, no unknown key."""

from __future__ import annotations

from typing import Literal

from finepref.core.options import Options, told

Grid = Literal["exact", "official-0.20", "official-current"]
Renoise = Literal["none", "last", "each"]
Label = Literal["source", "destination"]


class InversionOptions(Options):
    """DDIM inversion. steps 9: SmPO-Diffusion's text; the official grids use 5 (SmPO SD1.5) or 10."""

    network: Literal["policy", "reference"] = told(
        "policy", "Which network inverts: the current policy (official code) or the frozen reference (InPO's text)."
    )
    grid: Grid = told(
        "exact",
        "exact: levels end at t (paper). official-0.20 / official-current: DDIMInverseScheduler of diffusers 0.20 "
        "(pinned by InPO and SmPO) or of today, whose last level is near t, not at it.",
    )
    steps: int = told(
        9,
        "exact: steps of a pair at the highest level, fewer in proportion below; official grids: number of grid "
        "entries.",
        ge=1,
        le=1000,
    )
    eta: float = told(0.0, "Fresh noise after every step, in DDPM standard deviations (InPO: 0.1).", ge=0)
    cfg: float = told(1.0, "Guidance of the inversion: 1 is the conditional prediction, 0 the unconditional one.")
    share: int = told(
        1,
        "Levels at which a pair is looked at on one trajectory, one in each equal part of the range; paid for once.",
        ge=1,
        le=100,
    )

    @property
    def passes(self) -> int:
        """Network passes of one call: 2 where guidance asks with and without the prompt."""
        return 1 if self.cfg in (0, 1) else 2


class RenoiseOptions(InversionOptions):
    """DDIM inversion with ReNoise. Defaults: SmPO-Diffusion Eq. 13-14 (once, at the end, label of the destination)."""

    renoise: Literal["last", "each"] = told("last", "Refine the last step (paper) or every step (official code).")
    label: Label = told(
        "destination", "Level told to the network when refining: the step's own (official code) or the one reached."
    )
    average: bool = told(False, "Step with the mean of the first and the refined prediction (official code).")


def refinement(options: InversionOptions) -> tuple[Renoise, Label, bool]:
    """(which steps are refined, at which label, whether predictions are averaged); none for plain DDIM inversion."""
    if isinstance(options, RenoiseOptions):
        return options.renoise, options.label, options.average
    return "none", "source", False
