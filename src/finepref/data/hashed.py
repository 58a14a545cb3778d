"""Preferences as they are read for encoding: images and prompts by content hash, and what cannot be used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from finepref.core.buckets import Bucket, best_bucket
from finepref.core.errors import InputError
from finepref.core.images import Unreadable, upright_size
from finepref.core.provenance import sha256_bytes
from finepref.formats.cache import CachedRow
from finepref.formats.preferences import ImageRef, Preference, Quarantined
from finepref.formats.prompts import prompt_sha256


@dataclass(slots=True)
class HashedPairs:
    """What was read so far.

    rejected: rows that the reader drops meanwhile (the list given to `read_preferences`). pairs: with the number of
    their row. files: whether any image is a file of its own. buckets: that a pair is trained in one of.
    """

    rejected: list[Quarantined]
    pairs: list[tuple[int, CachedRow]] = field(default_factory=list)
    unread: list[Quarantined] = field(default_factory=list)
    files: bool = False
    buckets: Sequence[Bucket] = ()
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def read(self, preferences: Iterable[Preference]) -> Iterator[tuple[str, str, dict[str, tuple[ImageRef, bytes]]]]:
        """The prompt and the bucket of every pair whose images can be read, content hash -> image and its bytes."""
        for number, preference in enumerate(preferences):
            row, images = number + len(self.rejected), (preference.image_0, preference.image_1)
            self.files |= any(image.data is None for image in images)
            contents, faults = [], []
            for side, image in enumerate(images):
                try:
                    contents.append(image.read())
                except InputError as error:
                    faults.append(f"image_{side}: {error}")
            if faults:
                self.unread.append(Quarantined(row=row, pair_id=preference.pair_id, reason="; ".join(faults)))
                continue
            first, second = map(sha256_bytes, contents)
            prompt = prompt_sha256(preference.prompt)
            bucket = self._bucket(dict(zip((first, second), contents, strict=True)))
            self.pairs.append((row, CachedRow(preference.pair_id, prompt, first, second, bucket, preference.label)))
            yield preference.prompt, bucket, dict(zip((first, second), zip(images, contents, strict=True), strict=True))

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

    def sorted_out(self, bad_images: Mapping[str, str]) -> tuple[list[CachedRow], list[Quarantined]]:
        """The pairs that can be used, and all others by row. bad_images: content hash -> reason."""
        good: list[CachedRow] = []
        bad = self.unread + self.rejected
        for row, pair in self.pairs:
            shas = enumerate((pair.image_0, pair.image_1))
            reasons = [f"image_{side}: {bad_images[sha]}" for side, sha in shas if sha in bad_images]
            if reasons:
                bad.append(Quarantined(row=row, pair_id=pair.pair_id, reason="; ".join(reasons)))
            else:
                good.append(pair)
        return good, sorted(bad, key=lambda each: each.row)
