"""Aspect-ratio buckets: the shapes that pictures are trained at, each of about the area of one square.

Shapes: R resolution, the side of the square in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

LEAST = 0.8  # of the square's area: what a bucket has at least
FINE = 16  # a bucket's sides are multiples of about R / 16


class Bucket(NamedTuple):
    """Height and width of a training image in pixels; written as WIDTHxHEIGHT."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    def lost(self, height: int, width: int) -> float:
        """The share of a picture's area that is outside when it is scaled to cover the bucket."""
        ours, its = self.width * height, width * self.height
        return 1.0 - min(ours, its) / max(ours, its)


def bucket_of(words: str) -> Bucket:
    """The bucket that is written as WIDTHxHEIGHT; anything else is a ValueError."""
    width, height = map(int, words.split("x"))
    if min(width, height) < 1:
        raise ValueError(f"{words} has no area")
    return Bucket(height, width)


def buckets_of(resolution: int, *, multiple: int) -> tuple[Bucket, ...]:
    """The square, and all shapes with sides from R/2 to 2R and an area of 0.8 to 1 times the square's.

    Args:
        resolution: R. multiple: what sides must be divisible by; they are multiples of it near R / 16.
    """
    step = multiple * -(-resolution // (FINE * multiple))
    sides = [side for side in range(step, 2 * resolution + 1, step) if 2 * side >= resolution]
    area = resolution * resolution
    shapes = {Bucket(h, w) for h in sides for w in sides if LEAST * area <= h * w <= area}
    square = Bucket(resolution, resolution)
    return (square, *sorted(shapes - {square}))


def best_bucket(buckets: Sequence[Bucket], sizes: Sequence[tuple[int, int]]) -> Bucket:
    """The bucket in which the one of some pictures (height, width) that loses most loses least, the largest of such."""

    def rank(bucket: Bucket) -> tuple[float, int]:
        return max(bucket.lost(*size) for size in sizes), -bucket.height * bucket.width

    return min(buckets, key=rank)
