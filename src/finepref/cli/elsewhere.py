"""An address (s3://...) where a command reads or writes a file on a disk is refused, before it is taken for a path."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from finepref.cli.typed import called
from finepref.core.addresses import refuse_address

TABLES = {"data", "votes", "overrides"}  # parameters that name preference tables; an override may be data.paths
SERVERS = ("http://", "https://")  # in options that are text


def refuse_addresses(app: typer.Typer, words: Sequence[str]) -> None:
    """Look at the words of a command line before it is run.

    Raises:
        InputError: an address where only a disk will do.
    """
    command, left = called(app, words)
    with command.make_context("finepref", left, resilient_parsing=True) as context:
        given = {name: value for name, value in context.params.items() if name not in TABLES}
    for value in given.values():
        for each in map(str, value if isinstance(value, list | tuple) else [value]):
            name, equals, folder = each.partition("=")
            place = folder if equals and ":" not in name else each  # NAME=FOLDER
            if not place.startswith(SERVERS):
                refuse_address(place)
