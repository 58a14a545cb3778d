"""Preferences as they are read for encoding: images and prompts by content hash, and what cannot be used.

stretch of the data -> HashedStretch (pairs and their images, one after the other) -> ReadPart
all parts -> formats.joinedparts
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from finepref.core.buckets import Bucket, best_bucket
from finepref.core.errors import InputError
from finepref.core.images import Unreadable, upright_size
from finepref.core.provenance import sha256_bytes
from finepref.formats.pairrows import ImageRef, Preference
from finepref.formats.prompts import prompt_sha256
from finepref.formats.readparts import ReadAbout, ReadImage, ReadPart, ReadRow, part_of
from finepref.formats.stretches import Found, OpenedPairs, Stretch, missing_key


class Side(NamedTuple):
    """An image of a pair: content hash (or what stands for it), bytes, and why they cannot be read, or nothing."""

    image: ImageRef
    key: str
    content: bytes
    fault: str


Looked = dict[str, tuple[str, str, str]]
"""Content hash -> (why an image cannot be used or nothing, its size, what is changed in it), by who looks at it."""
NO_SIDES = (Side(ImageRef(), "", b"", ""), Side(ImageRef(), "", b"", ""))


def side_of(image: ImageRef) -> Side:
    """An image, read."""
    try:
        content = image.read()
        return Side(image, sha256_bytes(content), content, "")
    except InputError as error:
        key = missing_key(image) if image.data is None else sha256_bytes(image.data)
        return Side(image, key, b"", str(error))


@dataclass(slots=True)
class HashedStretch:
    """A stretch of the data while it is read. buckets: that a pair is trained in one of.

    images: what is known of them. files: whether any image is a file of its own. strict: a row with a
    fault is an error.
    """

    opened: OpenedPairs
    stretch: Stretch
    buckets: Sequence[Bucket] = ()
    strict: bool = False
    images: Looked = field(default_factory=dict)
    files: bool = False
    _rows: list[ReadRow] = field(default_factory=list)
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    _count: int = 0

    @property
    def _path(self) -> str:
        return str(self.opened.sources[self.stretch.table].table.path)

    @property
    def last(self) -> ReadRow:
        """What is kept of the row that was read last."""
        return self._rows[-1]

    def sides(self) -> Iterator[tuple[Preference, str, tuple[Side, Side]]]:
        """Every pair that the rows say, its bucket, and its images, of which some may not be there."""
        for found in self.opened.read(self.stretch):
            pair = found.draft.preference
            if self.strict and found.draft.problem and found.draft.bad:
                raise InputError(found.draft.problem, where=found.draft.place, remedy="repair or drop the row")
            if pair is None:
                self._rows.append(_row_of(found))
                continue
            skipped = self.opened.own and bool(found.draft.problem)
            sides = NO_SIDES if skipped else (side_of(pair.image_0), side_of(pair.image_1))
            self.files |= pair.image_0.data is None or pair.image_1.data is None
            unread = "; ".join(f"image_{number}: {side.fault}" for number, side in enumerate(sides) if side.fault)
            bucket = "" if found.draft.problem or unread else self._bucket({side.key: side.content for side in sides})
            self._rows.append(_row_of(found, [side.key for side in sides], bucket, unread))
            if not found.draft.problem:
                yield pair, bucket, sides
        self._count = self.opened.account.sources[self._path]

    def read(self) -> Iterator[tuple[str, str, dict[str, tuple[ImageRef, bytes]]]]:
        """The prompt and the bucket of every pair whose images can be read, content hash -> image and its bytes."""
        for pair, bucket, sides in self.sides():
            if not any(side.fault for side in sides):
                yield pair.prompt, bucket, {side.key: (side.image, side.content) for side in sides}

    def _bucket(self, contents: Mapping[str, bytes]) -> str:
        """The bucket in which two images lose the least; of those that cannot be read, any."""
        if len(self.buckets) < 2:
            return str(*self.buckets)
        try:
            for sha in contents.keys() - self._sizes.keys():
                self._sizes[sha] = upright_size(contents[sha])
        except Unreadable:
            return str(self.buckets[0])
        return str(best_bucket(self.buckets, [self._sizes[sha] for sha in contents]))

    def part(self) -> ReadPart:
        """What was read."""
        met, account = self.opened.sources[self.stretch.table].met, self.opened.account
        about = ReadAbout(
            table=self.stretch.table, path=self._path, rows=self._count, own=self.opened.own, files=self.files,
            asked=tuple(sorted(met.asked)), words=dict(account.words), notes=tuple(account.notes),
        )  # fmt: skip
        return part_of(self._rows, [ReadImage(sha, *said) for sha, said in self.images.items()], about)


NOBODY = Preference("", "", ImageRef(), ImageRef(), float("nan"))  # of a row that could not be read


def _row_of(found: Found, keys: Sequence[str] = ("", ""), bucket: str = "", unread: str = "") -> ReadRow:
    """What is kept of a row. One that is no pair has no prompt hash."""
    draft, pair = found.draft, found.draft.preference or NOBODY
    own = draft.own_id or ""
    prompt_hash = prompt_sha256(pair.prompt) if draft.preference is not None else ""
    named = (pair.voter, draft.hashed_voter, pair.model_0, pair.model_1)
    said = named if not draft.problem else (None, draft.hashed_voter, None, None)
    row = (found.row, own, pair.prompt, prompt_hash, keys[0], keys[1], bucket, pair.label)
    return ReadRow(*row, *said, draft.place, draft.problem, unread)
