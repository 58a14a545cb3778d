"""Preference sets of any dialect written in the house format (`pairs`). No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from finepref.core.errors import InputError
from finepref.core.images import Unreadable, open_rgb
from finepref.core.ownership import check_file, has_footer, own_file, refuse_folder
from finepref.core.progress import progress, say
from finepref.data.hashed import Looked, Side, side_of
from finepref.formats.pairrows import Account, Draft
from finepref.formats.preferences import (
    ALWAYS,
    PAIRS,
    ImageRef,
    Preference,
    Quarantined,
    identified,
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
    """Write any known format in the house format, one file; pair ids stay, so sidecars of the original still fit.

    Unusable rows are left out and listed in `<out>.quarantine.jsonl`; so are those with a file that is no picture.

    Returns:
        (pairs written, pairs left out).

    Raises:
        InputError: `out` was made of something else, the data cannot be read, or no pair is usable; what is there
            stays then.
    """
    out, inputs = Path(out), named_inputs(paths)
    refuse_folder(out, "name a file, such as pairs.parquet")
    left_out: list[Quarantined] = []
    list_left_out = check_list(out, inputs)
    with own_file(out, has_footer(*ALWAYS, more=PAIRS.names), inputs=inputs, what="a preference set"):
        made = stamp_of(paths, reading)
        if out.exists() and not overwrite and made_of(out) != made:  # its own result is written again
            raise InputError("the file is there already", where=out, remedy="use another name, or --overwrite")
        rows = identified(paths, reading, images=True, account=Account())
        bar = progress(rows, "convert", total=count_rows(paths, reading), unit="pair")
        written = write_pairs(_with_images(bar, left_out), out, made=made)
        write_list(list_left_out, left_out)
    return written, len(left_out)


def check_list(out: Path, inputs: Sequence[Path]) -> Path:
    """Where the pairs left out are listed: `<out>.quarantine.jsonl`.

    Raises:
        InputError: something else stands there.
    """
    aside = out.with_name(f"{out.name}.quarantine.jsonl")
    check_file(aside, lambda path: is_quarantine(path, Quarantined), inputs=inputs, what="a list of pairs left out")
    return aside


def write_list(aside: Path, left_out: Sequence[Quarantined]) -> None:
    """List the pairs left out, and say so; without any there is no list."""
    if left_out:
        write_quarantine(aside, left_out)
        say(f"{len(left_out)} pairs left out; see {aside}")
    else:
        aside.unlink(missing_ok=True)


def _with_images(rows: Iterable[tuple[int, str, Draft]], left_out: list[Quarantined]) -> Iterator[Preference]:
    """The pairs with the bytes of their images; those that cannot be used go to the rows left out."""
    looked: Looked = {}
    for row, pair_id, draft in rows:
        pair, fault = draft.preference, draft.problem
        if pair is not None and not fault:
            sides = side_of(pair.image_0), side_of(pair.image_1)
            fault = fault_of(sides, looked)
            if not fault:
                yield whole_pair(pair, pair_id, sides)
        if fault:
            left_out.append(Quarantined(row, pair_id, fault, draft.place))


def whole_pair(pair: Preference, pair_id: str, sides: tuple[Side, Side]) -> Preference:
    """A pair with its id and the bytes of its images."""
    first, second = (ImageRef(data=side.content) for side in sides)
    return replace(pair, pair_id=pair_id, image_0=first, image_1=second)


def fault_of(sides: Sequence[Side], looked: Looked) -> str:
    """Why images cannot be used, or nothing. looked: what is known of others; equal images are decoded once."""
    for side in sides:
        if not side.fault and side.key not in looked:
            looked[side.key] = (_decoding_fault(side.content), "", "")
    faults = [side.fault or looked[side.key][0] for side in sides]
    return "; ".join(f"image_{number}: {fault}" for number, fault in enumerate(faults) if fault)


def _decoding_fault(content: bytes) -> str:
    try:
        open_rgb(content)
    except Unreadable as error:
        return str(error)
    return ""
