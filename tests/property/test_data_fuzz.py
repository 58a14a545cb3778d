"""Broken files: whatever the bytes, decoding gives a square or one reason, never another exception."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drawn import examples
from finepref.core.buckets import Bucket
from finepref.core.images import Unreadable, fitted
from picture_files import kinds

FILES = [*kinds().values()]


@examples(150)
@given(
    data=st.sampled_from(FILES),
    cut=st.integers(0, 4000),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=12),
    resolution=st.sampled_from([1, 8, 33]),
)
def test_any_bytes(data: bytes, cut: int, edits: list[tuple[int, int]], resolution: int) -> None:
    broken = bytearray(data)
    for at, value in edits:
        broken[at % len(broken)] = value
    if cut < len(broken):
        broken = broken[: len(broken) - cut]
    try:
        pixels, size = fitted(bytes(broken), Bucket(resolution, resolution))
    except Unreadable as error:
        reason = str(error)
    else:
        reason = "it is readable"
        assert pixels.shape == (3, resolution, resolution)
        assert size.original_height > 0
        assert min(size.crop_top, size.crop_left) >= 0
    assert reason
