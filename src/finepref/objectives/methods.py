"""The table of methods: published points of the product signal x trajectory x objective x guard, and a few that nobody
published. A method is nothing but its axes: every row is a config, no code knows these names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finepref.core.errors import ConfigError, nearest
from finepref.core.rows import table
from finepref.objectives.table import OBJECTIVES

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method.

    signal: kinds of `finepref signals`, empty for the votes alone. signal_options, trajectory_options,
    objective_options, guard_options: what differs from the axis' defaults. source: paper and equation, or "code only"
    where the formula was read in the code. golden: files that hold its numbers. recipe: what must come before, if
    anything.
    """

    name: str
    signal: tuple[str, ...] = ()
    signal_options: Values = field(default_factory=dict)
    trajectory: str = "forward"
    trajectory_options: Values = field(default_factory=dict)
    objective: str = "dpo"
    objective_options: Values = field(default_factory=dict)
    guard: str = "none"
    guard_options: Values = field(default_factory=dict)
    source: str
    deviations: str
    golden: tuple[str, ...]
    recipe: str = ""

    @property
    def lab_config(self) -> str:
        """The config that trains it on the lab world."""
        return f"lab/{self.name}"

    def needs(self) -> dict[str, Any]:
        """paired; reference none|errors|tensors; labels, reward, arena: whether votes, scores, ratings are needed."""
        row = OBJECTIVES[self.objective]
        kinds = [table("signal")[kind] for kind in self.signal]
        return {
            "paired": row.needs.paired,
            "reference": row.needs.reference,
            "labels": not any(kind.decides for kind in kinds),
            "reward": any("rewards" in kind.needs for kind in kinds),
            "arena": any("ratings" in kind.needs for kind in kinds),
        }

    def as_dict(self) -> dict[str, Any]:
        """Everything a table shows, as plain data."""
        return {
            "name": self.name,
            "signal": {"kinds": list(self.signal) or ["binary"], **self.signal_options},
            "trajectory": {"name": self.trajectory, **self.trajectory_options},
            "objective": {"name": self.objective, **self.objective_options},
            "guard": {"name": self.guard, **self.guard_options},
            "needs": self.needs(),
            "source": self.source,
            "deviations": self.deviations,
            "recipe": self.recipe,
            "lab_config": self.lab_config,
            "golden": list(self.golden),
        }


_SMPO_OFFICIAL = {"grid": "official-0.20", "renoise": "each", "label": "source", "average": True}
_FROM_SFT = "SD1.5: start policy and reference from an SFT run (model.init_from), as the official launchers do"
_DPO = "fp32 reference errors"
_ARENA = "reconstruction: no official code; lambda (signal.margin_scale) is not published, 1 by default"
_REWARD = "the paper states no mechanism"
_SDPO = "one lambda per pair (official: one per micro-batch, guard.scope batch)"

