"""What a command counted against what is true: wrong numbers and lost rows."""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fuzz.running import Done, Failure
from fuzz.votes import Counts, Truth

CLOSE = 1e-6


def canonical(name: str) -> str:
    """A name without what nobody sees."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def arena_failures(out: Path, done: Done, truth: Truth, *, about: str = "") -> list[Failure]:
    """Of an arena that was written: counts per model, and rows that are neither counted nor listed."""
    found = _arena(out, truth)
    return [Failure(each.count, f"{about}: {each.what}" if about else each.what) for each in found]


def folder_failures(out: Path, done: Done, truths: Mapping[str, Truth]) -> list[Failure]:
    """Of an arena of several files: all of them are counted, but for those that are named as not read."""
    failures: list[Failure] = []
    for count in range(len(truths), 0, -1):
        for names in itertools.combinations(truths, count):
            found = _arena(out, _added([truths[name] for name in names]))
            if not found and all(name in done.err for name in truths if name not in names):
                return []
            failures = failures or found
    return failures


def _added(truths: Sequence[Truth]) -> Truth:
    added = Truth(rows=sum(truth.rows for truth in truths), refuse=next((t.refuse for t in truths if t.refuse), ""))
    for truth in truths:
        for name, values in truth.sure.items():
            held = added.sure.setdefault(name, [0.0, 0.0, 0.0])
            held[:] = [a + b for a, b in zip(held, values, strict=True)]
    return added


def _arena(out: Path, truth: Truth) -> list[Failure]:
    if truth.refuse:
        return [Failure("wrong", f"it goes through: {truth.refuse}")]
    if not truth.known:
        return []
    record = json.loads((out / "ratings.json").read_text(encoding="utf-8"))
    found: Counts = {}
    for row in record["models"]:
        counts = [float(row[key]) for key in ("wins", "losses", "ties")]
        if not any(counts):
            continue
        name = canonical(row["name"])
        if name in found:
            return [Failure("wrong", f"two models are called {name!r}")]
        found[name] = counts
    listed = _listed(out, record)
    failures = _compared(found, truth, listed)
    if not failures and not truth.items:
        short = truth.void - listed
        if short > 0:
            failures.append(Failure("lost", f"{short} of {truth.rows} rows are neither counted nor listed"))
    return [*failures, *_sums(record, truth)]


def _listed(out: Path, record: dict[str, Any]) -> int:
    """Rows that are said to be left out: by ratings.json, by the list, or by a warning or the page."""
    held = record.get("votes")
    if isinstance(held, dict) and isinstance(held.get("left_out"), dict):
        return int(sum(held["left_out"].values()))
    page = (out / "arena.html").read_text(encoding="utf-8")
    said = sum(int(number) for number in re.findall(r"(\d+)(?:<[^>]*>|\s)*rows without a vote", page))
    path = out / "quarantine.jsonl"
    return said + (len(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else 0)


def _sums(record: dict[str, Any], truth: Truth) -> Iterable[Failure]:
    """Rows read = used + with itself + left out, where the record says them."""
    held = record.get("votes")
    if not isinstance(held, dict) or not {"read", "used", "left_out"} <= held.keys() or truth.items:
        return []
    left_out, own = sum(held["left_out"].values()), held.get("self") or 0
    if held["read"] != truth.rows:
        return [Failure("lost", f"{held['read']} of {truth.rows} rows are read")]
    apart = held.get("both_bad") or 0
    if held["read"] - held["used"] - left_out not in (0, own, apart, own + apart):
        return [Failure("lost", f"{held['read']} rows read, {held['used']} used, {own} self, {left_out} left out")]
    return []


def _compared(found: Counts, truth: Truth, listed: int) -> list[Failure]:
    sure = _merged(truth.sure)
    perhaps = _merged(truth.perhaps)
    if not truth.names:  # names may be cleaned: the numbers alone, and only where nothing is doubtful
        if perhaps or sorted(map(tuple, found.values())) == sorted(map(tuple, sure.values())):
            return []
        return [Failure("wrong", f"{_shown(found)} instead of {_shown(sure)}")]
    over = short = 0.0
    for name in {*found, *sure}:
        have, least = found.get(name, [0.0] * 3), sure.get(name, [0.0] * 3)
        most = [a + b for a, b in zip(least, perhaps.get(name, [0.0] * 3), strict=True)]
        over += sum(max(0.0, h - m) for h, m in zip(have, most, strict=True))
        short += sum(max(0.0, m - h) for h, m in zip(have, least, strict=True))
    if over > CLOSE:
        return [Failure("wrong", f"{_shown(found)} instead of {_shown(sure)}" + " and more" * bool(perhaps))]
    if short > CLOSE:
        kind = "wrong" if listed > truth.void else "lost"
        return [Failure(kind, f"{short / 2:g} votes are missing: {_shown(found)} instead of {_shown(sure)}")]
    return []


def _merged(counts: Counts) -> Counts:
    merged: Counts = {}
    for name, values in counts.items():
        held = merged.setdefault(canonical(name), [0.0, 0.0, 0.0])
        held[:] = [a + b for a, b in zip(held, values, strict=True)]
    return merged


def _shown(counts: Counts) -> str:
    return ", ".join(
        f"{name!r} {'/'.join(f'{value:g}' for value in values)}" for name, values in sorted(counts.items())
    )[:300]


def pairs_failures(path: Path, done: Done, truth: list[tuple[bytes, bytes, float | None]], void: int) -> list[Failure]:
    """Of a converted data set: every pair with its pictures and its label, or listed as left out."""
    columns = pq.read_table(path).to_pydict()
    found = sorted(map(_turned, zip(columns["image_0"], columns["image_1"], columns["label"], strict=True)))
    right = sorted(map(_turned, truth))
    said = re.search(r"(\d+) left out", done.out + done.err)
    left_out = int(said[1]) if said else 0
    if found == right:
        short = void - left_out
        return (
            [Failure("lost", f"{short} of {len(right) + void} rows are neither used nor listed")] if short > 0 else []
        )
    if len(found) + left_out < len(right) + void:
        return [Failure("lost", f"{len(found)} of {len(right)} pairs are written, {left_out} are said to be left out")]
    labels = [[row[2] for row in rows] for rows in (found, right)]
    return [
        Failure("wrong", f"{len(found)} pairs of {len(right)}; labels {labels[0][:12]} instead of {labels[1][:12]}")
    ]


def signals_failures(path: Path, truth: list[tuple[bytes, bytes, float | None]]) -> list[Failure]:
    """Of signals of every decided pair: how many there are, and no more winners on a side than were drawn for it."""
    winners = pq.read_table(path)["winner"].to_pylist()
    decided = [label for _, _, label in truth if label in (0.0, 1.0)]
    if len(winners) != len(decided):
        kind = "lost" if len(winners) < len(decided) else "wrong"
        return [Failure(kind, f"{len(winners)} signals of {len(decided)} decided pairs")]
    right = sum(label == 1.0 for label in decided)
    if winners.count(0) not in (right, len(decided)):  # chosen and rejected stand in this order
        return [Failure("wrong", f"{winners.count(0)} winners on the left instead of {right}")]
    return []


def prompts_failures(folder: Path, texts: list[str]) -> list[Failure]:
    """Of generated images: theirs are the first prompts of the file, in order."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [row["prompt"] for row in sorted(rows, key=lambda row: row["prompt_index"])]
    if found == texts:
        return []
    return [Failure("lost" if len(found) < len(texts) else "wrong", f"prompts {found!r} instead of {texts!r}"[:300])]


def _turned(pair: tuple[bytes, bytes, float | None]) -> tuple[bytes, bytes, float]:
    """A pair with the smaller picture first: which side it stands on says nothing."""
    first, second, label = pair
    label = -1.0 if label is None else label
    if first <= second:
        return first, second, label
    return second, first, label if label < 0 else 1 - label
