"""Votes block by block: slices of rows, connected groups of images, blocks of whole groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from finepref.arena.normal import Ints
from finepref.formats.votes import Votes

ROWS = 1 << 22  # rows looked at together
VOTES_PER_BLOCK = 4_000_000  # votes whose images are inferred together


def slices(n: int, size: int = ROWS) -> Iterator[slice]:
    """Slices of at most `size` that cover n rows."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def components(left: Ints, right: Ints, count: int) -> Ints:
    """[count] smallest member of the connected group that each node is in; edges left-right [n], looked at in blocks.

    Every pass hooks the larger of two groups' labels onto the smaller, then shortens all paths to their ends.
    """
    label: Ints = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)
    changed = True
    while changed:
        changed = False
        for rows in slices(len(left)):
            a, b = label[left[rows]], label[right[rows]]
            differ = a != b
            if differ.any():
                changed = True
                a, b = a[differ], b[differ]
                np.minimum.at(label, np.maximum(a, b), np.minimum(a, b))
        while True:
            shorter = label[label]
            if np.array_equal(shorter, label):
                break
            label = shorter
    return label


def clusters(votes: Votes) -> Callable[[slice], Ints]:
    """Which cluster the votes of a slice are in: prompts, where all are named, else connected groups of images."""
    prompt = votes.prompt
    if prompt is not None and int(prompt.min(initial=0)) >= 0:
        return lambda rows: prompt[rows]
    left, right = votes.images
    label = components(left, right, votes.image_count)
    return lambda rows: label[left[rows]]


def image_blocks(votes: Votes) -> Iterator[npt.NDArray[np.int64]]:
    """Row numbers of blocks of votes that share no image with another block, about 4 million votes each."""
    n = len(votes)
    if n <= VOTES_PER_BLOCK:
        yield np.arange(n)
        return
    left, right = votes.images
    label = components(left, right, votes.image_count)
    sizes = np.zeros(len(label), dtype=np.int64)
    for rows in slices(n):
        np.add.at(sizes, label[left[rows]], 1)
    block_of_label = ((np.cumsum(sizes) - sizes) // VOTES_PER_BLOCK).astype(np.int32)
    block = np.empty(n, dtype=np.int32)
    for rows in slices(n):
        block[rows] = block_of_label[label[left[rows]]]
    del label, sizes
    for number in range(int(block_of_label.max()) + 1):
        members = np.flatnonzero(block == number)
        if len(members):
            yield members
