"""The simplest choice of the next set: the prompt and the models that were shown least, drawn among equals."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from finepref.formats.answers import Answer, PictureRow, ShownSet


@dataclass(slots=True)
class _Met:
    """What a voter saw: of every picture those that were next to it, and prompts that hold no new set for them."""

    beside: dict[int, set[int]] = field(default_factory=dict)
    spent: set[int] = field(default_factory=set)


class FewestFirst:
    """Sets of the pictures that were shown least, never two of them twice to one voter."""

    def __init__(self, pictures: Sequence[PictureRow], *, images: int, chance: np.random.Generator) -> None:
        self.images, self.chance = images, chance
        self.shown = [0] * len(pictures)
        self.met: dict[int, _Met] = {}
        self.prompts: dict[int, list[int]] = {}
        for picture in pictures:
            self.prompts.setdefault(picture.prompt, []).append(picture.id)
        self.prompt = [picture.prompt for picture in pictures]
        self.often = dict.fromkeys(self.prompts, 0)

    def choose(self, voter: int) -> tuple[int, ...] | None:
        """Ids of pictures in the order shown; None where the voter has seen all."""
        met = self.met.setdefault(voter, _Met())
        left = [each for each in self.prompts if each not in met.spent]
        for prompt in sorted(left, key=lambda each: (self.often[each], self.chance.random())):
            held = sorted(self.prompts[prompt], key=lambda each: (self.shown[each], self.chance.random()))
            some = self._apart(met, (), held)
            if some is not None:
                chosen = tuple(int(each) for each in self.chance.permutation(some))
                self._count(voter, chosen)
                return chosen
            met.spent.add(prompt)  # what was met stays met
        return None

    def _apart(self, met: _Met, some: tuple[int, ...], free: Sequence[int]) -> tuple[int, ...] | None:
        """The first set of these and some free pictures, in their order, no two of which were met together."""
        if len(some) == self.images:
            return some
        for place in range(len(free) - (self.images - len(some)) + 1):
            one = free[place]
            beside = met.beside.get(one, ())
            found = self._apart(met, (*some, one), [each for each in free[place + 1 :] if each not in beside])
            if found is not None:
                return found
        return None

    def _count(self, voter: int, pictures: tuple[int, ...]) -> None:
        self._times(pictures, 1)
        beside = self.met.setdefault(voter, _Met()).beside
        for one, other in itertools.permutations(pictures, 2):
            beside.setdefault(one, set()).add(other)

    def _times(self, pictures: tuple[int, ...], times: int) -> None:
        for picture in pictures:
            self.shown[picture] += times
        self.often[self.prompt[pictures[0]]] += times * len(pictures)

    def out(self, shown: ShownSet, answers: Sequence[Answer] = ()) -> None:
        """A set of an earlier start."""
        if shown.kind == "plain":
            self._count(shown.voter, shown.pictures)

    def left(self, shown: ShownSet) -> None:
        """A set that counts no more."""
        if shown.kind == "plain":
            self._times(shown.pictures, -1)

    def unseen(self, shown: ShownSet) -> None:
        """Nobody saw it."""
        if shown.kind == "plain":
            met = self.met[shown.voter]
            for one, other in itertools.permutations(shown.pictures, 2):
                met.beside[one].discard(other)
            met.spent.discard(self.prompt[shown.pictures[0]])

    def answered(self, answer: Answer, shown: ShownSet) -> None:
        """Nothing is learned from answers."""

    def taken_back(self, answers: Sequence[Answer], shown: ShownSet) -> None:
        """The set is still out."""
