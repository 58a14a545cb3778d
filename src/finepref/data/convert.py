"""Preference sets of any dialect written in the house format (`pairs`). No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from finepref.core.errors import InputError
from finepref.core.progress import progress, say
from finepref.formats.preferences import ImageRef, Preference, Preferences, Quarantined, write_pairs
from finepref.formats.quarantine import write_quarantine
from finepref.formats.reading import AS_IT_IS, Reading


def convert(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    reading: Reading = AS_IT_IS,
    overwrite: bool = False,
) -> tuple[int, int]:
    """Write any known format in the house format; pair ids stay, so sidecars of the original still fit.

    Unusable rows are left out and listed in `<out>.quarantine.jsonl`.

    Returns:
        (pairs written, pairs left out).

    Raises:
        InputError: `out` exists, the data cannot be read, or no pair is usable.
    """
    out = Path(out)
    if out.exists() and not overwrite:
        raise InputError("the file is there already", where=out, remedy="use another name, or --overwrite")
    left_out: list[Quarantined] = []
    pairs = Preferences(data=paths, reading=reading, quarantine=left_out)
    written = write_pairs(_with_images(progress(pairs, "convert", unit="pair"), left_out), out)
    if not written:
        out.unlink()
        raise InputError("no pair is usable", where=str(paths), remedy="see `finepref data validate`")
    if left_out:
        place = out.with_name(f"{out.name}.quarantine.jsonl")
        write_quarantine(place, left_out)
        say(f"{len(left_out)} pairs left out; see {place}")
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
