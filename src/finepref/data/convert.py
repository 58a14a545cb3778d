"""Preference sets of any dialect written in the house format (`pairs`). No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from finepref.core.errors import InputError
from finepref.core.images import Unreadable, open_rgb
from finepref.core.ownership import check_file, has_footer, own_file, refuse_folder
from finepref.core.progress import progress, say
from finepref.core.provenance import sha256_bytes
from finepref.formats.preferences import (
    ALWAYS,
    PAIRS,
    ImageRef,
    Preference,
    Preferences,
    Quarantined,
    made_of,
    write_pairs,
)
from finepref.formats.quarantine import is_quarantine, write_quarantine
from finepref.formats.reading import AS_IT_IS, Reading
from finepref.formats.sources import count_rows, named_inputs, stamp_of


def convert(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    reading: Reading = AS_IT_IS,
    overwrite: bool = False,
) -> tuple[int, int]:
    """Write any known format in the house format; pair ids stay, so sidecars of the original still fit.

    Unusable rows are left out and listed in `<out>.quarantine.jsonl`; so are those with a file that is no picture.

    Returns:
        (pairs written, pairs left out).

    Raises:
        InputError: `out` was made of something else, the data cannot be read, or no pair is usable; what is there
            stays then.
    """
    out, inputs = Path(out), named_inputs(paths)
    refuse_folder(out, "name a file, such as pairs.parquet")
    aside = out.with_name(f"{out.name}.quarantine.jsonl")
    check_file(aside, lambda path: is_quarantine(path, Quarantined), inputs=inputs, what="a list of pairs left out")
    left_out: list[Quarantined] = []
    with own_file(out, has_footer(*ALWAYS, more=PAIRS.names), inputs=inputs, what="a preference set"):
        made = stamp_of(paths, reading)
        if out.exists() and not overwrite and made_of(out) != made:  # its own result is written again
            raise InputError("the file is there already", where=out, remedy="use another name, or --overwrite")
        pairs = Preferences(data=paths, reading=reading, quarantine=left_out)
        bar = progress(pairs, "convert", total=count_rows(paths, reading), unit="pair")
        written = write_pairs(_with_images(bar, left_out), out, made=made)
        if left_out:
            write_quarantine(aside, left_out)
            say(f"{len(left_out)} pairs left out; see {aside}")
        else:
            aside.unlink(missing_ok=True)
    return written, len(left_out)


def _with_images(pairs: Iterable[Preference], left_out: list[Quarantined]) -> Iterator[Preference]:
    """The pairs with the bytes of their images; those whose images cannot be used go to the rows left out."""
    known: dict[str, str] = {}  # content hash -> why the image cannot be used, or nothing
    written = 0
    for pair in pairs:
        contents, faults = [], []
        for side, image in enumerate((pair.image_0, pair.image_1)):
            try:
                contents.append(image.read())
                faults += [f"image_{side}: {reason}"] if (reason := _fault(contents[-1], known)) else []
            except InputError as error:
                faults.append(f"image_{side}: {error}")
        if faults:
            left_out.append(Quarantined(written + len(left_out), pair.pair_id, "; ".join(faults)))
            continue
        written += 1
        first, second = (ImageRef(data=content) for content in contents)
        yield replace(pair, image_0=first, image_1=second)


def _fault(content: bytes, known: dict[str, str]) -> str:
    """Why an image cannot be used, or nothing; equal images are decoded once."""
    sha = sha256_bytes(content)
    if sha not in known:
        try:
            open_rgb(content)
            known[sha] = ""
        except Unreadable as error:
            known[sha] = str(error)
    return known[sha]
