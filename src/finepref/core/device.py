"""Which device a command runs on, and where it keeps what it generates or downloads."""

from __future__ import annotations

import os
from pathlib import Path


def default_device() -> str:
    """cuda where there is one, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def cache_home() -> Path:
    """Where generated models and downloads are kept: $FINEPREF_HOME, else finepref/ in the user's cache folder."""
    given = os.environ.get("FINEPREF_HOME")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finepref"
