"""The scorers by name. A spec is NAME, NAME:PREPROCESS, NAME@PATH or NAME:PREPROCESS@PATH.

NAME alone takes the published weights from the hub at a pinned revision; `@PATH` takes local files (the official
file, a transformers folder, or a folder that `finepref scorers convert` wrote). Loading this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finepref.core.device import default_device
from finepref.core.errors import InputError
from finepref.core.rows import RowTable
from finepref.evaluate.scorers import hub_files as sources
from finepref.evaluate.scorers.hub_files import PublishedFile, fetch, hub_file
from finepref.evaluate.scorers.scorer import Scorer

Family = Literal["clip", "aesthetic", "imagereward", "judge"]


@dataclass(frozen=True, slots=True)
class ScorerRow:
    """A scorer that can be made by name.

    about: one line. family: of ours. weights: the published file. shape: name of the CLIP architecture.
    preprocess: the default variant. cleaned: CLIP's own text path. vocabulary: hub repository, revision.
    official: (file name, SHA-256 or "") by which an official file is recognised. path: whether it is named NAME@PATH.
    make: (what was asked for, device) -> Scorer, where no network of a family makes it.
    """

    name: str
    about: str
    family: Family | None = None
    weights: PublishedFile | None = None
    preprocess: str = ""
    shape: str | None = None
    cleaned: bool = True
    vocabulary: tuple[str, str] = sources.CLIP_H
    official: tuple[str, str] = ("", "")
    path: bool = False
    make: Callable[[Spec, str], Scorer] | None = None


HPS_21_SHA = "c57a38fb4a2f7e7c15bf00da2ea377cdf165448b4dd1052a484c215a998c9837"


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


def make(spec: str, *, device: str | None = None) -> Scorer:
    """The scorer of a spec. Weights are hashed now and loaded when the first image comes, always as float32.

    Args:
        spec: NAME[:PREPROCESS][@PATH], see the module.
        device: torch device; None: cuda where there is one.

    Raises:
        InputError: unknown name or preprocess, weights that cannot be had, are of another model, or hold code.
    """
    chosen = parse(spec)
    if chosen.kind.make is None:
        from finepref.evaluate.scorers.families import make_scorer

        return make_scorer(chosen, device or default_device())
    made = chosen.kind.make(chosen, device or default_device())
    for name in (member for member in vars(Scorer) if not member.startswith("_")):
        if not hasattr(made, name):
            raise InputError(
                f"its scorer has no {name}", where=f"scorer {spec!r}", remedy="see evaluate/scorers/scorer"
            )
    return made


def as_scorer(named: Scorer | str) -> Scorer:
    """A scorer as it is; a spec as `make` has it."""
    return make(named) if isinstance(named, str) else named


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


SCORERS = RowTable("scorer", ScorerRow, (
    ScorerRow(
        "pickscore", "PickScore v1: cosine of a CLIP-H tuned on Pick-a-Pic v1 (about 0.12 to 0.28)",
        "clip", hub_file(sources.PICKSCORE), preprocess="pil_floor", shape="vit-h-14", cleaned=False,
    ),
    ScorerRow(
        "hpsv2.0", "Human Preference Score v2.0: cosine of a CLIP-H tuned on HPDv2; not comparable with v2.1",
        "clip", hub_file(sources.HPS, "HPS_v2_compressed.pt"), preprocess="tensor_aa", shape="vit-h-14",
        official=("HPS_v2_compressed.pt", ""),
    ),
    ScorerRow(
        "hpsv2.1", "Human Preference Score v2.1; tensor_noaa is the README leaderboard's preprocessing",
        "clip", hub_file(sources.HPS, "HPS_v2.1_compressed.pt"), preprocess="tensor_aa", shape="vit-h-14",
        official=("HPS_v2.1_compressed.pt", HPS_21_SHA),
    ),
    ScorerRow(
        "aesthetic", "LAION aesthetic predictor v2 on OpenAI CLIP-L (about 1 to 10); prompts are not looked at",
        "aesthetic", sources.AESTHETIC_HEAD, preprocess="pil_floor", shape="vit-l-14",
        official=(sources.AESTHETIC_HEAD.name, sources.AESTHETIC_HEAD.sha256),
    ),
    ScorerRow(
        "clip-h", "CLIP score of LAION's ViT-H/14 (laion2B): the one both papers print",
        "clip", hub_file(sources.CLIP_H), preprocess="pil_round", shape="vit-h-14",
    ),
    ScorerRow(
        "clip-l", "CLIP score of OpenAI's ViT-L/14",
        "clip", hub_file(sources.CLIP_L), preprocess="pil_round", shape="vit-l-14", vocabulary=sources.CLIP_L,
    ),
    ScorerRow(
        "clip-b32", "CLIP score of OpenAI's ViT-B/32",
        "clip", hub_file(sources.CLIP_B32), preprocess="pil_round", shape="vit-b-32", vocabulary=sources.CLIP_B32,
    ),
    ScorerRow(
        "clip-b16", "CLIP score of OpenAI's ViT-B/16",
        "clip", hub_file(sources.CLIP_B16), preprocess="pil_round", shape="vit-b-16", vocabulary=sources.CLIP_B16,
    ),
    ScorerRow(
        "clip", "CLIP score of any CLIP folder in transformers' layout: clip@FOLDER",
        "clip", preprocess="pil_round", path=True,
    ),
    ScorerRow(
        "imagereward", "ImageReward v1.0: BLIP reward, about standard normal; prompts are cut at 35 tokens",
        "imagereward", hub_file(sources.IMAGEREWARD, "ImageReward.pt"), preprocess="pil_round", vocabulary=sources.BERT,
        official=("ImageReward.pt", ""),
    ),
    ScorerRow(
        "judge", "a vision language model behind an OpenAI-compatible endpoint: judge@FILE.yaml",
        "judge", path=True, make=_judge,
    ),
), check=check_scorer)  # fmt: skip
