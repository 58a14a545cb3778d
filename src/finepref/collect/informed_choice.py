"""The choice of the next set by what its answer is expected to tell.

Of an order: two models are asked about as long as their order is not certain; those come first whose answer tells most
of it (`openorders`), others join them in a set by what all pairs with them tell together, and of the prompts the one
comes first whose pictures were shown least. For training: the picture comes first whose own quality is least known
(`picture_gains`), and those of its prompt join it by what they tell together. Sets that are out count as if they had
been answered. K-Sort Arena's rule is here for its preset. Nobody is shown two pictures twice together.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from finepref.arena.nextpairs import certain_from
from finepref.arena.normal import Floats
from finepref.arena.ratings import C, clear_from
from finepref.collect.openorders import (
    errors,
    fit_orders,
    informs,
    laplacian,
    pair_gains,
    pair_share,
    row_share,
)
from finepref.collect.picture_gains import RHO, picture_gains, picture_precision
from finepref.collect.said import comparisons
from finepref.core.rng import numpy_generator
from finepref.formats.answers import Answer, PictureRow, ShownSet
from finepref.formats.collection import CollectionRecord

Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Wish = tuple[list[int], Floats, Mask]
"""Models that begin a set, [M, M] what pairs tell, and [P] prompts that the set may be of."""
EQUAL = 1e-9  # by how much gains may differ that are taken for equal
TRIES = 2000  # models that are tried for one set, before a voter is taken to have seen all
FIRST = 500  # pictures that are tried as the first of a set


@dataclass(slots=True)
class _Seen:
    """What a voter saw: the prompts of every two models; how many pairs, [M, M] by model and [P] by prompt.

    lead: [M] how often a model stood before another, less how often behind.
    """

    many: Codes
    busy: Codes
    lead: Codes
    met: dict[tuple[int, int], set[int]] = field(default_factory=dict)


class InformedChoice:
    """A `Chooser`. Models and prompts are codes; a set is known by its voter and its pictures as shown.

    wins: [Q, M, M] of every question, halves for ties. out_now: [Q, M, M] pairs in sets that are out. ahead: [M, M] how
    often a model stood before another. times, precision: [K] how often a picture was shown, and what that tells of it.
    held: of a study for training, the sets that count of every prompt.

    Args:
        pictures: by id, at most one of a model and prompt. about: the study; its `choice` is "information" or "ksort".
    """

    def __init__(self, pictures: Sequence[PictureRow], about: CollectionRecord) -> None:
        m, questions = len(about.models), len(about.questions)
        self.about, self.size, self.chance = about, about.images, numpy_generator(about.seed, "sets")
        self.model = np.array([each.model for each in pictures], dtype=np.int64)
        self.prompt = np.array([each.prompt for each in pictures], dtype=np.int64)
        self.cells = [(each.model, each.prompt) for each in pictures]  # numbers of Python, for one at a time
        self.table = np.full((m, len(about.prompts)), -1, dtype=np.int64)
        self.table[self.model, self.prompt] = np.arange(len(pictures))
        self.has = self.table >= 0
        self.common = self.has.astype(np.int64) @ self.has.T
        self.wins, self.out_now = np.zeros((questions, m, m)), np.zeros((questions, m, m))
        self.x = np.zeros((questions, m))
        self.times, self.ahead = np.zeros(len(pictures), dtype=np.int64), np.zeros((m, m), dtype=np.int64)
        self.seen: dict[int, _Seen] = {}
        self.places = np.array([*itertools.permutations(range(self.size))])
        self.row_share, self.pair_share = row_share(about.mode, self.size), pair_share(about.mode, self.size)
        self.precision = np.full(len(pictures), 2.0 / RHO)
        self.held = dict[int, list[tuple[int, ...]]]()

    def choose(self, voter: int) -> tuple[int, ...] | None:
        """Ids of pictures in the order shown, which are out from now on.

        None: every order is certain and told apart on the board, or as exact as asked for; or the voter has seen all
        that tells of those that are not. A study for training ends only when all is seen.
        """
        seen, tries = self._seen(voter), iter(range(TRIES))
        for models, gains, prompts in self._wishes(seen):
            found = self._completed(seen, models, gains, prompts, tries)
            if found is not None:
                shown = self._arranged(seen, self._least_shown(*found))
                self._hold(voter, shown)
                return shown
            if next(tries, None) is None:
                return None
        return None

    def out(self, shown: ShownSet, answers: Sequence[Answer] = ()) -> None:
        """A set of an earlier start; known and repeated ones tell nothing, but were seen."""
        if shown.kind == "plain":
            self._hold(shown.voter, shown.pictures, but={answer.question for answer in answers})
            for answer in answers:
                self._win(answer, shown, 1.0)
        else:
            self._meet(self._seen(shown.voter), shown.pictures)

    def left(self, shown: ShownSet) -> None:
        """A set that is out counts no more; its pictures stay seen."""
        if shown.kind == "plain":
            self._place(self._seen(shown.voter), shown.pictures, -1)
            for question in range(len(self.wins)):
                self._outside(question, shown.pictures, -1.0)
            if self.about.purpose == "training":
                held = self.held[self.cells[shown.pictures[0]][1]]
                held.remove(shown.pictures)
                self._learn_again(held, shown.pictures)

    def unseen(self, shown: ShownSet) -> None:
        """Nobody saw it."""
        if shown.kind == "plain":
            seen = self._seen(shown.voter)
            for (i, prompt), (j, _) in itertools.combinations([self.cells[each] for each in shown.pictures], 2):
                seen.met[min(i, j), max(i, j)].discard(prompt)
                seen.busy[prompt] -= 1
                seen.many[i, j] -= 1
                seen.many[j, i] -= 1

    def answered(self, answer: Answer, shown: ShownSet) -> None:
        """An answer that stands, to a set that is out."""
        if shown.kind == "plain":
            self._count(answer, shown, 1.0)

    def taken_back(self, answers: Sequence[Answer], shown: ShownSet) -> None:
        """Answers that stood until now; the set is out again."""
        if shown.kind == "plain":
            for answer in answers:
                self._count(answer, shown, -1.0)

    # What is known

    def _seen(self, voter: int) -> _Seen:
        if voter not in self.seen:
            m, count = self.has.shape
            many, busy, lead = (np.zeros(shape, dtype=np.int64) for shape in ((m, m), (count,), (m,)))
            self.seen[voter] = _Seen(many, busy, lead)
            for gold in self.about.gold:  # shown as such
                self._meet(self.seen[voter], gold.pictures)
        return self.seen[voter]

    def _meet(self, seen: _Seen, pictures: Sequence[int]) -> None:
        for (i, prompt), (j, _) in itertools.combinations([self.cells[picture] for picture in pictures], 2):
            prompts = seen.met.setdefault((min(i, j), max(i, j)), set())
            if prompt not in prompts:
                prompts.add(prompt)
                seen.busy[prompt] += 1
                seen.many[i, j] += 1
                seen.many[j, i] += 1

    def _hold(self, voter: int, pictures: tuple[int, ...], *, but: Collection[int] = ()) -> None:
        """A plain set that is out with a voter. but: questions that are answered."""
        seen = self._seen(voter)
        self._meet(seen, pictures)
        self._place(seen, pictures, 1)
        for question in range(len(self.wins)):
            if question not in but:
                self._outside(question, pictures, 1.0)
        if self.about.purpose == "training":
            self.held.setdefault(self.cells[pictures[0]][1], []).append(pictures)
            self._learn(pictures)

    def _place(self, seen: _Seen, pictures: tuple[int, ...], times: int) -> None:
        """Count where the pictures of a set stand, or count it no more."""
        for (i, _), (j, _) in itertools.combinations([self.cells[picture] for picture in pictures], 2):
            self.ahead[i, j] += times
            seen.lead[i] += times
            seen.lead[j] -= times
        for picture in pictures:
            self.times[picture] += times

    def _learn(self, pictures: tuple[int, ...]) -> None:
        held = np.array(pictures)
        self.precision[held] += picture_precision(1.0 / self.precision[held], self.pair_share)

    def _learn_again(self, sets: Sequence[tuple[int, ...]], gone: tuple[int, ...]) -> None:
        """What the sets of one prompt tell, after one of them is gone: a set tells less the more is known before."""
        of_prompt = self.table[:, self.cells[gone[0]][1]]
        self.precision[of_prompt[of_prompt >= 0]] = 2.0 / RHO
        for pictures in sets:
            self._learn(pictures)

    def _outside(self, question: int, pictures: tuple[int, ...], times: float) -> None:
        for (i, _), (j, _) in itertools.permutations([self.cells[picture] for picture in pictures], 2):
            self.out_now[question, i, j] += times

    def _count(self, answer: Answer, shown: ShownSet, times: float) -> None:
        """Count an answer in place of the set that was out, or the other way round."""
        self._outside(answer.question, shown.pictures, -times)
        self._win(answer, shown, times)

    def _win(self, answer: Answer, shown: ShownSet, times: float) -> None:
        for a, b, part in comparisons(self.about.mode, answer.answer, self.size):
            i, j = self.cells[shown.pictures[a]][0], self.cells[shown.pictures[b]][0]
            if part > 0.0:
                self.wins[answer.question, i, j] += times * part
            if part < 1.0:
                self.wins[answer.question, j, i] += times * (1.0 - part)

    # The choice

    def _wishes(self, seen: _Seen) -> Iterator[Wish]:
        """How a set may begin, best first."""
        if self.about.purpose == "training":
            return self._by_picture(seen)
        self.x, precision = fit_orders(self.wins, self.x, share=self.row_share)
        return self._by_pivot(precision) if self.about.choice == "ksort" else self._by_order(seen, precision)

    def _by_order(self, seen: _Seen, precision: Floats) -> Iterator[Wish]:
        told, everywhere = self.pair_share * informs(self.x), np.ones(self.has.shape[1], dtype=bool)
        enough, m = (self.about.error or 0.0) / C, len(self.has)
        for certain in (certain_from(m), clear_from(m)):
            for expected in (precision + laplacian(self.out_now * told), precision):
                covariance = np.asarray(np.linalg.inv(expected), dtype=np.float64)
                gains = pair_gains(self.x, covariance, told, certain=certain, enough=enough).sum(axis=0)
                free = np.flatnonzero(np.triu(gains * (seen.many < self.common)))
                order = free[np.argsort(-gains.ravel()[free] * (1.0 + EQUAL * self.chance.random(len(free))))]
                for i, j in zip(*np.divmod(order, len(gains)), strict=True):
                    yield [int(i), int(j)], gains, everywhere
                if len(free):
                    return
            if gains.any():  # this voter saw all that tells of what is open
                return

    def _by_picture(self, seen: _Seen) -> Iterator[Wish]:
        pairs = self.has.sum(axis=0)
        fresh = np.flatnonzero((seen.busy < pairs * (pairs - 1) // 2)[self.prompt])
        least = self.precision[fresh] * (1.0 + EQUAL * self.chance.random(len(fresh)))
        first = np.argpartition(least, FIRST)[:FIRST] if len(fresh) > FIRST else np.arange(len(fresh))
        for picture in fresh[first[np.argsort(least[first])]]:
            prompt, models = int(self.prompt[picture]), np.flatnonzero(self.has[:, self.prompt[picture]])
            gains = np.zeros((len(self.has), len(self.has)))
            variance = 1.0 / self.precision[self.table[models, prompt]]
            gains[np.ix_(models, models)] = picture_gains(variance, self.pair_share)
            yield [int(self.model[picture])], gains, np.arange(self.has.shape[1]) == prompt

    def _by_pivot(self, precision: Floats) -> Iterator[Wish]:
        """K-Sort Arena: the model with the fewest comparisons q, and those with the largest -|S_i - S_q| + bonus.

        S = mu - 3 sigma, bonus = sqrt(ln n/n_iq); as printed it seeks different scores, the text wants similar ones.
        """
        met = (self.wins + self.wins.transpose(0, 2, 1) + self.out_now).sum(axis=0)
        sigma = errors(np.asarray(np.linalg.inv(precision), dtype=np.float64))
        score = C * (self.x - 3.0 * sigma).mean(axis=0)
        bonus = np.sqrt(np.log(max(met.sum() / 2.0, 1.0)) / np.maximum(met, 1e-9))
        bound = bonus - np.abs(score[:, None] - score)
        total = met.sum(axis=0)
        for pivot in np.argsort(total + 0.5 * self.chance.random(len(total))):
            gains = np.zeros_like(bound)
            gains[pivot] = bound[pivot] - bound[pivot].min() + 1.0
            yield [int(pivot)], gains, np.ones(self.has.shape[1], dtype=bool)

    def _completed(
        self, seen: _Seen, models: list[int], gains: Floats, prompts: Mask, tries: Iterator[int]
    ) -> tuple[list[int], Mask] | None:
        """(models of the best set with these, prompts of which the voter may see it); None where there is none."""
        prompts = self._free(seen, models[:-1], models[-1], prompts)
        if not prompts.any() or len(models) == self.size:
            return (models, prompts) if prompts.any() else None
        told = gains[models].sum(axis=0) * (1.0 + EQUAL * self.chance.random(len(gains)))
        for more in np.argsort(-told):
            if more in models or next(tries, None) is None:
                continue
            found = self._completed(seen, [*models, int(more)], gains, prompts, tries)
            if found is not None:
                return found
        return None

    def _free(self, seen: _Seen, models: Sequence[int], more: int, prompts: Mask) -> Mask:
        """[P] prompts of which a voter saw no picture of `more` together with one of `models`."""
        prompts = prompts & self.has[more]
        for model in models:
            prompts = prompts & self.has[model]
            prompts[[*seen.met.get((min(model, more), max(model, more)), ())]] = False
        return prompts

    def _least_shown(self, models: list[int], prompts: Mask) -> Codes:
        columns = np.flatnonzero(prompts)
        pictures = self.table[models][:, columns]
        often = self.times[pictures].sum(axis=0) + 0.5 * self.chance.random(len(columns))
        return np.asarray(pictures[:, np.argmin(often)])

    def _arranged(self, seen: _Seen, pictures: Codes) -> tuple[int, ...]:
        """The pictures in the order that balances best, of two models in all and of a model to the voter."""
        model = self.model[pictures]
        among = np.ix_(model, model)
        lead = self.ahead[among] - self.ahead[among].T + np.subtract.outer(seen.lead[model], seen.lead[model])
        first, second = np.triu_indices(len(pictures), 1)
        cost = lead[self.places[:, first], self.places[:, second]].sum(axis=1)
        place = self.places[self.chance.choice(np.flatnonzero(cost == cost.min()))]
        return tuple(pictures[place].tolist())
