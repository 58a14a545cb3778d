"""Fine-grained preference optimisation of text-to-image diffusion models. Tour: docs/python.md.

    finepref.core         errors, files, draws, provenance, progress, images
    finepref.formats      the exchanged files, one module each
    finepref.arena        votes -> ratings -> gaps                     (no torch)
    finepref.signals      gaps, rewards, labels -> signals             (no torch)
    finepref.diffusion    paths, forward noise, inversions
    finepref.objectives   per-pair losses, guards, their tables
    finepref.models       one file a model family, sources, LoRA, export
    finepref.data         preference data, prompt sets, latent cache
    finepref.train        config, step, loop, checkpoints
    finepref.plan         what a run needs before it starts
    finepref.evaluate     generate, score, compare
    finepref.report       pages, charts, markdown                      (no torch)
    finepref.lab          a tiny world whose true quality is known

Importing `finepref` imports none of them: each name below is loaded when it is used.
"""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finepref import objectives as objectives
    from finepref.arena.engines import rate as rate
    from finepref.arena.gap import gaps as gaps
    from finepref.arena.gap import gaps_both as gaps_both
    from finepref.arena.posterior import posterior as posterior
    from finepref.arena.ratings import Ratings as Ratings
    from finepref.arena.ratings import load_ratings as load_ratings
    from finepref.core.rows import register as register
    from finepref.core.tensors import PairPrediction as PairPrediction
    from finepref.core.tensors import PairSignal as PairSignal
    from finepref.diffusion import trajectories as trajectories
    from finepref.evaluate.compare import compare as compare
    from finepref.evaluate.generate import generate as generate
    from finepref.evaluate.score import score as score
    from finepref.evaluate.scored_pairs import score_preferences as score_preferences
    from finepref.formats.preferences import read_preferences as read_preferences
    from finepref.formats.signals import Signals as Signals
    from finepref.formats.votefiles import read_votes as read_votes
    from finepref.formats.votes import Votes as Votes
    from finepref.models.load import open_pipeline as open_pipeline
    from finepref.objectives import guards as guards
    from finepref.report.page import report as report
    from finepref.signals.make import make_signals as make_signals
    from finepref.train.callbacks import Callback as Callback
    from finepref.train.trainer import Trainer as Trainer

try:
    __version__ = version("finepref")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_FROM = {
    "Callback": "train.callbacks", "PairPrediction": "core.tensors", "PairSignal": "core.tensors",
    "Ratings": "arena.ratings", "Signals": "formats.signals", "Trainer": "train.trainer", "Votes": "formats.votes",
    "compare": "evaluate.compare", "gaps": "arena.gap", "gaps_both": "arena.gap", "generate": "evaluate.generate",
    "guards": "objectives.guards", "load_ratings": "arena.ratings", "make_signals": "signals.make",
    "objectives": "objectives", "open_pipeline": "models.load", "posterior": "arena.posterior", "rate": "arena.engines",
    "read_preferences": "formats.preferences", "read_votes": "formats.votefiles", "register": "core.rows",
    "report": "report.page", "score": "evaluate.score", "score_preferences": "evaluate.scored_pairs",
    "trajectories": "diffusion.trajectories",
}  # fmt: skip
__all__ = ["__version__", *_FROM]


if not TYPE_CHECKING:  # a name that is not there is an error for type checkers too

    def __getattr__(name: str) -> Any:
        if name not in _FROM:
            raise AttributeError(f"module 'finepref' has no attribute {name!r}")
        module = import_module(f"finepref.{_FROM[name]}")
        return getattr(module, name, module)


def __dir__() -> list[str]:
    return __all__


class _Surface(ModuleType):
    """The package, in which `report` stays the function when the room of that name is imported."""

    report = property(lambda self: import_module("finepref.report.page").report, lambda self, room: None)


sys.modules[__name__].__class__ = _Surface
