"""What the lab registers, like a plugin: its models, scorers and prompt sets."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from finepref.core.rows import Named, register
from finepref.evaluate.scorers.kinds import ScorerRow, Spec

if TYPE_CHECKING:
    from finepref.lab.scorers import LabScorer


def cache_home() -> Path:
    """Where generated models are kept: $FINEPREF_HOME, else finepref/ in the user's cache folder."""
    given = os.environ.get("FINEPREF_HOME")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finepref"


def model_folder(variant: str) -> str:
    """The lab's model as a diffusers folder, written where it is missing."""
    from finepref.lab import model

    return str(model.materialise(cache_home() / f"lab-{variant}-{model.fingerprint(variant)[:12]}", variant))


def prompts(split: str) -> tuple[str, ...]:
    """The prompts of `lab-train` (votes) or `lab-eval` (held out)."""
    from finepref.lab import world

    return tuple(world.prompts(split))


def scorer(spec: Spec, device: str) -> LabScorer:
    """`lab-reward` or `lab-true`."""
    from finepref.lab import scorers

    return scorers.lab_reward() if spec.name == "lab-reward" else scorers.lab_true()


register(base=Named(name="lab", load=partial(model_folder, "base")))
register(base=Named(name="lab:early", load=partial(model_folder, "early")))
register(prompts=Named(name="lab-train", load=partial(prompts, "train")))
register(prompts=Named(name="lab-eval", load=partial(prompts, "eval")))
register(scorer=ScorerRow("lab-reward", "the lab's reward, learned from votes on its training prompts", make=scorer))
register(scorer=ScorerRow("lab-true", "the lab's true quality, computed; never for training", make=scorer))
