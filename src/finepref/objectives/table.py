"""The tables of objectives and guards: one row each, with what it needs and where it comes from.

A new objective is four edits: its function, its row here, its row in the tests, its row in docs/objectives.md. One of
your own needs none of them (docs/own_rows.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from finepref.core.errors import ConfigError
from finepref.core.options import Options
from finepref.core.rows import RowTable
from finepref.core.tensors import ObjectiveOutput, PairPrediction, ReferenceNeed
from finepref.objectives.dmpo import DmpoOptions, dmpo
from finepref.objectives.dpo import ConservativeOptions, DpoOptions, conservative_dpo, dpo, hinge
from finepref.objectives.dspo import DspoLogitOptions, DspoOptions, dspo, dspo_brier, dspo_shift
from finepref.objectives.guards import GuardOptions, NormOptions, none, norm, sdpo
from finepref.objectives.kto import KtoOptions, kto
from finepref.objectives.linear_dpo import LinearDpoOptions, linear_dpo
from finepref.objectives.mapo import MapoOptions, mapo
from finepref.objectives.plackett_luce import PlackettLuceOptions, plackett_luce
from finepref.objectives.properties import check_guard, check_objective
from finepref.objectives.published import HuaishengzhuDspoSdxlOptions, huaishengzhu_dspo_sdxl, jaydenlyh_smpo
from finepref.objectives.sft import SftOptions, sft


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a batch must carry for an objective, and which parts of the signal it looks at.

    paired: winner and loser (else single images with labels, or lists where it is listed: a prompt's images, ranked).
    loser: whether the loser is looked at at all.
    reference: none | errors (two scalars per draw) | tensors (full predictions). margin, weight: whether they act.
    """

    paired: bool = True
    loser: bool = True
    reference: ReferenceNeed = "errors"
    margin: bool = True
    weight: bool = True
    listed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveRow:
    """One objective.

    function: (pred, signal, *, **options) -> ObjectiveOutput; unpaired: (pred, *, **options, anchor=None); listed:
    (pred, *, **options).
    options: pydantic model of the keyword arguments. batch_dependent: a pair's loss depends on its batch.
    """

    name: str
    function: Callable[..., ObjectiveOutput]
    options: type[Options] = Options
    needs: Needs = Needs()
    source: str = ""
    deviations: str = ""
    batch_dependent: bool = False


OBJECTIVES = RowTable("objective", ObjectiveRow, (
    ObjectiveRow(
        name="sft", function=sft, options=SftOptions,
        needs=Needs(loser=False, reference="none", margin=False, weight=False),
        source="Diffusion-DPO code, --sft", deviations="none",
    ),
    ObjectiveRow(
        name="dpo", function=dpo, options=DpoOptions,
        source="Diffusion-DPO (arXiv 2311.12908) Eq. 14; ArenaPO Eq. 14; SmPO-Diffusion Eq. 15",
        deviations="float32 reference errors",
    ),
    ObjectiveRow(
        name="hinge", function=hinge, options=DpoOptions,
        source="diffusers train_diffusion_dpo.py, loss_type hinge", deviations="beta is twice that script's number",
    ),
    ObjectiveRow(
        name="conservative_dpo", function=conservative_dpo, options=ConservativeOptions,
        source="E. Mitchell, A note on DPO with noisy preferences (2023), Eq. 3", deviations="on errors of diffusion",
    ),
    ObjectiveRow(
        name="linear_dpo", function=linear_dpo, options=LinearDpoOptions,
        source="Linear-DPO (arXiv 2605.21123), code", deviations="margin and weight of the signal act on u",
    ),
    ObjectiveRow(
        name="dspo", function=dspo, options=DspoOptions, needs=Needs(reference="tensors"),
        source="DSPO (ICLR 2025), SD1.5 code", deviations="logit beta and residual coefficient are two numbers",
    ),
    ObjectiveRow(
        name="dspo_brier", function=dspo_brier, options=DspoLogitOptions,
        source="DSPO SDXL code, branch C; ArenaPO Table 5 (reconstruction)",
        deviations="chosen by name, not by a batch mean",
    ),
    ObjectiveRow(
        name="dspo_shift", function=dspo_shift, options=DspoLogitOptions, needs=Needs(reference="tensors"),
        source="DSPO SDXL code, branch B", deviations="chosen by name, not by a batch mean",
    ),
    ObjectiveRow(
        name="dmpo", function=dmpo, options=DmpoOptions,
        source="Diffusion-SDPO code, method dmpo", deviations="none",
    ),
    ObjectiveRow(
        name="mapo", function=mapo, options=MapoOptions, needs=Needs(reference="none"),
        source="MaPO (arXiv 2406.06424)", deviations="phi(0) = 1; margin and weight of the signal act on its logit",
    ),
    ObjectiveRow(
        name="kto", function=kto, options=KtoOptions, batch_dependent=True,
        needs=Needs(paired=False, loser=False, margin=False, weight=False),
        source="Diffusion-KTO (arXiv 2404.04465)", deviations="anchor from the batch itself (the code's default)",
    ),
    ObjectiveRow(
        name="plackett_luce", function=plackett_luce, options=PlackettLuceOptions,
        needs=Needs(paired=False, loser=False, margin=False, weight=False, listed=True),
        source="Plackett, 1975; Diffusion-LPO (arXiv 2510.01540), abstract", deviations="no public code",
    ),
    ObjectiveRow(
        name="huaishengzhu_dspo_sdxl", function=huaishengzhu_dspo_sdxl, options=HuaishengzhuDspoSdxlOptions,
        needs=Needs(reference="tensors"), batch_dependent=True,
        source="DSPO SDXL code, branch chosen by the micro-batch mean", deviations="none: published quirk",
    ),
    ObjectiveRow(
        name="jaydenlyh_smpo", function=jaydenlyh_smpo, options=DpoOptions, batch_dependent=True,
        source="SmPO-Diffusion code, first pair's weight for the whole micro-batch",
        deviations="none: published quirk",
    ),
), where="objective.name", error=ConfigError, check=check_objective)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardRow:
    """One guard. function: (pred, *, **options) -> (pred, statistics [B] by name). batch_dependent: as above.

    tensors: whether it looks at the reference's whole predictions.
    """

    name: str
    function: Callable[..., tuple[PairPrediction, dict[str, Tensor]]]
    options: type[Options] = Options
    source: str = ""
    deviations: str = ""
    batch_dependent: bool = False
    tensors: bool = False


GUARDS = RowTable("guard", GuardRow, (
    GuardRow(name="none", function=none),
    GuardRow(
        name="sdpo", function=sdpo, options=GuardOptions, source="Diffusion-SDPO",
        deviations="one lambda per pair by default; scale-free",
    ),
    GuardRow(
        name="norm", function=norm, options=NormOptions, tensors=True, source="NormGuard (arXiv 2606.27771), abstract",
        deviations="the square of the excess, and its weight, are ours",
    ),
), where="guard.name", error=ConfigError, check=check_guard)  # fmt: skip
