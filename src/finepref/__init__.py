"""Fine-grained preference optimisation of text-to-image diffusion models.

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

Importing `finepref` imports none of them.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("finepref")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_FROM = {"register": "finepref.core.rows"}

__all__ = ["__version__", *_FROM]


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module 'finepref' has no attribute {name!r}")
    return getattr(import_module(_FROM[name]), name)
