"""One preference, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finepref.core.errors import InputError


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image that is not decoded yet: its encoded bytes, or a file. uid: the data set's own name for it, if any."""

    data: bytes | None = None
    path: Path | None = None
    uid: str | None = None

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            InputError: the file is missing or empty, or the row has neither bytes nor file.
        """
        if self.data is not None:
            content = self.data
        elif self.path is not None:
            try:
                content = self.path.read_bytes()
            except OSError as error:
                raise InputError(f"image cannot be read ({error.strerror})", where=self.path) from None
        else:
            raise InputError("the row has no image bytes and no image file", where=self.uid)
        if not content:
            raise InputError("the image is empty (zero bytes)", where=self.path or self.uid)
        return content


@dataclass(frozen=True, slots=True)
class Preference:
    """A vote on two images of one prompt.

    pair_id: stable id (docs/data.md). label: P(image_0 preferred) in {1.0, 0.5, 0.0}; 0.5 is a tie, nan no vote.
    """

    pair_id: str
    prompt: str
    image_0: ImageRef
    image_1: ImageRef
    label: float
    model_0: str | None = None
    model_1: str | None = None
    voter: str | None = None


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A row that was dropped whole: where it is, which pair, why."""

    row: int
    pair_id: str
    reason: str
