"""The whole of `finepref next`: read votes, choose pairs (and images), name them, write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from finepref.arena.nextimages import ImageStock
from finepref.arena.nextpairs import NextPair, NextPairs, next_pairs
from finepref.arena.settings import DEFAULTS
from finepref.core.errors import InputError
from finepref.core.provenance import fingerprinted
from finepref.formats.namedcells import ITEM, SIDES, read_cells
from finepref.formats.proposals import (
    AnyProposal,
    Asked,
    ImageProposal,
    Proposal,
    check_suffix,
    read_asked,
    write_proposals,
)
from finepref.formats.reading import AS_IT_IS, Reading
from finepref.formats.sources import find_files, identities
from finepref.formats.votefiles import VoteTable, read_as


@dataclass(frozen=True, slots=True, kw_only=True)
class NextRequest:
    """What `finepref next` was asked for; the names are those of its options."""

    count: int = 20
    images: bool = False
    asked: Sequence[Path] = ()
    prior: str = DEFAULTS.prior
    seed: int = DEFAULTS.seed
    reading: Reading = AS_IT_IS
    skip_bad_rows: bool = False

    @property
    def kind(self) -> type[AnyProposal]:
        """What a row of the result is."""
        return ImageProposal if self.images else Proposal


def run_next(
    votes: Sequence[str | Path], out: Path | None, options: NextRequest
) -> tuple[tuple[AnyProposal, ...], tuple[str, ...]]:
    """The proposals, which are also written to `out`, and sentences on what there is to know of them.

    Raises:
        InputError: the votes cannot be used, or the file type of `out` is unknown; nothing has been written then.
    """
    if out is not None:
        check_suffix(out)
    table = read_as(votes, options.reading, skip_bad_rows=options.skip_bad_rows)
    if options.images and not table.votes.has_images:
        remedy = "name the columns with --left-image and --right-image, or leave --images out"
        raise InputError("the votes do not say which images were compared", remedy=remedy)
    stock = ImageStock(table.votes, seed=options.seed) if options.images else None
    names = None if stock is None else _image_names(votes, table, stock, options.reading)
    asked = [pair for path in options.asked for pair in _asked(path, table, stock, names)]
    found = next_pairs(
        table.votes, number=options.count, images=stock, asked=asked, prior=options.prior, seed=options.seed
    )
    rows = tuple(_row(rank, found, table, stock, names) for rank in range(1, len(found.pairs) + 1))
    if out is not None:
        config = {name: value for name, value in asdict(options).items() if name not in ("asked", "reading")}
        config |= options.reading.config()
        inputs = [*find_files(votes, options.reading), *options.asked]
        told = identities(votes, options.reading)
        made = fingerprinted(inputs=inputs, config=config, identities=told)
        write_proposals(out, rows, options.kind, provenance=made)
    return rows, _told(found, options.count)


def _told(found: NextPairs, wanted: int) -> tuple[str, ...]:
    said = []
    if found.apart:
        said.append(f"{found.apart:,} pairs of models of uncertain order have no prompt in common and are not asked")
    if not found.undecided:
        said.append("the votes tell all models apart (95 %): there is nothing to ask")
    elif len(found.pairs) < wanted and found.apart < found.undecided:
        said.append(
            f"{len(found.pairs):,} of {wanted:,} pairs: after these votes the order of all models "
            f"{'that can be asked about ' if found.apart else ''}is expected to be certain (95 %)"
        )
    return tuple(said)


@dataclass(frozen=True, slots=True)
class _ImageNames:
    """[K] name of every image of a stock, and of its prompt ("": none is named)."""

    image: list[str]
    prompt: list[str]


def _image_names(paths: Sequence[str | Path], table: VoteTable, stock: ImageStock, reading: Reading) -> _ImageNames:
    vote, on_right = stock.first % len(table.votes), stock.first >= len(table.votes)
    row = np.where(on_right, table.row[vote] if table.other is None else table.other[vote], table.row[vote])
    roles = np.array([ITEM] * 2 if table.layout.dialect.kwise else SIDES)
    role = roles[on_right.astype(int)]
    wanted = {str(name): row[role == name] for name in np.unique(role)}
    if "prompt" in table.layout.columns:
        wanted["prompt"] = row
    cells = read_cells(paths, wanted, reading=reading)
    prompts = cells.pop("prompt", [""] * len(row))
    image = np.empty(len(row), dtype=object)
    for name, values in cells.items():
        image[role == name] = values
    return _ImageNames(image.tolist(), prompts)


def _asked(path: Path, table: VoteTable, stock: ImageStock | None, names: _ImageNames | None) -> list[NextPair]:
    """The votes of a file of `finepref next`, as codes."""
    models = {name: code for code, name in enumerate(table.votes.models)}
    images: dict[str, int] = {}
    if stock is not None and names is not None:
        images = dict(zip(names.image, stock.code.tolist(), strict=True))

    def code(known: Mapping[str, int], name: str, what: str) -> int:
        if name not in known:
            raise InputError(f"no vote names the {what} {name!r}", where=path, remedy="give the votes it was made from")
        return known[name]

    def pair(row: Asked) -> NextPair:
        left, right = (code(models, name, "model") for name in row.models)
        if left == right:
            raise InputError(f"it asks for {row.models[0]!r} against itself", where=path, remedy="correct the file")
        if not images or row.images is None:
            return NextPair(left, right, 0.0)
        return NextPair(left, right, 0.0, *(code(images, name, "image") for name in row.images))

    return [pair(row) for row in read_asked(path)]


def _row(
    rank: int, found: NextPairs, table: VoteTable, stock: ImageStock | None, names: _ImageNames | None
) -> AnyProposal:
    pair, models = found.pairs[rank - 1], table.votes.models
    told = (rank, models[pair.left], models[pair.right], round(pair.gain, 6), int(found.votes[rank - 1]))
    if stock is None or names is None or pair.left_image is None or pair.right_image is None:
        return Proposal(*told)
    a, b = np.searchsorted(stock.code, [pair.left_image, pair.right_image]).tolist()
    return ImageProposal(*told, names.prompt[a], names.image[a], names.image[b])
