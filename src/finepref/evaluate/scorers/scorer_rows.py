"""The scorers by name. A spec is NAME, NAME:PREPROCESS, NAME@PATH or NAME:PREPROCESS@PATH.

NAME alone takes the published weights from the hub at a pinned revision; `@PATH` takes local files (the official
file, a transformers folder, or a folder that `finepref scorers convert` wrote). Loading this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from finepref.core.device import Precision, work_device
from finepref.core.errors import InputError, check_word
from finepref.core.rows import RowTable
from finepref.evaluate.scorers.hub_files import PublishedFile, UrlFile, fetch, hub_file, published
from finepref.evaluate.scorers.scorer import Scorer

Family = Literal["clip", "aesthetic", "imagereward", "judge"]


@dataclass(frozen=True, slots=True)
class ScorerRow:
    """A scorer that can be made by name.

    about: one line. family: of ours. weights: the published file. shape: name of the CLIP architecture.
    preprocess: the default variant. cleaned: CLIP's own text path. vocabulary: hub repository.
    official: (file name, SHA-256 or "") by which an official file is recognised. path: whether it is named NAME@PATH.
    judges_only: no training may read it: it is the truth, or says nothing of a picture alone.
    make: (what was asked for, device) -> Scorer, where no network of a family makes it.
    """

    name: str
    about: str
    family: Family | None = None
    weights: PublishedFile | None = None
    preprocess: str = ""
    shape: str | None = None
    cleaned: bool = True
    vocabulary: str = ""
    official: tuple[str, str] = ("", "")
    path: bool = False
    judges_only: bool = False
    make: Callable[[Spec, str], Scorer] | None = None


def check_scorer(row: ScorerRow) -> None:
    """Refuse a scorer of no family without a function that makes it."""
    if row.make is None:
        raise InputError("nothing makes it", remedy="give make=, (spec, device) -> Scorer")


@dataclass(frozen=True, slots=True)
class Spec:
    """What a spec says. preprocess and path are None where it says nothing."""

    kind: ScorerRow
    preprocess: str | None
    path: Path | None

    @property
    def name(self) -> str:
        """The scorer's name: the variant is part of it where it is not the default, a folder's name for `clip@...`."""
        name = self.kind.name
        if self.kind.path and self.path is not None:
            name = f"{name}-{self.path.stem if self.path.is_file() else self.path.name}"
        chosen = self.preprocess
        return name if chosen is None or chosen == self.kind.preprocess else f"{name}:{chosen}"


def parse(spec: str) -> Spec:
    """Read a spec.

    Raises:
        InputError: unknown name or preprocess, a path that is not there, or no path where one is needed.
    """
    head, at, path = spec.partition("@")
    name, colon, preprocess = head.partition(":")
    kind = SCORERS[name]
    if colon and not kind.preprocess:
        raise InputError(f"{name} has no preprocess to choose", where=spec, remedy=f"write {name}")
    if at and not (kind.path or kind.weights):
        raise InputError(f"{name} has no files to choose", where=spec, remedy=f"write {name}")
    if at and not Path(path).expanduser().exists():
        raise InputError("no such file or folder", where=path or spec, remedy="check the path after @")
    if not at and kind.path:
        raise InputError(f"{name} needs a path", where=spec, remedy=f"write {name}@PATH")
    if colon:
        from finepref.evaluate.scorers.preprocess import check_variant

        check_variant(preprocess)
    return Spec(kind, preprocess if colon else None, Path(path).expanduser() if at else None)


def make(spec: str, *, device: str | None = None, precision: Precision = "no") -> Scorer:
    """The scorer of a spec. Weights are hashed now and loaded when the first image comes.

    Args:
        spec: NAME[:PREPROCESS][@PATH], see the module.
        device: torch device; None: the accelerator that torch sees, else cpu.
        precision: no (float32), bf16 or fp16 of a network's towers; the scores have another fingerprint.

    Raises:
        InputError: unknown name, preprocess or precision, weights that cannot be had, are of another model, or hold
            code; half precision of a scorer that has no network of ours.
    """
    chosen = parse(spec)
    check_word(precision, get_args(Precision), "precision", where="precision")
    if chosen.kind.make is None:
        from finepref.evaluate.scorers.families import make_scorer

        return make_scorer(chosen, device or work_device(), precision)
    if precision != "no":
        what = f"{chosen.name} has one precision"
        raise InputError(what, where="precision", remedy="leave it out, or score the others apart")
    made = chosen.kind.make(chosen, device or work_device())
    for name in (member for member in vars(Scorer) if not member.startswith("_")):
        if not hasattr(made, name):
            remedy = "see evaluate/scorers/scorer"
            raise InputError(f"its scorer has no {name}", where=f"scorer {spec!r}", remedy=remedy)
    return made


def as_scorers(named: Iterable[Scorer | str], precision: Precision = "no") -> list[Scorer]:
    """Scorers as they are, specs as `make` has them; all are checked before the first one works.

    Raises:
        InputError: none, or two of one name; what `make` raises; a precision of one that is made already.
    """
    scorers = [_made(each, precision) for each in named]
    names = [scorer.name for scorer in scorers]
    if not names:
        raise InputError("no scorer", where="scorer", remedy="name at least one")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two scorers are named '{twice}'", where="scorer", remedy="give each once")
    return scorers


def _made(named: Scorer | str, precision: Precision) -> Scorer:
    if isinstance(named, str):
        return make(named, precision=precision)
    if precision != "no":
        raise InputError(f"{named.name} is made already", where="precision", remedy="give its name, or leave it out")
    return named


def weights_path(chosen: Spec) -> Path:
    """The local path, else the published file (downloaded once)."""
    if chosen.path is not None:
        return chosen.path
    assert chosen.kind.weights is not None
    return fetch(chosen.kind.weights, scorer=chosen.kind.name)


def _judge(chosen: Spec, device: str) -> Scorer:
    from finepref.evaluate.scorers.judge_scorer import load_judge_scorer

    assert chosen.path is not None
    return load_judge_scorer(chosen.path, name=chosen.name)


def _published() -> Iterator[ScorerRow]:
    """The rows of published.yaml."""
    for given in published()["scorers"]:
        row = {"vocabulary": "clip_h", **given, "official": tuple(given.get("official", ("", "")))}
        hub, url, file = (row.pop(name, "") for name in ("hub", "url", "file"))
        weights: PublishedFile | None = hub_file(hub, *filter(None, [file])) if hub else None
        if url:
            weights = UrlFile(url, sha256=row["official"][1], name=row["official"][0])
        yield ScorerRow(**row, weights=weights)


def _diversity() -> ScorerRow:
    """Distances between a model's pictures of one prompt, on the weights of `clip-l`."""

    def made(chosen: Spec, device: str) -> Scorer:
        from finepref.evaluate.diversity import clip_diversity

        return clip_diversity(chosen, device)

    about = "how far a picture is from the others of its prompt: mean of 1 - cos of CLIP ViT-L/14 features (0 to 2)"
    hub = hub_file("clip_l")
    return ScorerRow("diversity", about, "clip", hub, "pil_round", shape="vit-l-14", judges_only=True, make=made)


JUDGE = "a vision language model behind an OpenAI-compatible endpoint: judge@FILE.yaml"
SCORERS = RowTable(
    "scorer",
    ScorerRow,
    (*_published(), _diversity(), ScorerRow("judge", JUDGE, "judge", path=True, make=_judge)),
    check=check_scorer,
)
