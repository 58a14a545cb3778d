"""The simplest choice of the next set: the prompt and the models that were shown least, drawn among equals."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from finepref.formats.answers import Answer, PictureRow, ShownSet


class FewestFirst:
    """Sets of the pictures that were shown least, never two of them twice to one voter."""

    def __init__(self, pictures: Sequence[PictureRow], *, images: int, chance: np.random.Generator) -> None:
        self.images, self.chance = images, chance
        self.shown = np.zeros(len(pictures))
        self.met: dict[int, set[tuple[int, int]]] = {}
        self.prompts: dict[int, list[int]] = {}
        for picture in pictures:
            self.prompts.setdefault(picture.prompt, []).append(picture.id)

    def choose(self, voter: int) -> tuple[int, ...] | None:
        """Ids of pictures in the order shown; None where the voter has seen all."""
        met = self.met.setdefault(voter, set())
        order = sorted(self.prompts, key=lambda each: (self.shown[self.prompts[each]].sum(), self.chance.random()))
        for prompt in order:
            held = sorted(self.prompts[prompt], key=lambda each: (self.shown[each], self.chance.random()))
            for some in itertools.combinations(held, self.images):
                if not any(tuple(sorted(two)) in met for two in itertools.combinations(some, 2)):
                    chosen = tuple(int(each) for each in self.chance.permutation(some))
                    self._count(voter, chosen)
                    return chosen
        return None

    def _count(self, voter: int, pictures: tuple[int, ...]) -> None:
        self.shown[list(pictures)] += 1
        self.met.setdefault(voter, set()).update((min(two), max(two)) for two in itertools.combinations(pictures, 2))

    def out(self, shown: ShownSet) -> None:
        """A set of an earlier start."""
        if shown.kind == "plain":
            self._count(shown.voter, shown.pictures)

    def answered(self, answer: Answer, shown: ShownSet) -> None:
        """Nothing is learned from answers."""

    def taken_back(self, answers: Sequence[Answer], shown: ShownSet) -> None:
        """The set is still out."""
