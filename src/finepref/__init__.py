"""Fine-grained preference optimisation of text-to-image diffusion models.

    finepref.arena        votes -> ratings -> gaps                     (no torch)
    finepref.signals      gaps, rewards, labels -> signals.parquet     (no torch)
    finepref.diffusion    paths, forward noise, inversions
    finepref.objectives   per-pair losses, the guard, the method table
    finepref.models       one adapter per model family
    finepref.data         preference data, latent cache, batches
    finepref.train        config, step, loop, checkpoints
    finepref.evaluate     generate, score, compare, report
    finepref.lab          a tiny world whose true quality is known

Importing `finepref` imports none of them.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("finepref")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
