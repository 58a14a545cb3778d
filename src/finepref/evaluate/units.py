"""The images of an evaluation folder as work that any number of processes share."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from finepref.core.locks import collect
from finepref.core.outfolders import own_folder
from finepref.core.provenance import sha256_file
from finepref.data.sharing import Hand
from finepref.formats import manifest
from finepref.formats.folders import EVALUATION
from finepref.formats.manifest import FolderRecord, ImageRow, Key


@dataclass(frozen=True, slots=True)
class ImageUnit:
    """The images of a block of prompts by one model from one seed."""

    model: str
    prompt_set: str
    seed: int
    rows: tuple[int, ...]

    @property
    def keys(self) -> list[Key]:
        """Its images."""
        return [(self.model, self.prompt_set, row, self.seed) for row in self.rows]


Images = Hand[ImageRow]


def units_of(model: str, prompt_set: str, *, rows: int, seeds: Sequence[int], block: int) -> list[ImageUnit]:
    """The units of a model: `block` prompts each, but for the last ones of `rows`."""
    blocks = [tuple(range(start, min(start + block, rows))) for start in range(0, rows, block)]
    return [ImageUnit(model, prompt_set, seed, each) for each in blocks for seed in seeds]


@contextmanager
def recording(hand: Images) -> Iterator[FolderRecord]:
    """What the folder was made with, while no other process changes it; the images known are those in it."""
    with hand.writing():
        yield _read(hand)


def _read(hand: Images) -> FolderRecord:
    there = (hand.folder / manifest.LINES).is_file()
    hand.begin_with(manifest.read_rows(hand.folder, partial=True) if there else [])
    return manifest.read_record(hand.folder)


def keep(hand: Images, record: FolderRecord) -> None:
    """Write the manifest, within `recording`; the parts are joined where no other process adds to one."""
    if hand.is_alone() or not (hand.folder / manifest.LINES).is_file():
        place = {name: number for number, name in enumerate(record.models)}
        ordered = sorted(hand.known.values(), key=lambda row: (*row.key[1:], place.get(row.model, -1)))
        manifest.write_rows(hand.folder, ordered)
        hand.parts.replace([])
        hand.begin_with(ordered)
    manifest.write_record(hand.folder, record)


def lost_images(hand: Images, units: Iterable[ImageUnit]) -> list[Key]:
    """Images that are not there any more, or not as they were listed."""
    rows = [hand.known[key] for unit in units for key in unit.keys if key in hand.known]
    return [row.key for row in rows if not _is_there(hand.folder / row.path, row.image_sha256)]


def _is_there(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_file(path) == digest


@contextmanager
def maker(out: str | Path) -> Iterator[Images]:
    """Be one of the processes that make images in a folder; the last one to leave joins the parts of the manifest.

    Raises:
        InputError: see `outfolders.check_folder`.
    """
    with own_folder(out, EVALUATION, part=uuid.uuid4().hex[:12]) as folder:
        hand = Hand(folder, "manifest", manifest.parts_of(folder), lambda row: row.key)

        def leave() -> None:
            if hand.parts.files():
                keep(hand, _read(hand))

        with hand.at_work(begin=lambda: None, leave=leave):
            yield hand
        collect(folder, deep=True)
