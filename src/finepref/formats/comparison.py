"""The comparison of an evaluation folder's models, `comparison.json`: every number with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError
from finepref.core.files import write_json
from finepref.core.notebook import records_html
from finepref.core.ownership import own_file
from finepref.formats.records import read_record, to_pandas

COMPARISON = "comparison.json"
WHAT = "a comparison"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Metric:
    """A scorer: its fingerprints (one unless forced), its direction, and the models whose training used it.

    together: a number is of a picture among all of its prompt.
    """

    fingerprints: tuple[str, ...]
    higher_is_better: bool
    used_in_training: tuple[str, ...]
    together: bool = False


@dataclass(frozen=True, slots=True)
class ModelRow:
    """The scores of one model by one metric: n images of `prompts` prompts; mean with its interval; means by seed.

    None where there is no score (sd: fewer than two). no_interval: why mean_low and mean_high are None.
    """

    prompt_set: str
    metric: str
    model: str
    n: int
    prompts: int
    missing: int
    mean: float | None
    mean_low: float | None
    mean_high: float | None
    median: float | None
    sd: float | None
    seed_means: Mapping[str, float]
    no_interval: str = ""


@dataclass(frozen=True, slots=True)
class PairRow:
    """A model against another by one metric, at equal prompt and seed.

    mean_difference: model minus against. win_rate: in the direction in which more is better, ties half. sign_p,
    permutation_p: two-sided tests over prompts; sign_holm, permutation_holm: after Holm over the pair's `family` rows.
    no_interval: why the limits of both intervals are None.
    """

    prompt_set: str
    metric: str
    model: str
    against: str
    n: int
    prompts: int
    missing: int
    mean_difference: float
    difference_low: float | None
    difference_high: float | None
    win_rate: float
    win_low: float | None
    win_high: float | None
    wins: int
    ties: int
    losses: int
    sign_p: float
    permutation_p: float
    sign_holm: float = 1.0
    permutation_holm: float = 1.0
    family: int = 1
    no_interval: str = ""


@dataclass(frozen=True, slots=True)
class GroupRow:
    """Win rate over the baseline on the prompts whose `tag` has this value; not corrected for their number."""

    prompt_set: str
    metric: str
    model: str
    against: str
    tag: str
    value: str
    n: int
    prompts: int
    win_rate: float
    win_low: float
    win_high: float


SHOWN = ("metric", "model", "against", "n", "win_rate", "win_low", "win_high", "mean_difference", "sign_holm")
"""Fields of a pair that a notebook shows."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All models against the baseline and against each other, by metric and prompt set.

    level: of every interval. forced: scores of different fingerprints were compared.
    """

    baseline: str
    model_names: tuple[str, ...]
    prompt_sets: tuple[str, ...]
    metrics: Mapping[str, Metric]
    level: float
    resamples: int
    forced: bool
    models: tuple[ModelRow, ...]
    pairs: tuple[PairRow, ...]
    groups: tuple[GroupRow, ...]
    provenance: Mapping[str, Any]

    def to_pandas(self) -> Any:
        """The pairs as a pandas data frame."""
        return to_pandas(self.pairs)

    def _repr_html_(self) -> str:
        return records_html(self.pairs, SHOWN)

    @property
    def in_order(self) -> tuple[str, ...]:
        """Names of the models, the baseline first."""
        return (self.baseline, *(name for name in self.model_names if name != self.baseline))

    def pairs_of(self, **wanted: object) -> list[PairRow]:
        """Rows of pairs with these values."""
        return [row for row in self.pairs if all(getattr(row, key) == value for key, value in wanted.items())]

    def pair(self, model: str, against: str, metric: str, prompt_set: str | None = None) -> PairRow:
        """The row of one comparison; `prompt_set` may be left out where there is one."""
        rows = self.pairs_of(model=model, against=against, metric=metric)
        rows = [row for row in rows if prompt_set in (None, row.prompt_set)]
        if len(rows) != 1:
            raise InputError(f"{len(rows)} comparisons of {model} with {against} by {metric}", where="comparison")
        return rows[0]

    def trained(self, row: PairRow) -> bool:
        """Whether the training of one of the two models used the metric."""
        return bool({row.model, row.against} & {*self.metrics[row.metric].used_in_training})


def read_comparison(path: str | Path) -> Comparison:
    """`comparison.json` of an evaluation folder, or a file that holds one."""
    path = Path(path)
    path = path / COMPARISON if path.is_dir() else path
    remedy = "run `finepref compare` again"
    found = read_record(path, Comparison, version=VERSION, remedy=remedy)
    models = {found.baseline, *(row.model for row in found.models), *(row.model for row in found.pairs)}
    rows: tuple[ModelRow | PairRow | GroupRow, ...] = (*found.models, *found.pairs, *found.groups)
    for word, names, known in (
        ("model", models, found.model_names),
        ("metric", {row.metric for row in rows}, found.metrics),
        ("prompt set", {row.prompt_set for row in rows}, found.prompt_sets),
    ):
        for name in sorted(names - {*known}):
            raise InputError(f"its rows name a {word} {name!r} that it does not list", where=path, remedy=remedy)
    return found


def own_comparison(path: Path, *, inputs: Iterable[str | Path]) -> AbstractContextManager[Path]:
    """Hold the place of a comparison, which is new or an older one."""
    return own_file(path, lambda file: "versions" in read_comparison(file).provenance, inputs=inputs, what=WHAT)


def write_comparison(path: str | Path, comparison: Comparison) -> Comparison:
    """Write the comparison to this file; returns it as it is read again (nan has become None)."""
    write_json(path, {"version": VERSION, **asdict(comparison)})
    return read_comparison(path)
