"""The options of early stopping."""

from __future__ import annotations

from finepref.core.options import Options, told


class StopOptions(Options):
    """End early, and leave the last step that held-out pairs find sound, or the start."""

    patience: int = told(3, "looks at held-out pairs in a row that find no sound step before the run ends", ge=1)
