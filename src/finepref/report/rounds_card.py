"""The rounds of a closed loop on the report: gains and costs of each, and one prompt's pictures from round to round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finepref.formats.manifest import LINES, read_rows
from finepref.formats.rounds import BASE, NOW, PlayedRound, round_folder
from finepref.report.inputs import RoundsFolder
from finepref.report.kit import Cell, TextTable, table
from finepref.report.thumbnails import data_uri, evenly
from finepref.report.wording import duration, number, significant, whole

PROMPTS, ROUNDS = 3, 8


@dataclass(frozen=True, slots=True)
class RoundsCard:
    """What is shown of a folder of rounds. strips: (prompt, [(what, data URI)])."""

    name: str
    lead: str
    gains: TextTable
    strips: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

    @property
    def tiny(self) -> bool:
        """Whether the pictures are so small that they are shown pixel by pixel."""
        return all(uri.startswith("data:image/png") for _, pictures in self.strips for _, uri in pictures if uri)


def rounds_cards(folders: Sequence[RoundsFolder]) -> list[RoundsCard]:
    """A card for every folder of rounds."""
    return [RoundsCard(each.name, _lead(each), _gains(each.record.rounds), _strips(each)) for each in folders]


def _lead(folder: RoundsFolder) -> str:
    record = folder.record
    best = f"the model of round {record.best} is the result" if record.best else "the base is the result"
    ended = f"They ended because {record.ended}" if record.ended else "They are not over"
    sets = sum(played.sets for played in record.rounds)
    count = len(record.rounds)
    return f"{whole(count)} round{'s' * (count != 1)}, {whole(sets)} sets answered. {ended}; {best}."


def _gains(rounds: Sequence[PlayedRound]) -> TextTable:
    """A row a round and scorer."""
    rows = []
    for played in rounds:
        for place, gain in enumerate(played.gains):
            first = place == 0
            rows.append(
                (
                    str(played.number) if first else "", whole(played.sets) if first else "",
                    Cell(gain.metric, badge="learned from" if gain.trained else "",
                         tip="a round was trained on it, so it judges nothing" if gain.trained else ""),
                    _interval(gain.last, gain.last_low, gain.last_high),
                    _interval(gain.base, gain.base_low, gain.base_high),
                    (f"step {played.kept}" if played.kept else "the model before") if first else "",
                    duration(played.processor_seconds) if first else "",
                )
            )  # fmt: skip
    head = ("Round", "Sets answered", "Scorer", "Gain on the model before", "Gain on the base", "Kept", "CPU time")
    return table(head, rows, left=(0, 2, 5))


def _interval(value: float, low: float, high: float) -> Cell:
    return Cell(f"{'+' if value >= 0 else ''}{significant(value)}", small=(f"{number(low, 3)} to {number(high, 3)}",))


def _strips(folder: RoundsFolder) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """The same prompts and noise under the base and under the model of each round."""
    places = {played.number: round_folder(folder.folder, played.number) / "eval" for played in folder.record.rounds}
    kept = {number: place for number, place in places.items() if (place / LINES).is_file()}
    if not kept:
        return ()
    held: dict[tuple[str, int], list[tuple[str, Path, Path]]] = {}
    for number_, place in sorted(kept.items()):
        for row in read_rows(place):
            wanted = NOW if number_ != min(kept) else (BASE, NOW)
            if row.model in wanted:
                what = "base" if row.model == BASE else f"round {number_}"
                held.setdefault((row.prompt, row.seed), []).append((what, place / row.path, place))
    seed = min(seed for _, seed in held)
    chosen = evenly([key for key in held if key[1] == seed], PROMPTS)
    return tuple(
        (key[0], tuple((what, data_uri(path, root=root)) for what, path, root in evenly(held[key], ROUNDS + 1)))
        for key in chosen
    )
