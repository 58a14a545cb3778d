"""The scores of an evaluation folder, `scores.parquet`: a row an image and scorer, and whose scores they are."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError, cut
from finepref.core.files import parquet_meta, write_parquet
from finepref.core.notebook import records_html
from finepref.core.ownership import has_footer, own_file
from finepref.core.provenance import provenance
from finepref.formats import records
from finepref.formats.manifest import LINES, Key
from finepref.formats.writerparts import Parts

SCORES = "scores.parquet"
PARTS = "scores-parts"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Score:
    """What a scorer of this fingerprint gave an image of a prompt; nan and the reason where there is no number."""

    model: str
    prompt_set: str
    prompt_index: int
    prompt_sha256: str
    seed: int
    image_sha256: str
    scorer: str
    fingerprint: str
    value: float
    reason: str = ""

    @property
    def key(self) -> Key:
        """Of the image, as in the manifest."""
        return (self.model, self.prompt_set, self.prompt_index, self.seed)


@dataclass(frozen=True, slots=True)
class ScoredBy:
    """A scorer: the hash of its weights and rules, its direction, and what its scores cost where that was measured.

    precision: bf16 or fp16; None for float32, or a scorer that has no choice. judges_only: no training may read it;
    together: a number is of a picture among all of its prompt; None for others.
    """

    fingerprint: str
    higher_is_better: bool = True
    device_seconds: float | None = None
    precision: str | None = None
    judges_only: bool | None = None
    together: bool | None = None


@dataclass(frozen=True, slots=True)
class PartScore:
    """A number, or null and the reason, while several processes score. among: what else it was scored among, hashed."""

    fingerprint: str
    image_sha256: str
    prompt_sha256: str
    value: float | None
    reason: str = ""
    among: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a score is a function of."""
        return (self.fingerprint, self.image_sha256, self.prompt_sha256, self.among)


def parts_of(folder: Path) -> Parts[PartScore]:
    """The parts of `scores.parquet`."""
    return Parts(folder / PARTS, PartScore, "remove the part and score again")


@dataclass(frozen=True, slots=True)
class Scores:
    """All scores of a folder, and its scorers by name."""

    rows: tuple[Score, ...]
    scorers: Mapping[str, ScoredBy]

    def to_pandas(self) -> Any:
        """The scores as a pandas data frame."""
        return records.to_pandas(self.rows)

    def _repr_html_(self) -> str:
        return records_html(self.rows, ("scorer", "model", "prompt_set", "prompt_index", "seed", "value"))


COLUMNS = records.schema(Score)


def read_scores(folder: str | Path) -> Scores:
    """Read `scores.parquet` of an evaluation folder.

    Raises:
        InputError: no such file, no score in it, a column is missing, or a score is there twice.
    """
    path = Path(folder) / SCORES
    rows = tuple(records.iterate_rows(path, Score, COLUMNS))
    if not rows:
        raise InputError("no score in it", where=path, remedy="run `finepref score` first")
    seen: set[tuple[Key, str]] = set()
    for row in rows:
        if (row.key, row.scorer) in seen:
            what = f"{row.scorer} of {row.model}, prompt {row.prompt_index}, seed {row.seed} is there twice"
            raise InputError(what, where=path, remedy="remove the file and score again")
        seen.add((row.key, row.scorer))
    return Scores(rows, read_scorers(path))


def own_scores(folder: Path) -> AbstractContextManager[Path]:
    """Hold the place of `scores.parquet`, which is new or an older one."""
    return own_file(folder / SCORES, has_footer(*COLUMNS.names), what="scores")


def write_scores(folder: str | Path, scores: Scores) -> None:
    """Write `scores.parquet` of an evaluation folder."""
    folder = Path(folder)
    meta = {"version": VERSION, "scorers": footer(scores.scorers), **provenance(inputs=[folder / LINES])}
    write_parquet(folder / SCORES, records.to_table(scores.rows, COLUMNS), meta)


def footer(scorers: Mapping[str, ScoredBy]) -> dict[str, Any]:
    """Scorers as the footers of scores and rewards hold them."""
    return {
        name: {key: value for key, value in asdict(about).items() if value is not None}
        for name, about in scorers.items()
    }


def read_scorers(path: Path) -> dict[str, ScoredBy]:
    """The scorers that the footer of scores or rewards names; none for a file of other origin.

    Raises:
        InputError: the file is of another format version.
    """
    meta = parquet_meta(path)
    if meta.get("version", 1) != VERSION:
        what = f"format version {cut(str(meta['version']))}, this finepref reads {VERSION}"
        raise InputError(what, where=path, remedy="score again")
    return records.as_record(dict[str, ScoredBy], meta.get("scorers", {}), where=path, remedy="score again")
