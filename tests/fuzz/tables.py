"""Tables in the ways that people save them: csv with every separator and encoding, JSON of every shape, parquet."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Draw = random.Random
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Saved:
    """name of the file, its bytes, the options that it needs, and whether it is of the plain kind everybody reads."""

    name: str
    content: bytes
    options: tuple[str, ...] = ()
    plain: bool = True


def save(draw: Draw, rows: Sequence[Row], columns: Sequence[str], *, stem: str = "v", plain: bool = False) -> Saved:
    """The rows in one file. plain: csv, jsonl or parquet as everybody writes them."""
    kind = draw.choice(("csv", "csv", "jsonl", "parquet"))
    if not plain:
        kind = draw.choice(("csv", "csv", "csv", "tsv", "jsonl", "json", "parquet"))
    if kind in ("csv", "tsv"):
        return _csv(draw, rows, columns, stem, kind, plain)
    if kind == "parquet":
        return Saved(f"{stem}.parquet", parquet_bytes(draw, rows, columns, plain=plain))
    return _json(draw, rows, stem, kind, plain)


def cell(value: Any, missing: str = "") -> str:
    """A value as a csv holds it."""
    if value is None:
        return missing
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def csv_text(
    rows: Sequence[Row], columns: Sequence[str], *, delimiter: str = ",", newline: str = "\n", quoting: int = 0
) -> str:
    """As csv."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=newline, quoting=quoting)
    writer.writerow(columns)
    writer.writerows([cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue()


def _csv(draw: Draw, rows: Sequence[Row], columns: Sequence[str], stem: str, kind: str, plain: bool) -> Saved:
    delimiter, newline, quoting, encoding, ending = (
        ("\t" if kind == "tsv" else ","),
        "\n",
        csv.QUOTE_MINIMAL,
        "utf-8",
        "",
    )
    if not plain:
        delimiter = delimiter if kind == "tsv" else draw.choice((",", ",", ",", ";", "\t", "|"))
        newline = draw.choice(("\n", "\r\n", "\r\n", "\r"))
        quoting = csv.QUOTE_ALL if newline == "\r" else draw.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        encoding = draw.choice(("utf-8",) * 6 + ("utf-8-sig", "utf-8-sig", "utf-16", "cp1252"))
        ending = draw.choice(("",) * 8 + (".gz", ".zst"))
    text = csv_text(rows, columns, delimiter=delimiter, newline=newline, quoting=quoting)
    options: tuple[str, ...] = ()
    try:
        content = text.encode(encoding)
    except UnicodeEncodeError:
        encoding, content = "utf-8", text.encode("utf-8", "surrogatepass")
    if encoding in ("cp1252", "utf-16") and draw.random() < 0.5:
        options = ("--encoding", encoding)
    name = f"{stem}.{draw.choice((kind, kind, kind, kind.upper())) if not plain else kind}{ending}"
    usual = delimiter == ("\t" if kind == "tsv" else ",") and newline != "\r" and encoding.startswith("utf-8")
    return Saved(name, packed(content, ending), options, plain=usual and not ending)


def packed(content: bytes, ending: str) -> bytes:
    """Compressed by what the file's ending says."""
    if ending == ".gz":
        return gzip.compress(content, mtime=0)
    if ending == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        return sink.getvalue().to_pybytes()
    return content


def _json(draw: Draw, rows: Sequence[Row], stem: str, kind: str, plain: bool) -> Saved:
    held = [dict(row) for row in rows]
    if not plain:  # a field that a row has no value for is null, or not there
        sparse = draw.random() < 0.5
        held = [{k: v for k, v in row.items() if v is not None or not sparse} for row in held]
        if draw.random() < 0.2:
            held = [dict(draw.sample(list(row.items()), len(row))) for row in held]
    as_ascii = draw.random() < 0.5
    shape = draw.choice(("lines", "lines", "lines, blank ones between")) if kind == "jsonl" else "list"
    if kind == "json" and not plain:
        shape = draw.choice(("list", "indented", "lines", "one after the other"))
    texts = [json.dumps(row, ensure_ascii=as_ascii) for row in held]
    text = {
        "lines": "\n".join(texts) + "\n",
        "lines, blank ones between": "\n\n".join(texts),
        "list": "[" + ", ".join(texts) + "]",
        "indented": json.dumps(held, indent=2, ensure_ascii=as_ascii),
        "one after the other": " ".join(texts),
    }[shape]
    ending = "" if plain else draw.choice(("",) * 8 + (".gz", ".zst"))
    name = f"{stem}.{kind if plain or kind == 'json' else draw.choice(('jsonl', 'ndjson', 'jsonl'))}{ending}"
    usual = not ending and shape not in ("one after the other",) and (kind, shape) != ("json", "lines")
    return Saved(name, packed(text.encode("utf-8", "surrogatepass"), ending), plain=usual)


def parquet_bytes(draw: Draw, rows: Sequence[Row], columns: Sequence[str], *, plain: bool = True) -> bytes:
    """As parquet; text may be large, or coded by a dictionary."""
    arrays = {name: column(draw, [row.get(name) for row in rows], plain=plain) for name in columns}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), sink, row_group_size=max(1, draw.choice((2, 7, 1000))))
    return sink.getvalue().to_pybytes()