METHODS: tuple[Method, ...] = (
    Method(
        name="sft",
        objective="sft",
        source="SmPO-Diffusion and ArenaPO, baseline; Diffusion-DPO, --sft (code only)",
        deviations="none",
        golden=("sft.json",),
    ),
    Method(
        name="dpo",
        source="Diffusion-DPO (arXiv 2311.12908) Eq. 14",
        deviations=f"{_DPO}; diffusers' loss_type sigmoid is this row with LoRA (lab/dpo_lora), its beta half of ours",
        golden=("diffusion_dpo.json", "diffusers_dpo.json"),
    ),
    Method(
        name="dpo_hinge",
        objective="hinge",
        source="diffusers train_diffusion_dpo.py, loss_type hinge (code only)",
        deviations="beta is twice that script's number",
        golden=("diffusers_dpo.json",),
    ),
    Method(
        name="uniform_margin",
        signal=("uniform",),
        signal_options={"margin": 2.0},
        source="ArenaPO Eq. 14 with one margin for all pairs (its Tables 5, 7)",
        deviations=_ARENA,
        golden=("composed_reconstructions.json",),
    ),
    Method(
        name="arenapo",
        signal=("paper",),
        source="ArenaPO Eq. 12-14",
        deviations=_ARENA,
        golden=("arena.json", "composed_reconstructions.json"),
    ),
    Method(
        name="arenapo_dspo",
        signal=("paper",),
        objective="dspo",
        objective_options={"beta": 5000.0, "lambda_residual": 0.05},
        source="ArenaPO Table 5 (ArenaPO + DSPO), residual form with decoupled coefficients",
        deviations=_ARENA,
        golden=("composed_reconstructions.json",),
    ),
    Method(
        name="arenapo_dspo_brier",
        signal=("paper",),
        objective="dspo_brier",
        source="ArenaPO Table 5 (ArenaPO + DSPO), Brier form",
        deviations=_ARENA,
        golden=("composed_reconstructions.json",),
    ),
    Method(
        name="dspo",
        objective="dspo",
        source="DSPO (ICLR 2025), SD1.5, code only",
        deviations="none; its gradient differs from SFT's by 0.05 %",
        golden=("dspo.json",),
    ),
    Method(
        name="dspo_sdxl_shift",
        objective="dspo_shift",
        source="DSPO (ICLR 2025), SDXL, code only: branch B",
        deviations="chosen by name, not by a batch mean",
        golden=("dspo.json",),
    ),
    Method(
        name="dspo_sdxl_brier",
        objective="dspo_brier",
        source="DSPO (ICLR 2025), SDXL, code only: branch C",
        deviations="chosen by name, not by a batch mean",
        golden=("dspo.json",),
    ),
    Method(
        name="dspo_sdxl_published",
        objective="huaishengzhu_dspo_sdxl",
        source="DSPO (ICLR 2025), SDXL, code only: both branches and their switch",
        deviations="published quirk kept: the micro-batch mean chooses the formula",
        golden=("dspo.json",),
    ),
    Method(
        name="dmpo",
        objective="dmpo",
        source="DMPO, code only: Diffusion-SDPO (arXiv 2511.03317), train_method dmpo",
        deviations=_DPO,
        golden=("sdpo.json",),
    ),
    Method(
        name="mapo",
        objective="mapo",
        source="MaPO (arXiv 2406.06424), code only",
        deviations="phi(0) = 1",
        golden=("mapo.json",),
    ),
    Method(
        name="kto",
        signal=("kto",),
        objective="kto",
        source="Diffusion-KTO (arXiv 2404.04465), code only",
        deviations="anchor from the batch itself (the code's default); one network and a frozen reference",
        golden=("diffusion_kto.json",),
    ),
    Method(
        name="sdpo_dpo",
        guard="sdpo",
        guard_options={"mu": 0.9},
        source="Diffusion-SDPO (arXiv 2511.03317), code only",
        deviations=_SDPO,
        golden=("sdpo.json",),
    ),
    Method(
        name="sdpo_dspo",
        objective="dspo",
        guard="sdpo",
        guard_options={"mu": 0.2},
        source="Diffusion-SDPO (arXiv 2511.03317), code only",
        deviations=_SDPO,
        golden=("sdpo.json",),
    ),
    Method(
        name="sdpo_dmpo",
        objective="dmpo",
        guard="sdpo",
        guard_options={"mu": 0.9},
        source="Diffusion-SDPO (arXiv 2511.03317), code only",
        deviations=_SDPO,
        golden=("sdpo.json",),
    ),
    Method(
        name="inpo",
        trajectory="ddim_inversion",
        trajectory_options={"eta": 0.1},
        source="DDIM-InPO, code only; levels as SmPO-Diffusion Eq. 13",
        deviations="exact levels; the current policy inverts (code), not the reference (text)",
        golden=("inpo_inversion_official.json",),
        recipe=_FROM_SFT,
    ),
    Method(
        name="inpo_official",
        trajectory="ddim_inversion",
        trajectory_options={"grid": "official-0.20", "steps": 10, "eta": 0.1},
        source="DDIM-InPO, code only",
        deviations="own t and depth for every pair",
        golden=("inpo_inversion_official.json",),
        recipe=_FROM_SFT,
    ),
    Method(
        name="smpo",
        signal=("smoothed",),
        trajectory="renoise",
        source="SmPO-Diffusion Eq. 8-16",
        deviations="exact levels, one ReNoise at the end (paper); extremes of the data set",
        golden=("smpo_weights.json", "smpo_inversion_paper.json"),
        recipe=_FROM_SFT,
    ),
    Method(
        name="smpo_official",
        signal=("smoothed",),
        signal_options={"extremes": "pickscore"},
        trajectory="renoise",
        trajectory_options={**_SMPO_OFFICIAL, "steps": 5},
        source="SmPO-Diffusion, code only",
        deviations="own t, depth and weight for every pair (official: the first pair's)",
        golden=("smpo_weights.json", "smpo_inversion_official.json"),
        recipe=_FROM_SFT,
    ),
    Method(
        name="reward_margin",
        signal=("reward-margin",),
        source="ArenaPO Appendix F (ImageReward as reward model), reading 1",
        deviations=_REWARD,
        golden=("diffusion_dpo.json",),
    ),
    Method(
        name="reward_relabel",
        signal=("relabel",),
        source="ArenaPO Appendix F, reading 2; `choice_model` of the Diffusion-DPO code",
        deviations=_REWARD,
        golden=("diffusion_dpo.json",),
    ),
    Method(
        name="reward_soft",
        signal=("smoothed",),
        source="ArenaPO Appendix F, reading 3; SmPO-Diffusion Eq. 8-12 on forward noise",
        deviations=_REWARD,
        golden=("smpo_weights.json", "diffusion_dpo.json"),
    ),
    Method(
        name="arenapo_smpo_trajectory",
        signal=("paper",),
        trajectory="renoise",
        source="unpublished: ArenaPO's margin on SmPO's trajectory",
        deviations="none published",
        golden=("composed_reconstructions.json", "smpo_inversion_paper.json"),
    ),
    Method(
        name="smpo_sdpo",
        signal=("smoothed",),
        guard="sdpo",
        guard_options={"mu": 0.9},
        source="unpublished: SmPO's weight with the SDPO guard",
        deviations="none published",
        golden=("composed_reconstructions.json",),
    ),
    Method(
        name="arena_image_dspo",
        signal=("image",),
        objective="dspo",
        objective_options={"beta": 5000.0, "lambda_residual": 0.05},
        source="unpublished: image-level arena margin with DSPO",
        deviations="none published",
        golden=("composed_reconstructions.json",),
    ),
)

TABLE: Mapping[str, Method] = {method.name: method for method in METHODS}


def get(name: str) -> Method:
    """The method of that name.

    Raises:
        ConfigError: an unknown name, with the nearest valid one.
    """
    if name not in TABLE:
        raise ConfigError(f"unknown method {name!r}", where="method", remedy=nearest(name, TABLE))
    return TABLE[name]
