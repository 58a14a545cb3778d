"""Preference data sets on the hub, streamed by the `datasets` library."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from finepref.core.errors import InputError
from finepref.formats.tables import Table
from finepref.formats.textfiles import Line

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w\[\]%:+-]+)?")


def on_hub(name: str | Path) -> bool:
    """Whether a name is a data set on the hub: `owner/name` or `owner/name:split`, and nothing here."""
    return _HUB_NAME.fullmatch(str(name)) is not None and not os.path.exists(Path(name).expanduser())


def hub_table(name: str, wanted: str | None) -> Table:
    """A data set on the hub, streamed by the `datasets` library; images stay encoded."""
    if importlib.util.find_spec("datasets") is None:
        remedy = "check the path; to read it from the hub, install finepref[datasets]"
        raise InputError("no such file or folder", where=name, remedy=remedy)
    import datasets
    from huggingface_hub import HfApi

    repository, _, split = name.partition(":")
    split = wanted or split
    try:
        version = str(HfApi().dataset_info(repository).sha)
        rows = datasets.load_dataset(repository, split=split or "train", revision=version, streaming=True).decode(False)
        columns = tuple(rows.features or next(iter(rows)))
    except Exception as error:  # both libraries and the http client under them raise many kinds
        what = f"the hub does not hand it out ({' '.join(str(error).split()) or type(error).__name__})"
        raise InputError(what, where=name, remedy="check name, split and network") from None

    def read(wanted: Sequence[str] | None) -> Iterator[Line]:
        chosen = rows if wanted is None else rows.select_columns(list(wanted))
        yield from (Line(at, dict(row)) for at, row in enumerate(chosen))

    nowhere = Path(name)  # where its images would start: its rows name no file here
    return Table(nowhere, columns, nowhere, version, read, apart=False, identify=lambda: f"commit {version}")
