"""The options of early stopping."""

from __future__ import annotations

from finepref.core.options import Options, told


class StopOptions(Options):
    """End early, and leave the step that held-out pairs like best."""

    patience: int = told(3, "times that held-out pairs are looked at without a better step before the run ends", ge=1)
