"""Which two images to show for a pair of models: those of a common prompt that have the fewest votes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix

from finepref.arena.image import image_models
from finepref.arena.normal import Floats, Ints
from finepref.core.rng import numpy_generator
from finepref.formats.votes import Votes

MOST_IMAGES = 30  # of a model and prompt: those with the fewest votes


class ImageStock:
    """The images of all models, and how often each one and each two of them were shown.

    Where votes name prompts, the two images of a pair have one prompt; else all images are taken to answer the same.
    Of them, those two are chosen that met least often, then those with the fewest votes together; what was chosen
    before counts as a vote. Equals are drawn by `seed`.

    code: [K] codes of the images, first: [K] where each is named first (number of the vote; if on the right, plus that
    of all votes). votes: [K] how often shown. meet: [M, M] whether two models have images of one prompt.

    Args:
        votes: with images.

    Raises:
        InputError: votes without images, or an image that is listed under two models.
    """

    def __init__(self, votes: Votes, *, seed: int) -> None:
        model, (left, right), m = image_models(votes), votes.images, len(votes.models)
        self.rng = numpy_generator(seed, "next images")
        used, self.first, where = np.unique(np.concatenate([left, right]), return_index=True, return_inverse=True)
        self.code, count = used, len(used)
        self.votes = np.bincount(where, minlength=count).astype(np.float64)
        prompts = np.zeros(len(votes), dtype=np.int64) if votes.prompt is None else votes.prompt
        prompt, model = np.concatenate([prompts, prompts])[self.first].astype(np.int64), model[used]
        keys, self.met = np.unique(self._key(where[: len(left)], where[len(left) :], count), return_counts=True)
        self.keys, self.count = keys, count
        order = np.lexsort((self.rng.random(count), self.votes, prompt, model))
        start = np.ones(count, dtype=bool)  # of the images of one model and prompt
        start[1:] = (np.diff(model[order]) != 0) | (np.diff(prompt[order]) != 0)
        place = np.arange(count) - np.flatnonzero(start)[np.cumsum(start) - 1]
        order = order[(place < MOST_IMAGES) & (prompt[order] >= 0)]
        edges = np.searchsorted(model[order], np.arange(m + 1))
        self.images = [order[a:b] for a, b in pairwise(edges)]
        self.prompt = prompt
        named, at = np.unique(prompt[order], return_inverse=True)
        has = coo_matrix((np.ones(len(order)), (model[order], at)), shape=(m, len(named))).tocsr()
        self.meet = (has @ has.T).toarray() > 0
        self.pairs: dict[tuple[int, int], tuple[Ints, Ints, Floats]] = {}

    def choose(self, left: int, right: int) -> tuple[int, int]:
        """Codes of the images to show for these models, which must `meet`; they count as shown."""
        i, j = min(left, right), max(left, right)
        if (i, j) not in self.pairs:
            self.pairs[i, j] = self._of_models(i, j)
        a, b, met = self.pairs[i, j]
        votes = self.votes[a] + self.votes[b]
        at = int(np.argmin(met * (votes.max() + 1.0) + votes + 0.5 * self.rng.random(len(a))))
        met[at] += 1.0
        self.votes[[a[at], b[at]]] += 1.0
        first, second = int(self.code[a[at]]), int(self.code[b[at]])
        return (first, second) if left == i else (second, first)

    def use(self, left_image: int, right_image: int) -> None:
        """Count two images, by their codes, as shown; only before the first choice."""
        a, b = np.searchsorted(self.code, [left_image, right_image])
        self.votes[[a, b]] += 1.0
        key = self._key(a, b, self.count)
        at = int(np.searchsorted(self.keys, key))
        if at < len(self.keys) and self.keys[at] == key:
            self.met[at] += 1
        else:
            self.keys, self.met = np.insert(self.keys, at, key), np.insert(self.met, at, 1)

    @staticmethod
    def _key(a: Ints, b: Ints, count: int) -> npt.NDArray[np.int64]:
        return np.asarray(np.minimum(a, b).astype(np.int64) * count + np.maximum(a, b))

    def _of_models(self, i: int, j: int) -> tuple[Ints, Ints, Floats]:
        """All pairs of images of one prompt of two models, and how often each pair met."""
        a, b = self.images[i], self.images[j]
        low, high = (np.searchsorted(self.prompt[b], self.prompt[a], side) for side in ("left", "right"))
        size = high - low
        a = np.repeat(a, size)
        b = b[np.arange(len(a)) - np.repeat(np.cumsum(size) - size - low, size)]
        keys = self._key(a, b, self.count)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return a, b, np.where(self.keys[at] == keys, self.met[at], 0).astype(np.float64)
