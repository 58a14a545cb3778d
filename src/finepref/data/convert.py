"""Preference sets written in the house format. No torch.

House format (`pairs`): parquet with pair_id, prompt, image_0, image_1 (encoded bytes), label, model_0, model_1, voter.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finepref.core.errors import InputError
from finepref.core.files import atomic_file, write_text
from finepref.core.progress import progress, say
from finepref.data.readers import read_preferences
from finepref.data.schema import Preference, Quarantined

PAIRS = pa.schema(
    [
        ("pair_id", pa.string()),
        ("prompt", pa.string()),
        ("image_0", pa.binary()),
        ("image_1", pa.binary()),
        ("label", pa.float64()),
        ("model_0", pa.string()),
        ("model_1", pa.string()),
        ("voter", pa.string()),
    ]
)
_GROUP = 256


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
        InputError: `out` exists, the data cannot be read, or no pair is usable.
    """
    out = Path(out)
    if out.exists() and not overwrite:
        raise InputError("the file is there already", where=out, remedy="use another name, or --overwrite")
    rejected: list[Quarantined] = []
    missing: list[Quarantined] = []
    pairs = read_preferences(paths, format=format, columns=columns, quarantine=rejected)
    written = write_pairs(_with_images(progress(pairs, "convert", unit="pair"), rejected, missing), out)
    left_out = sorted([*rejected, *missing], key=lambda each: each.row)
    if not written:
        out.unlink()
        raise InputError("no pair is usable", where=str(paths), remedy="see `finepref data validate`")
    if left_out:
        place = out.with_name(f"{out.name}.quarantine.jsonl")
        write_text(place, "".join(json.dumps(asdict(each)) + "\n" for each in left_out))
        say(f"{len(left_out)} pairs left out; see {place}")
    return written, len(left_out)


def _with_images(
    pairs: Iterable[Preference], rejected: list[Quarantined], missing: list[Quarantined]
) -> Iterator[dict[str, Any]]:
    for index, pair in enumerate(pairs):
        try:
            images = {"image_0": pair.image_0.read(), "image_1": pair.image_1.read()}
        except InputError as error:
            missing.append(Quarantined(row=index + len(rejected), pair_id=pair.pair_id, reason=str(error)))
            continue
        fields = ("pair_id", "prompt", "label", "model_0", "model_1", "voter")
        row = {name: getattr(pair, name) for name in fields} | images
        yield row | {"label": None if math.isnan(pair.label) else pair.label}


def write_pairs(rows: Iterable[Mapping[str, Any]], out: str | Path) -> int:
    """Stream rows of the house schema into a parquet file, atomically; how many."""
    count = 0
    iterator = iter(rows)
    with atomic_file(out) as temporary, pq.ParquetWriter(temporary, PAIRS, compression="zstd") as writer:
        while group := list(itertools.islice(iterator, _GROUP)):
            writer.write_table(pa.Table.from_pylist([dict(row) for row in group], PAIRS))
            count += len(group)
    return count
