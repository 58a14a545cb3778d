"""Who answers a study in place of people, from the words of `--by`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finepref.collect.answering import Answerer

LAB, JUDGE = "lab", "pair-judge@"


def check_by(by: str) -> None:
    """Refuse who cannot answer, before anything is made for them.

    Raises:
        InputError: see `answerers_of`.
    """
    if by.startswith(JUDGE):
        answerers_of(by, people=1, seed=0)
    elif by != LAB:
        _parse_scorer(by)


def _parse_scorer(by: str) -> None:
    """See that it is a scorer's spec; where its name is of no scorer, say who else may answer."""
    from finepref.core.errors import check_word
    from finepref.evaluate.scorers.scorer_rows import SCORERS, parse

    name = by.partition("@")[0].partition(":")[0]
    if name not in SCORERS:
        check_word(name, [LAB, f"{JUDGE}FILE.yaml", *SCORERS], "voter", where="--by")
    parse(by)


def answerers_of(by: str, *, people: int, seed: int) -> tuple[Mapping[str, Answerer], bool]:
    """(voters, whether each set is shown in both orders).

    Args:
        by: lab (simulated people), pair-judge@FILE.yaml (a vision language model), or a scorer's spec.
        people, seed: how many simulated people, and which.

    Raises:
        InputError: no such scorer, or a file that cannot be read.
    """
    if by == LAB:
        from finepref.lab.people import answerers

        return answerers(people, seed=seed), False
    if by.startswith(JUDGE):
        from finepref.evaluate.scorers.pair_judge import load_pair_judge

        file = Path(by.removeprefix(JUDGE)).expanduser()
        return {f"{file.stem} (model)": load_pair_judge(file)}, True
    from finepref.collect.answering import scored
    from finepref.evaluate.scorers.scorer_rows import make

    _parse_scorer(by)
    scorer = make(by)
    return {f"{scorer.name} (scorer)": scored(scorer)}, False
