"""Objectives: pure, per-pair, unreduced losses on what the networks said. `table` lists them, `guards` holds guards.

Here are the functions by the names of their rows: `finepref.objectives.dpo(prediction, signal, beta=5000.0)`.
"""

from finepref.objectives.dmpo import dmpo
from finepref.objectives.dpo import conservative_dpo, dpo, hinge
from finepref.objectives.dspo import dspo, dspo_brier, dspo_shift
from finepref.objectives.kto import kto
from finepref.objectives.linear_dpo import linear_dpo
from finepref.objectives.mapo import mapo
from finepref.objectives.plackett_luce import plackett_luce
from finepref.objectives.published import huaishengzhu_dspo_sdxl, jaydenlyh_smpo
from finepref.objectives.sft import sft

__all__ = [
    "conservative_dpo", "dmpo", "dpo", "dspo", "dspo_brier", "dspo_shift", "hinge", "huaishengzhu_dspo_sdxl",
    "jaydenlyh_smpo", "kto", "linear_dpo", "mapo", "plackett_luce", "sft",
]  # fmt: skip
