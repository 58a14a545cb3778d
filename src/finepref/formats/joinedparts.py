"""All parts that were read of a data set as one: pairs in order with their final ids, what was left out, and why."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from finepref.core.errors import InputError
from finepref.formats.cachetables import CachedRow
from finepref.formats.pairrows import Account, refuse_several
from finepref.formats.preferences import Quarantined
from finepref.formats.readparts import IMAGES, ROWS, ReadPart
from finepref.formats.stretches import hashed_id


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """All parts of a data set. rows: as `ROWS`, in order, ids final, rows counted over all files.

    pairs: the columns of `CachedRow`, of those that can be used. images: as `IMAGES`, each once. files: whether any
    image is a file of its own.
    """

    rows: pa.Table
    pairs: pa.Table
    left_out: list[Quarantined]
    images: pa.Table
    account: Account
    files: bool

    def usable(self) -> pa.Table:
        """The rows that say a pair, whether its images can be used or not."""
        return self.rows.filter(pc.equal(self.rows["fault"], ""))

    def faulty(self) -> list[Quarantined]:
        """Of the rows left out those that say no pair."""
        rows = {*self.rows.filter(pc.not_equal(self.rows["fault"], ""))["row"].to_pylist()}
        return [each for each in self.left_out if each.row in rows]

    def pair_ids(self) -> list[str]:
        """The final ids of the pairs that can be used."""
        return list(self.pairs["pair_id"].to_pylist())

    def ids(self, parts: Iterable[ReadPart]) -> list[list[str]]:
        """The final ids of the usable rows of each part."""
        ids = iter(self.usable()["pair_id"].to_pylist())
        counts = (pc.sum(pc.equal(part.rows["fault"], "")).as_py() or 0 for part in parts)
        return [[*itertools.islice(ids, count)] for count in counts]


def joined(
    parts: Sequence[ReadPart], *, where: str, question: str | None = None, counts: Mapping[int, int] | None = None
) -> Joined:
    """The parts of a data set, in order, as one. counts: rows of every table, where these are not all parts of it.

    Raises:
        InputError: no row of a whole data set can be used, or the votes answer several questions and none was chosen.
    """
    rows = pa.concat_tables(_numbered(parts, counts or {})) if parts else ROWS.empty_table()
    if counts is None and not pc.any(pc.equal(rows["fault"], "")).as_py():
        raise InputError("the data set has no usable preference", where=where, remedy="give one row")
    if question is None:
        refuse_several({asked for part in parts for asked in part.about.asked}, where=where)
    if parts and not parts[0].about.own:
        rows = rows.set_column(rows.column_names.index("pair_id"), "pair_id", pa.array(_ids(rows), pa.string()))
    images = _once(pa.concat_tables([IMAGES.empty_table(), *(part.images for part in parts)]))
    bad = images.filter(pc.not_equal(images["fault"], ""))
    touched = [pc.is_in(rows[side], bad["image_sha256"]) for side in ("image_0", "image_1")]
    read = pc.and_(pc.equal(rows["fault"], ""), pc.equal(rows["unread"], ""))
    fine = pc.and_(read, pc.invert(pc.or_(*touched)))
    account = Account()
    for part in parts:
        account.sources[part.about.path] = account.sources.get(part.about.path, 0) + part.about.rows
        account.words |= part.about.words
        account.notes |= dict.fromkeys(part.about.notes)
    return Joined(
        rows, rows.filter(fine).select(CachedRow._fields), _left_out(rows.filter(pc.invert(fine)), bad), images,
        account, any(part.about.files for part in parts),
    )  # fmt: skip


def _numbered(parts: Sequence[ReadPart], counts: Mapping[int, int]) -> Iterator[pa.Table]:
    """The rows of each part, counted over all tables. counts: rows of each, where they are known."""
    read: Counter[int] = Counter()
    for part in parts:
        read[part.about.table] += part.about.rows
    held = {**read, **counts}
    before = {table: sum(rows for other, rows in held.items() if other < table) for table in read}
    for part in parts:
        yield part.rows.set_column(0, ROWS.field("row"), pc.add(part.rows["row"], before[part.about.table]))


def _ids(rows: pa.Table) -> list[str]:
    """Ids of pairs without their own, numbered where a pair recurs; "" of a row that is no pair."""
    seen: Counter[bytes] = Counter()
    found = []
    names = ("prompt_sha256", "prompt", "image_0", "image_1", "hashed_voter")
    for is_pair, prompt, image_0, image_1, voter in zip(*(rows[name].to_pylist() for name in names), strict=True):
        first = hashed_id(prompt, image_0, image_1, voter, 1) if is_pair else ""
        seen[key := bytes.fromhex(first)] += 1
        again = is_pair and seen[key] > 1
        found.append(hashed_id(prompt, image_0, image_1, voter, seen[key]) if again else first)
    return found


def _once(images: pa.Table) -> pa.Table:
    """The first row of every image."""
    first = images.append_column("at", pa.array(range(len(images)), pa.int64())).group_by("image_sha256")
    return images.take(first.aggregate([("at", "min")])["at_min"].sort())


def _left_out(rows: pa.Table, bad: pa.Table) -> list[Quarantined]:
    """The rows that cannot be used, and why."""
    reasons = dict(zip(bad["image_sha256"].to_pylist(), bad["fault"].to_pylist(), strict=True))
    found = []
    for row in rows.to_pylist():
        sides = enumerate((row["image_0"], row["image_1"]))
        images = "; ".join(f"image_{side}: {reasons[sha]}" for side, sha in sides if sha in reasons)
        reason = row["fault"] or "; ".join(sorted(filter(None, (row["unread"], images))))
        found.append(Quarantined(row["row"], row["pair_id"], reason, row["place"]))
    return found


def images_of(pairs: pa.Table) -> set[tuple[str, str]]:
    """(content hash, bucket) of all images of some pairs."""
    buckets = pairs["bucket"].to_pylist()
    return {each for side in ("image_0", "image_1") for each in zip(pairs[side].to_pylist(), buckets, strict=True)}


def usable_images(part: ReadPart) -> set[tuple[str, str]]:
    """(content hash, bucket) of the images of a part that can be used."""
    bad = {*part.images.filter(pc.not_equal(part.images["fault"], ""))["image_sha256"].to_pylist()}
    read = part.rows.filter(pc.and_(pc.equal(part.rows["fault"], ""), pc.equal(part.rows["unread"], "")))
    return {(sha, bucket) for sha, bucket in images_of(read) if sha not in bad}
