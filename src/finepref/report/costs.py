"""What runs cost, and where a judge places models, beside the papers' tables of the same: SmPO's 1, ArenaPO's 7."""

from __future__ import annotations

from collections.abc import Sequence

from finepref.core.rows import BASES
from finepref.evaluate.papers import PaperTable, load_tables
from finepref.formats.run import PARTS, RunRecord
from finepref.report.inputs import KSortFolder, RunFolder
from finepref.report.kit import Cell, TextTable, table
from finepref.report.wording import NONE, number

Shown = tuple[str, TextTable, str]
YOURS = "yours"


def costs(runs: Sequence[RunFolder]) -> tuple[Shown, ...]:
    """SmPO-Diffusion's Table 1 of every backbone that a finished run has, with the run's own device hours.

    A base that comes with finepref or a plugin, such as the lab, is no backbone of the papers.
    """
    found = []
    for paper in (each for each in load_tables() if each.metrics == ("gpu-hours",)):
        own = {
            run.name: run.record
            for run in runs
            if run.record is not None and run.record.family == paper.family and run.record.base not in BASES
        }
        if own:
            found.append((paper.title, _cost_table(paper, own), _remarks(paper, own)))
    return tuple(found)


def _cost_table(paper: PaperTable, own: dict[str, RunRecord]) -> TextTable:
    printed = [(name, number(value, 1), "A800", *[NONE] * len(PARTS)) for name, (value,) in paper.rows.items()]
    mine = [
        (
            Cell(name, badge=YOURS), _hours(_seconds(about)), about.device,
            *(_hours(about.device_seconds_by.get(part)) for part in PARTS),
        )
        for name, about in own.items()
    ]  # fmt: skip
    looks = ("",) * len(printed) + ("own",) * len(mine)
    return table(("Model", *paper.labels, "Device", *PARTS.values()), [*printed, *mine], left=(0, 2), looks=looks)


def _remarks(paper: PaperTable, own: dict[str, RunRecord]) -> str:
    words = f"{paper.paper}, {paper.statistic}, which contain the encoding of images and prompts. Yours are of the "
    words += "device named, on all processes, without those of a run that it starts from."
    return words + (" A dash: not measured." if any(_seconds(about) is None for about in own.values()) else "")


def _seconds(about: RunRecord) -> float | None:
    """All of them; None where a part was not measured, or an older version left encoding out."""
    return about.device_seconds if {*PARTS} <= {*about.device_seconds_by} else None


def _hours(seconds: float | None) -> str:
    return NONE if seconds is None else number(seconds / 3600, 1 if seconds >= 36_000 else 3)


def placed(ksorts: Sequence[KSortFolder]) -> tuple[Shown, ...]:
    """ArenaPO's Table 7 with every K-Sort evaluation of one's own."""
    found = []
    for paper in (each for each in load_tables() if ksorts and each.metrics == ("ksort",)):
        printed = [(name, number(value, 2), NONE, NONE) for name, (value,) in paper.rows.items()]
        mine = [
            (
                Cell(each.name, badge=YOURS),
                number(each.record.score, 2),
                str(each.record.comparisons),
                each.record.judge,
            )
            for each in ksorts
        ]
        looks = ("",) * len(printed) + ("own",) * len(mine)
        head = ("Model", *paper.labels, "Comparisons", "Judge")
        remark = f"{paper.paper}, {paper.statistic}. Another judge places a model elsewhere."
        found.append((paper.title, table(head, [*printed, *mine], left=(0, 3), looks=looks), remark))
    return tuple(found)
