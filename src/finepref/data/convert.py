"""Preference sets of any dialect written in the house format (`pairs`). No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from finepref.core.errors import InputError
from finepref.core.ownership import check_file, has_footer, own_file
from finepref.core.progress import progress, say
from finepref.formats.preferences import PAIRS, ImageRef, Preference, Quarantined, read_preferences, write_pairs
from finepref.formats.quarantine import is_quarantine, write_quarantine
from finepref.formats.sources import named_inputs


def convert(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> tuple[int, int]:
    """Write any known format in the house format; pair ids stay, so sidecars of the original still fit.

    Unusable rows are left out and listed in `<out>.quarantine.jsonl`.

    Returns:
        (pairs written, pairs left out).

    Raises:
        InputError: `out` exists, the data cannot be read, or no pair is usable; what is there stays then.
    """
    out, inputs = Path(out), named_inputs(paths)
    aside = out.with_name(f"{out.name}.quarantine.jsonl")
    check_file(aside, lambda path: is_quarantine(path, Quarantined), inputs=inputs, what="a list of pairs left out")
    left_out: list[Quarantined] = []
    with own_file(out, has_footer(*PAIRS.names), inputs=inputs, what="a preference set"):
        if out.exists() and not overwrite:
            raise InputError("the file is there already", where=out, remedy="use another name, or --overwrite")
        pairs = read_preferences(paths, format=format, columns=columns, quarantine=left_out)
        written = write_pairs(_with_images(progress(pairs, "convert", unit="pair"), left_out), out)
        if left_out:
            write_quarantine(aside, left_out)
            say(f"{len(left_out)} pairs left out; see {aside}")
        else:
            aside.unlink(missing_ok=True)
    return written, len(left_out)


def _with_images(pairs: Iterable[Preference], left_out: list[Quarantined]) -> Iterator[Preference]:
    """The pairs with the bytes of their images; those whose images cannot be read go to the rows left out."""
    good = 0
    for pair in pairs:
        try:
            first, second = (ImageRef(data=image.read()) for image in (pair.image_0, pair.image_1))
        except InputError as error:
            left_out.append(Quarantined(good + len(left_out), pair.pair_id, str(error)))
            continue
        good += 1
        yield replace(pair, image_0=first, image_1=second)
