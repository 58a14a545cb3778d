"""Join the cache's pairs with the signal: who wins, margin and weight; or single images with labels (KTO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finepref.core.errors import InputError
from finepref.core.files import parquet_meta, read_parquet
from finepref.core.progress import say
from finepref.core.provenance import hash_config, sha256_bytes
from finepref.data.latents import Latents
from finepref.formats.preferences import read_pair_ids, winner_of

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PairTable:
    """P pairs that can be trained on: ids, hashes of prompt, winner and loser image, scaled margin and weight [P]."""

    pair_id: tuple[str, ...]
    prompt: tuple[str, ...]
    winner: tuple[str, ...]
    loser: tuple[str, ...]
    margin: Floats
    weight: Floats
    about: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ImageTable:
    """N single images with a label: id (image and prompt hash), image, prompt, desirable [N] bool."""

    image_id: tuple[str, ...]
    image: tuple[str, ...]
    prompt: tuple[str, ...]
    desirable: npt.NDArray[np.bool_]
    about: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Signal:
    """What is known of a pair: winner 0|1, margin for that winner, weight, labels (-1 where there is none)."""

    row: dict[str, int]
    winner: npt.NDArray[np.int64]
    margin: Floats
    weight: Floats
    labels: npt.NDArray[np.int64]
    about: dict[str, Any]


def pair_table(
    cache: Latents,
    *,
    signals: str | None,
    votes: Sequence[str],
    format: str,
    columns: Mapping[str, str] | None = None,
    scale: float,
) -> PairTable:
    """Pairs of the cache that the signal speaks of, in the cache's order; pairs without a winner are left out.

    Args:
        signals: signals.parquet; None takes the votes themselves (margin 0, weight 1).
        votes, format, columns: as for `preferences.read_pair_ids`; read only without `signals`, where the cache does
            not hold the votes.
        scale: lambda, margins are multiplied by it.

    Raises:
        InputError: no pair is left, or the signal knows none of the cache's pairs.
    """
    pairs = cache.pairs
    if signals is not None:
        known = _from_file(signals)
    elif cache.labels is not None:
        known = _from_votes(list(pairs), cache.labels)
    else:
        known = _from_votes(*_read_votes(votes, format, columns))
    kept = [(pair, known.row[pair]) for pair in pairs if pair in known.row]
    if not kept:
        raise InputError(
            f"none of the {len(pairs)} cached pairs is in the signal",
            where=signals or ", ".join(votes) or "the cache",
            remedy="make signals and cache from the same votes",
        )
    rows = np.array([row for _, row in kept])
    winner = known.winner[rows]
    missing = len(pairs) - len(kept)
    if missing:
        say(f"{missing} of {len(pairs)} cached pairs have no signal (ties or no score) and are left out")
    held = [pairs[pair] for pair, _ in kept]
    sides = [(pair.image_0, pair.image_1) for pair in held]
    return PairTable(
        pair_id=tuple(pair for pair, _ in kept),
        prompt=tuple(pair.prompt for pair in held),
        winner=tuple(side[w] for side, w in zip(sides, winner, strict=True)),
        loser=tuple(side[1 - w] for side, w in zip(sides, winner, strict=True)),
        margin=(scale * known.margin[rows]).astype(np.float32),
        weight=known.weight[rows],
        about={**known.about, "pairs": len(kept), "left_out": missing},
    )


def image_table(cache: Latents, *, signals: str) -> ImageTable:
    """Single images with the label that the signal gives them; the same image under the same prompt comes once a label.

    Raises:
        InputError: the signal has no labels, or only one kind of them.
    """
    known = _from_file(signals)
    found: dict[tuple[str, str, int], None] = {}
    for pair, held in cache.pairs.items():
        if pair not in known.row:
            continue
        for side, image in enumerate((held.image_0, held.image_1)):
            label = int(known.labels[known.row[pair], side])
            if label >= 0:
                found[image, held.prompt, label] = None
    desirable = np.array([label for *_, label in found], dtype=bool)
    if not len(desirable) or desirable.all() or not desirable.any():
        raise InputError(
            "it has no image labels of both kinds", where=signals, remedy="make it with `finepref signals --kind kto`"
        )
    return ImageTable(
        image_id=tuple(
            f"{image[:32]}:{prompt[:32]}" + (f":{label}" if (image, prompt, 1 - label) in found else "")
            for image, prompt, label in found
        ),
        image=tuple(image for image, *_ in found),
        prompt=tuple(prompt for _, prompt, _ in found),
        desirable=desirable,
        about={**known.about, "images": len(desirable), "desirable": int(desirable.sum())},
    )


def _from_file(path: str) -> _Signal:
    names = ["pair_id", "winner", "margin_0", "margin_1", "weight", "label_0", "label_1"]
    table = read_parquet(path, names)
    meta = parquet_meta(Path(path))
    columns = {name: table[name] for name in names}
    winner = columns["winner"].to_numpy().astype(np.int64)
    margins = np.stack([columns["margin_0"].to_numpy(), columns["margin_1"].to_numpy()])
    margin = margins[winner, np.arange(len(winner))]
    ids = columns["pair_id"].to_pylist()
    if not np.isfinite(margin).all():
        raise InputError(
            f"the margin of pair {ids[int(np.flatnonzero(~np.isfinite(margin))[0])]} is not finite",
            where=path,
            remedy="make it again with `finepref signals`",
        )
    weight = columns["weight"].to_numpy().astype(np.float32)
    kinds = [key.removesuffix(".scorer") for key in meta if key.endswith(".scorer")]
    spent = {meta[f"{kind}.scorer"]: meta.get(f"{kind}.device_seconds") for kind in kinds}.values()
    labels = np.stack([columns[f"label_{side}"].fill_null(-1).to_numpy() for side in (0, 1)], axis=1)
    return _Signal(
        row={pair: i for i, pair in enumerate(ids)},
        winner=winner,
        margin=margin.astype(np.float32),
        weight=weight,
        labels=labels.astype(np.int64),
        about={
            "kind": "+".join(meta.get("kinds", ["unknown"])),
            "sha256": sha256_bytes(
                b"".join([*map(str.encode, ids), *(values.tobytes() for values in (winner, margins, weight, labels))])
            ),
            "rewards": sorted({value for key, value in meta.items() if key.endswith(".scorer")}),
            "device_seconds": None if None in spent else sum(spent),
        },
    )


def _read_votes(
    votes: Sequence[str], format: str, columns: Mapping[str, str] | None
) -> tuple[list[str], npt.NDArray[np.float64]]:
    if not votes:
        raise InputError("there is neither a signal file nor a vote file", where="data.paths", remedy="name the votes")
    return read_pair_ids(*votes, format=format, columns=columns)


def _from_votes(ids: Sequence[str], labels: npt.NDArray[np.float64]) -> _Signal:
    decided = [
        (pair, winner) for pair, label in zip(ids, labels, strict=True) if (winner := winner_of(label)) is not None
    ]
    count = len(decided)
    return _Signal(
        row={pair: i for i, (pair, _) in enumerate(decided)},
        winner=np.array([winner for _, winner in decided], dtype=np.int64),
        margin=np.zeros(count, dtype=np.float32),
        weight=np.ones(count, dtype=np.float32),
        labels=np.full((count, 2), -1, dtype=np.int64),
        about={"kind": "binary", "sha256": hash_config({"decided": decided}), "rewards": []},
    )
