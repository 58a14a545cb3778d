"""rounds.json: what every round of a closed loop cost and gave, and why the rounds ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from finepref.core.files import write_json
from finepref.formats.records import read_record

ROUNDS = "rounds.json"
BASE, LAST, NOW = "base", "last", "now"
"""What the models of a round are called where it is judged: the base, the one before, and its own."""
VERSION = 1
REMEDY = "run `finepref rounds` again in this folder"


@dataclass(frozen=True, slots=True)
class RoundGain:
    """What a scorer says of a round's model, at equal prompts and noise, in the direction in which more is better.

    last, base: mean difference from the model before, and from the base, with 95 % intervals (low, high) over prompts.
    trained: whether a round learned from this scorer.
    """

    metric: str
    trained: bool
    last: float
    last_low: float
    last_high: float
    base: float
    base_low: float
    base_high: float


@dataclass(frozen=True, slots=True)
class PlayedRound:
    """A round that is over. number: from 1. model: of the run it trained. sets: that were answered in it.

    kept: the step of its run that is kept; 0: it left the model as it was. seconds, processor_seconds: of its stages.
    """

    number: int
    model: str
    sets: int
    kept: int
    gains: tuple[RoundGain, ...]
    seconds: float
    processor_seconds: float


@dataclass(frozen=True, slots=True)
class RoundsRecord:
    """What rounds.json holds. best: number of the round whose model is the result; 0: the base.

    ended: why there is no further round; empty while there may be. asked: what decides the rounds, by name.
    """

    asked: dict[str, str]
    rounds: tuple[PlayedRound, ...] = ()
    best: int = 0
    ended: str = ""


def round_folder(folder: Path, number: int) -> Path:
    """Where a round of a folder lies."""
    return folder / f"round-{number:02d}"


def read_rounds(folder: Path) -> RoundsRecord:
    """The record of a folder of rounds.

    Raises:
        InputError: no such file, or it is damaged.
    """
    return read_record(folder / ROUNDS, RoundsRecord, version=VERSION, remedy=REMEDY)


def write_rounds(folder: Path, record: RoundsRecord) -> None:
    """Write it; whole or not at all."""
    write_json(folder / ROUNDS, {"version": VERSION, **asdict(record)})


def unseen(gains: Sequence[RoundGain]) -> list[RoundGain]:
    """Those of scorers that no round learned from."""
    return [gain for gain in gains if not gain.trained]
