"""What a run trains on: the cache's pairs joined with the signal, or single images with labels (KTO)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from finepref.core.errors import InputError
from finepref.core.progress import say
from finepref.core.provenance import hash_config
from finepref.data.latents import Latents
from finepref.formats.cachetables import Pairs
from finepref.formats.hashcolumns import Column, Hashes, Rows, chosen, places, rows_of, taken, text_of
from finepref.formats.preferences import read_pair_ids
from finepref.formats.reading import AS_IT_IS, Reading
from finepref.formats.run import RunSignals
from finepref.formats.signals import NO_LABEL, Signals, from_columns, read_signals
from finepref.formats.textcolumn import PIECE

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PairTable:
    """P pairs that can be trained on: ids, hashes of prompt, winner and loser image, scaled margin and weight [P].

    bucket: of both images.
    """

    pair_id: Column
    prompt: Column
    winner: Column
    loser: Column
    bucket: Sequence[str]
    margin: Floats
    weight: Floats
    about: RunSignals

    @property
    def ids(self) -> Column:
        """What a row of it is named by."""
        return self.pair_id


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ImageTable:
    """N single images with a label: id (image and prompt hash), image, prompt, bucket, desirable [N] bool."""

    image_id: tuple[str, ...]
    image: tuple[str, ...]
    prompt: tuple[str, ...]
    bucket: tuple[str, ...]
    desirable: npt.NDArray[np.bool_]
    about: RunSignals

    @property
    def ids(self) -> tuple[str, ...]:
        """What a row of it is named by."""
        return self.image_id


def pair_table(
    cache: Latents,
    *,
    signals: str | None,
    votes: Sequence[str],
    reading: Reading = AS_IT_IS,
    scale: float,
    swap: bool = False,
    without: frozenset[str] = frozenset(),
) -> PairTable:
    """Pairs of the cache that the signal speaks of, in the cache's order; pairs without a winner are left out.

    Args:
        signals: signals.parquet; None takes the votes themselves (margin 0, weight 1).
        votes, reading: as for `preferences.read_pair_ids`; read only without `signals`, where the cache does
            not hold the votes.
        scale: lambda, margins are multiplied by it. swap: losers are taken as winners, with the margins that the
            signal has for that. without: pairs that are held out.

    Raises:
        InputError: a signal that cannot be used, no pair is left, or the signal knows none of the cache's pairs.
    """
    pairs = cache.pairs
    if signals is not None:
        known = read_signals(signals)
        about = about_signals(known)
    else:
        named, labels = votes_of(cache, votes, reading)
        known, about, decided = _from_votes(named, labels, without=without)
    if signals is None and named is pairs.ids:
        place = np.full(len(pairs), -1, np.int32)
        place[decided] = np.arange(len(decided))
    else:
        place = places(pairs.ids, known.pair_id)
    if without:
        place[[row for row, pair in enumerate(pairs) if pair in without]] = -1
    kept = np.flatnonzero(place >= 0).astype(np.int32)
    if not len(kept):
        what = f"none of the {len(pairs) - len(without)} cached pairs is in the signal"
        remedy = "make signals and cache from the same votes"
        raise InputError(what, where=signals or ", ".join(votes) or "the cache", remedy=remedy)
    missing = len(pairs) - len(without) - len(kept)
    if missing:
        say(f"{missing} of {len(pairs) - len(without)} cached pairs have no signal (ties or no score) and are left out")
    used = known.take(place[kept])
    return _pair_table(pairs, kept, used, replace(about, pairs=len(kept), left_out=missing), scale=scale, swap=swap)


def voted_table(
    pairs: Pairs, ids: frozenset[str], *, named: Sequence[str], labels: npt.NDArray[np.float64], swap: bool
) -> PairTable:
    """The pairs of some ids with the winner that was voted for, margin 0 and weight 1. named, labels: as of `votes_of`.

    Raises:
        InputError: not one of them was decided.
    """
    here = np.array([pair in ids for pair in named], dtype=bool)
    known, about, _ = _from_votes([pair for pair, held in zip(named, here, strict=True) if held], labels[here])
    if not len(known):
        what = f"nobody decided one of the {len(ids)} held-out pairs"
        raise InputError(what, where="validation", remedy="hold out more pairs")
    rows = places(known.pair_id, pairs.ids)
    return _pair_table(pairs, rows, known, replace(about, pairs=len(known)), scale=1.0, swap=swap)


def _pair_table(pairs: Pairs, rows: Rows, used: Signals, about: RunSignals, *, scale: float, swap: bool) -> PairTable:
    """The pairs of these rows, of which the signal speaks in this order; scale, swap: as of `pair_table`."""
    if swap:
        used = replace(used, winner=1 - used.winner)
    prompt, *sides, bucket = pairs.columns
    return PairTable(
        pair_id=taken(pairs.ids, rows),
        prompt=taken(prompt, rows),
        winner=chosen(sides, used.winner, rows),
        loser=chosen(sides[::-1], used.winner, rows),
        bucket=tuple(taken(bucket, rows)),
        margin=(scale * used.margin).astype(np.float32),
        weight=used.weight,
        about=about,
    )


def image_table(cache: Latents, *, signals: str, without: frozenset[str] = frozenset()) -> ImageTable:
    """Single images with the label that the signal gives them; the same image under the same prompt comes once a label.

    An image that is in pairs of several buckets comes in that of the first.

    without: pairs that are held out.

    Raises:
        InputError: a signal that cannot be used, without labels, or with only one kind of them.
    """
    known = read_signals(signals)
    row = {pair: i for i, pair in enumerate(known.pair_id)}
    found: dict[tuple[str, str, int], str] = {}
    for pair, held in cache.pairs.rows():
        if pair not in row or pair in without:
            continue
        for image, labels in ((held.image_0, known.label_0), (held.image_1, known.label_1)):
            label = int(labels[row[pair]])
            if label != NO_LABEL:
                found.setdefault((image, held.prompt, label), held.bucket)
    desirable = np.array([label for *_, label in found], dtype=bool)
    if not len(desirable) or desirable.all() or not desirable.any():
        remedy = "make it with `finepref signals --kind kto`"
        raise InputError("it has no image labels of both kinds", where=signals, remedy=remedy)
    return ImageTable(
        image_id=tuple(
            f"{image[:32]}:{prompt[:32]}" + (f":{label}" if (image, prompt, 1 - label) in found else "")
            for image, prompt, label in found
        ),
        image=tuple(image for image, *_ in found),
        prompt=tuple(prompt for _, prompt, _ in found),
        bucket=tuple(found.values()),
        desirable=desirable,
        about=replace(about_signals(known), images=len(desirable), desirable=int(desirable.sum())),
    )


def about_signals(known: Signals) -> RunSignals:
    """What run.json says of a signal file; its hash is that of the columns, not of the footer."""
    margins, labels = (np.stack([known.margin_0, known.margin_1]), np.stack([known.label_0, known.label_1], axis=1))
    columns = (known.winner.astype(np.int64), margins, known.weight, labels)
    digest = hashlib.sha256()
    for piece in text_of(known.pair_id):
        digest.update(piece.encode())
    for values in columns:
        digest.update(values.tobytes())
    return RunSignals(
        kind="+".join(known.kinds),
        sha256=digest.hexdigest(),
        rewards=tuple(sorted(known.rewards)),
        device_seconds=known.device_seconds,
    )


def votes_of(cache: Latents, votes: Sequence[str], reading: Reading) -> tuple[Sequence[str], npt.NDArray[np.float64]]:
    """Ids and labels of all pairs, from the cache where it holds them."""
    if cache.labels is not None:
        return cache.pairs.ids, cache.labels
    if not votes:
        raise InputError("there is neither a signal file nor a vote file", where="data.paths", remedy="name the votes")
    return read_pair_ids(*votes, reading=reading)


def _from_votes(
    ids: Sequence[str], labels: npt.NDArray[np.float64], *, without: frozenset[str] = frozenset()
) -> tuple[Signals, RunSignals, Rows]:
    """The votes that decided as a signal, margin 0 and weight 1, and which they are."""
    decided = np.flatnonzero((labels > 0.5) | (labels < 0.5)).astype(np.int32)
    if without:
        decided = np.array([row for row in decided.tolist() if ids[row] not in without], np.int32)
    known = from_columns(
        rows_of(ids, decided), {"winner": (labels[decided] < 0.5).astype(np.int8)}, {"kinds": ["binary"]}
    )
    return known, RunSignals(kind="binary", sha256=_decided_sha256(known), device_seconds=0.0), decided


def _decided_sha256(known: Signals) -> str:
    """Hash of the configuration {decided: [[id, winner], ...]}; where ids are hashes its text is put together here."""
    if not isinstance(known.pair_id, Hashes):
        return hash_config({"decided": zip(known.pair_id, known.winner.tolist(), strict=True)})
    digest, digits = hashlib.sha256(b'{"decided": ['), 2 * known.pair_id.data.shape[1]
    line = np.frombuffer(b'["' + b"0" * digits + b'", 0], ', np.uint8)
    for start in range(0, len(known), PIECE):
        ids = known.pair_id.data[start : start + PIECE].tobytes().hex().encode()
        lines = np.tile(line, (len(ids) // digits, 1))
        lines[:, 2 : 2 + digits] = np.frombuffer(ids, np.uint8).reshape(-1, digits)
        lines[:, 5 + digits] += known.winner[start : start + PIECE].astype(np.uint8)
        text = lines.tobytes()
        digest.update(text if start + PIECE < len(known) else text[:-2])
    digest.update(b"]}")
    return digest.hexdigest()
