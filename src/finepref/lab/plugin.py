"""What the lab registers, like a plugin: its models, scorers and prompt sets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from finepref.core.device import cache_home
from finepref.core.rows import Named, register
from finepref.evaluate.scorers.scorer_rows import ScorerRow, Spec

if TYPE_CHECKING:
    from finepref.evaluate.scorers.scorer import Scorer


def model_folder(variant: str) -> str:
    """The lab's model as a diffusers folder, written where it is missing."""
    from finepref.lab import model

    return str(model.materialise(cache_home() / f"lab-{variant}-{model.fingerprint(variant)[:12]}", variant))


def prompts(split: str) -> Sequence[str]:
    """The prompts of `lab-train` (votes) or `lab-eval` (held out)."""
    from finepref.lab import world

    return world.prompts(split)


def scorer(spec: Spec, device: str) -> Scorer:
    """One of the lab's."""
    from finepref.lab import scorers

    made: Scorer = getattr(scorers, spec.name.replace("-", "_"))()
    return made


for _name, _variant in (("lab", "base"), ("lab:early", "early")):
    register(base=Named(name=_name, load=partial(model_folder, _variant)))
for _split in ("train", "eval"):
    register(prompts=Named(name=f"lab-{_split}", load=partial(prompts, _split)))
register(scorer=ScorerRow("lab-reward", "the lab's reward, learned from votes on its training prompts", make=scorer))
register(scorer=ScorerRow("lab-diversity", "how far apart pictures of a prompt are", make=scorer, judges_only=True))
register(
    scorer=ScorerRow("lab-true", "the lab's true quality, computed; never for training", make=scorer, judges_only=True)
)
