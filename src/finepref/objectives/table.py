"""The table of objectives: one row each, with what it needs and where it comes from.

A new objective is four edits: its function, its row here, its row in the tests, its row in docs/objectives.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from finepref.core.batches import ObjectiveOutput, PairPrediction, ReferenceNeed
from finepref.core.errors import ConfigError, nearest
from finepref.objectives.dmpo import DmpoOptions, dmpo
from finepref.objectives.dpo import DpoOptions, dpo, hinge
from finepref.objectives.dspo import DspoLogitOptions, DspoOptions, dspo, dspo_brier, dspo_shift
from finepref.objectives.guard import GuardOptions, guard
from finepref.objectives.kto import KtoOptions, kto
from finepref.objectives.mapo import MapoOptions, mapo
from finepref.objectives.options import Options
from finepref.objectives.published import HuaishengzhuDspoSdxlOptions, huaishengzhu_dspo_sdxl, jaydenlyh_smpo
from finepref.objectives.sft import SftOptions, sft


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a batch must carry for an objective, and which parts of the signal it looks at.

    paired: winner and loser (else single images with labels). loser: whether the loser is looked at at all.
    reference: none | errors (two scalars per draw) | tensors (full predictions). margin, weight: whether they act.
    """

    paired: bool = True
    loser: bool = True
    reference: ReferenceNeed = "errors"
    margin: bool = True
    weight: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One objective.

    function: (pred, signal, *, **options) -> ObjectiveOutput; unpaired: (pred, *, **options, anchor=None).
    options: pydantic model of the keyword arguments. batch_dependent: a pair's loss depends on its batch.
    """

    name: str
    function: Callable[..., ObjectiveOutput]
    options: type[Options]
    needs: Needs
    reference: str
    deviations: str
    golden: str
    batch_dependent: bool = False


ROWS: tuple[Row, ...] = (
    Row(
        name="sft",
        function=sft,
        options=SftOptions,
        needs=Needs(loser=False, reference="none", margin=False, weight=False),
        reference="Diffusion-DPO code, --sft",
        deviations="none",
        golden="sft.json",
    ),
    Row(
        name="dpo",
        function=dpo,
        options=DpoOptions,
        needs=Needs(),
        reference="Diffusion-DPO (arXiv 2311.12908) Eq. 14; ArenaPO Eq. 14; SmPO-Diffusion Eq. 15",
        deviations="float32 reference errors",
        golden="diffusion_dpo.json",
    ),
    Row(
        name="hinge",
        function=hinge,
        options=DpoOptions,
        needs=Needs(),
        reference="diffusers train_diffusion_dpo.py, loss_type hinge",
        deviations="beta is twice that script's number",
        golden="diffusers_dpo.json",
    ),
    Row(
        name="dspo",
        function=dspo,
        options=DspoOptions,
        needs=Needs(reference="tensors"),
        reference="DSPO (ICLR 2025), SD1.5 code",
        deviations="logit beta and residual coefficient are two numbers",
        golden="dspo.json",
    ),
    Row(
        name="dspo_brier",
        function=dspo_brier,
        options=DspoLogitOptions,
        needs=Needs(),
        reference="DSPO SDXL code, branch C; ArenaPO Table 5 (reconstruction)",
        deviations="chosen by name, not by a batch mean",
        golden="dspo.json",
    ),
    Row(
        name="dspo_shift",
        function=dspo_shift,
        options=DspoLogitOptions,
        needs=Needs(reference="tensors"),
        reference="DSPO SDXL code, branch B",
        deviations="chosen by name, not by a batch mean",
        golden="dspo.json",
    ),
    Row(
        name="dmpo",
        function=dmpo,
        options=DmpoOptions,
        needs=Needs(),
        reference="Diffusion-SDPO code, method dmpo",
        deviations="none",
        golden="sdpo.json",
    ),
    Row(
        name="mapo",
        function=mapo,
        options=MapoOptions,
        needs=Needs(reference="none"),
        reference="MaPO (arXiv 2406.06424)",
        deviations="phi(0) = 1; margin and weight of the signal act on its logit",
        golden="mapo.json",
    ),
    Row(
        name="kto",
        function=kto,
        options=KtoOptions,
        needs=Needs(paired=False, loser=False, margin=False, weight=False),
        reference="Diffusion-KTO (arXiv 2404.04465)",
        deviations="anchor from the batch itself (the code's default)",
        golden="diffusion_kto.json",
        batch_dependent=True,
    ),
    Row(
        name="huaishengzhu_dspo_sdxl",
        function=huaishengzhu_dspo_sdxl,
        options=HuaishengzhuDspoSdxlOptions,
        needs=Needs(reference="tensors"),
        reference="DSPO SDXL code, branch chosen by the micro-batch mean",
        deviations="none: published quirk",
        golden="dspo.json",
        batch_dependent=True,
    ),
    Row(
        name="jaydenlyh_smpo",
        function=jaydenlyh_smpo,
        options=DpoOptions,
        needs=Needs(),
        reference="SmPO-Diffusion code, first pair's weight for the whole micro-batch",
        deviations="none: published quirk",
        golden="smpo_inversion_official.json",
        batch_dependent=True,
    ),
)

TABLE: Mapping[str, Row] = {row.name: row for row in ROWS}


class NoGuardOptions(Options):
    """No guard has no options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardRow:
    """One guard. function: (pred, **options) -> (pred, statistics [B] by name)."""

    name: str
    function: Callable[..., tuple[PairPrediction, dict[str, Tensor]]]
    options: type[Options]
    reference: str
    deviations: str


def no_guard(pred: PairPrediction) -> tuple[PairPrediction, dict[str, Tensor]]:
    """Every gradient as it is."""
    return pred, {}


GUARDS: Mapping[str, GuardRow] = {
    row.name: row
    for row in (
        GuardRow(name="none", function=no_guard, options=NoGuardOptions, reference="", deviations=""),
        GuardRow(
            name="sdpo",
            function=guard,
            options=GuardOptions,
            reference="Diffusion-SDPO",
            deviations="one lambda per pair by default; scale-free",
        ),
    )
}


def get(name: str) -> Row:
    """The row of an objective.

    Raises:
        ConfigError: an unknown name, with the nearest valid one.
    """
    if name not in TABLE:
        raise ConfigError(f"unknown objective {name!r}", where="objective.name", remedy=nearest(name, TABLE))
    return TABLE[name]


def get_guard(name: str) -> GuardRow:
    """The row of a guard.

    Raises:
        ConfigError: an unknown name, with the nearest valid one.
    """
    if name not in GUARDS:
        raise ConfigError(f"unknown guard {name!r}", where="guard.name", remedy=nearest(name, GUARDS))
    return GUARDS[name]
