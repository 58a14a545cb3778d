"""Votes as integer codes: who met whom, who won, and optionally which images, prompt and voter.

n votes over M models. Outcome is the sign of left minus right: +1 left won, -1 right won, 0 tie.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from finepref.core.errors import InputError

Ints = npt.NDArray[np.integer]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Games:
    """K-wise games as ranked: game g holds the items start[g]:start[g+1]; a lower rank is better, equal ranks tie."""

    start: Ints
    model: Ints
    rank: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.start) - 1

    def pairs(self) -> tuple[Rows, Rows, Rows]:
        """Every pair of items within every game: positions of the two items in the games' arrays, and the game.

        Only neighbours in the ranking would be biased (research: RMSE 1.1 and 1.7 against 0.4), so all pairs it is.
        """
        sizes = np.diff(self.start)
        found = [np.zeros((3, 0), dtype=np.int64)]
        for size in np.unique(sizes[sizes > 1]).tolist():
            which = np.flatnonzero(sizes == size)
            a, b = np.triu_indices(size, 1)
            base = self.start[which][:, None]
            found.append(np.stack([(base + a).ravel(), (base + b).ravel(), np.repeat(which, len(a))]))
        first, second, game = np.concatenate(found, axis=1)
        order = np.argsort(game, kind="stable")
        return first[order], second[order], game[order]

    def outcomes(self, first: Ints, second: Ints) -> npt.NDArray[np.int8]:
        """+1 where the first item is ranked better (lower), -1 where the second is, 0 for equal ranks."""
        return np.sign(self.rank[second] - self.rank[first]).astype(np.int8)


@dataclass(frozen=True, slots=True)
class Votes:
    """Pairwise votes (of K-wise games: all their pairs).

    models: M names. left, right: [n] codes below M. outcome: [n] int8, +1 left, 0 tie, -1 right.
    left_image, right_image: [n] codes of one common space of images, or None. prompt, voter, game: [n] codes or None;
    -1: a prompt or voter that is not named.
    voters: the names of the voter codes where they are known. games: the games themselves, for K-wise votes.
    weight: [n] how many votes a row stands for, >= 0; None: one each. share: [n] the left's share of them in [0, 1],
    nan where the row is decided by `outcome` alone; None: everywhere. both_bad: [n] whether a tie says neither is good.
    time: [n] int64, orders the votes. question: [n] codes of `questions`, what was asked. repeats: [n] int64, how many
    equal votes a row is, which `finepref arena` reads as one row where it can; None: one each.
    """

    models: tuple[str, ...]
    left: Ints
    right: Ints
    outcome: Ints
    left_image: Ints | None = None
    right_image: Ints | None = None
    prompt: Ints | None = None
    voter: Ints | None = None
    voters: tuple[str, ...] | None = None
    game: Ints | None = None
    games: Games | None = field(default=None, repr=False)
    weight: npt.NDArray[np.float64] | None = None
    share: npt.NDArray[np.float64] | None = None
    both_bad: npt.NDArray[np.bool_] | None = None
    time: npt.NDArray[np.int64] | None = None
    question: Ints | None = None
    questions: tuple[str, ...] | None = None
    repeats: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.left)

    @property
    def total(self) -> int:
        """How many votes the rows are."""
        return len(self) if self.repeats is None else int(self.repeats.sum())

    @property
    def has_images(self) -> bool:
        """Whether every vote names its two images."""
        return self.left_image is not None

    @property
    def images(self) -> tuple[Ints, Ints]:
        """[n] codes of the left and of the right images.

        Raises:
            InputError: votes without images.
        """
        if self.left_image is None or self.right_image is None:
            what = "image-level gaps need to know which images were compared"
            raise InputError(what, remedy="name the two image columns, or use another kind")
        return self.left_image, self.right_image

    @property
    def image_count(self) -> int:
        """One more than the largest image code."""
        return 1 + max(int(codes.max()) for codes in self.images)

    def take(self, rows: npt.NDArray[Any] | slice) -> Votes:
        """The votes of these rows (indices, mask or slice); the models stay. K-wise games become their pairs."""
        names = (
            *("left", "right", "outcome", "left_image", "right_image", "prompt", "voter", "game"),
            *("weight", "share", "both_bad", "time", "question", "repeats"),
        )
        held = {name: getattr(self, name) for name in names}
        picked: dict[str, Any] = {name: values if values is None else values[rows] for name, values in held.items()}
        return replace(self, games=None, **picked)

    def with_dense_images(self) -> Votes:
        """The same votes with image codes that leave no holes."""
        if not self.has_images or len(self) == 0:
            return self
        left, right = self.images
        least = min(int(codes.min()) for codes in (left, right))
        count = self.image_count - least
        if count <= 4 * len(self):
            if least:
                left, right = left - least, right - least
            used = np.zeros(count, dtype=bool)
            used[left] = used[right] = True
            if not used.all():
                new = np.cumsum(used) - 1
                left, right = new[left], new[right]
        else:
            codes = np.unique(np.concatenate([left, right]), return_inverse=True)[1]
            left, right = codes[: len(self)], codes[len(self) :]
        return replace(self, left_image=left, right_image=right)

    @classmethod
    def from_columns(
        cls,
        *,
        left: Iterable[Any],
        right: Iterable[Any],
        outcome: Iterable[Any],
        left_image: Iterable[Any] | None = None,
        right_image: Iterable[Any] | None = None,
        prompt: Iterable[Any] | None = None,
        voter: Iterable[Any] | None = None,
        weight: Iterable[Any] | None = None,
        question: Iterable[Any] | None = None,
    ) -> Votes:
        """Votes from columns of names (lists, arrays, Arrow arrays).

        Args:
            left, right: [n] names of the models that met.
            outcome: [n] words (`outcomes.WORDS`, any case), the winner's name, or left's share in [0, 1], 0.5 a tie.
            left_image, right_image: [n] names of the two images, both or none; equal names are the same image.
            prompt, voter, question: [n] names; None: not named. weight: [n] how many votes each stands for, >= 0.

        Raises:
            InputError: a name is empty or missing, an outcome is none of the words, lengths differ.

        Example:
            votes = Votes.from_columns(left=["A", "A"], right=["B", "C"], outcome=["left", "tie"])
        """
        from finepref.formats.votefiles import votes_of

        if (left_image is None) != (right_image is None):
            raise InputError("only one of left_image and right_image is given", remedy="give both or none")
        columns = {
            "left": left, "right": right, "winner": outcome, "left_image": left_image, "right_image": right_image,
            "prompt": prompt, "voter": voter, "weight": weight, "question": question,
        }  # fmt: skip
        return votes_of({role: values for role, values in columns.items() if values is not None})