def column(draw: Draw, values: list[Any], *, plain: bool) -> pa.Array:
    """An Arrow column of values that may be of several kinds."""
    kinds = {type(value) for value in values if value is not None}
    if any(type(value) is int and abs(value) >= 2**63 for value in values):
        values, kinds = [None if value is None else cell(value) for value in values], {str}
    if kinds <= {int, float} and kinds != {int}:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    if len(kinds) > 1 and bytes not in kinds and dict not in kinds:
        values = [None if value is None else cell(value) for value in values]
        kinds = {str}
    if kinds == {str}:
        values = [None if v is None else v.encode("utf-8", "replace").decode() for v in values]
        array = pa.array(values, pa.string())
        way = "" if plain else draw.choice(("", "", "large", "coded"))
        return array.cast(pa.large_string()) if way == "large" else array.dictionary_encode() if way else array
    if kinds == {int} and not plain and max(map(abs, (v for v in values if v is not None))) < 100:
        return pa.array(values, draw.choice((pa.int64(), pa.int8(), pa.int32())))
    return pa.array(values)


def any_parquet(draw: Draw, path: Path) -> None:
    """Damage a parquet file where it lies: its bytes, a column, its rows, or its footer."""
    from fuzz.damage import STRANGE, any_bytes, any_json, json_text

    if draw.random() < 0.35:
        path.write_bytes(any_bytes(draw, path.read_bytes()))
        return
    table = pq.read_table(path)
    meta = dict(table.schema.metadata or {})
    way = draw.choice(("drop", "rename", "null", "strange", "twice", "none", "shuffle", "footer", "footer", "double"))
    at = draw.randrange(table.num_columns)
    name = table.column_names[at]
    if way == "drop":
        table = table.drop_columns([name])
    elif way == "rename":
        table = table.rename_columns([n + "2" if n == name else n for n in table.column_names])
    elif way == "null":
        table = table.set_column(at, name, pa.nulls(len(table), draw.choice((table.schema[at].type, pa.null()))))
    elif way == "strange":
        values = table[name].to_pylist()
        values[draw.randrange(len(values))] = draw.choice((None, *STRANGE[:14]))
        try:
            array = pa.array(values, table.schema[at].type)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            array = pa.array([None if v is None else str(v).encode("utf-8", "replace").decode() for v in values])
        table = table.set_column(at, name, array)
    elif way == "twice":
        table = table.append_column(name, table[name])
    elif way == "none":
        table = table.slice(0, 0)
    elif way == "shuffle":
        table = table.take(draw.sample(range(len(table)), len(table)))
    elif way == "double":
        table = pa.concat_tables([table, table])
    else:
        for key in meta:
            try:
                meta[key] = json_text(any_json(draw, json.loads(meta[key])))
            except ValueError:
                meta[key] = any_bytes(draw, meta[key])
    pq.write_table(table.replace_schema_metadata(meta), path)
