"""Votes block by block: slices of rows, connected groups of images, blocks of whole groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from finepref.arena.normal import Ints
from finepref.formats.votes import Votes

ROWS = 1 << 19  # rows looked at together
VOTES_PER_BLOCK = 1 << 19  # votes whose images are inferred together


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


def image_blocks(votes: Votes) -> Iterator[npt.NDArray[np.integer]]:
    """Row numbers, in order, of blocks of votes that share no image with another block.

    A block is whole connected groups of images of about 524,000 votes together, or one larger group. Needs 4 bytes a
    vote, and 12 an image until the first block.
    """
    n = len(votes)
    if n < 2 * VOTES_PER_BLOCK:
        yield np.arange(n)
        return
    order, edges = _by_block(*votes.images, votes.image_count)
    for start, stop in pairwise(edges.tolist()):
        if start < stop:
            yield order[start:stop]


def _by_block(left: Ints, right: Ints, count: int) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.int64]]:
    """([n] row numbers of one block after the other, [B + 1] where each begins)."""
    label = components(left, right, count)
    numbers = _numbers(label, left)
    sizes = np.zeros(int(numbers.max()) + 1, dtype=np.int64)
    for rows in slices(len(left)):
        sizes += np.bincount(numbers[label[left[rows]]], minlength=len(sizes))
    edges = np.append(0, np.cumsum(sizes))
    order: npt.NDArray[np.integer] = np.empty(len(left), dtype=np.int32 if len(left) < 2**31 else np.int64)
    filled = edges[:-1].copy()
    for rows in slices(len(left)):
        block = numbers[label[left[rows]]]
        by_block = np.argsort(block, kind="stable")
        met, first, many = np.unique(block[by_block], return_index=True, return_counts=True)
        order[np.arange(len(block)) + np.repeat(filled[met] - first, many)] = rows.start + by_block
        filled[met] += many
    return order, edges


def _numbers(label: Ints, left: Ints) -> Ints:
    """[count] number of the block that each connected group is in, at the place of its label."""
    number = np.zeros(len(label), dtype=label.dtype)  # first, how many votes are in the group
    for rows in slices(len(left)):
        np.add.at(number, label[left[rows]], 1)
    before, last = 0, max(len(left) // VOTES_PER_BLOCK - 1, 0)
    for places in slices(len(number)):
        size = number[places].astype(np.int64)
        ends = before + np.cumsum(size)
        number[places] = np.minimum((ends - size) // VOTES_PER_BLOCK, last)
        before = int(ends[-1])
    return number
