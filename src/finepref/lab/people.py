"""Simulated people before pictures whose true quality is known: honest, careless, one-sided and random ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from finepref.core import rng
from finepref.core.errors import check_word
from finepref.lab import crowd as voters
from finepref.lab.crowd import Crowd
from finepref.lab.world import RMS_UNIT, Judgement, judge

HONEST, CARELESS, ONE_SIDED, RANDOM = "honest", "careless", "one-sided", "random"
KINDS = (HONEST, CARELESS, ONE_SIDED, RANDOM)
COIN = 0.5  # share of a careless person's answers that are dealt
FIRST = 0.8  # share of a one-sided person's answers that name the first picture


@dataclass(frozen=True, slots=True)
class Person:
    """One simulated person. number: which voter of the crowd, for taste, noise and the zone of ties."""

    name: str
    kind: str
    number: int


def answer_of(
    person: Person, crowd: Crowd, shown: Judgement, mode: str, chance: np.random.Generator
) -> str | int | list[int]:
    """What a person answers to a set of K pictures in the order shown, as the vote server takes it.

    honest: each picture is seen with half of the variance of a look at a pair, so that a pair is answered as in
    `crowd.vote`. careless: half of the answers are dealt. one-sided: the first picture in four of five answers, else
    the last. random: all are dealt.

    Args:
        shown: parts of the true quality of the K pictures.
        mode: pair (K = 2): "left", "right" or "tie"; best: a position; rank: a place for each, 1 the best.
    """
    check_word(mode, ("pair", "rank", "best"), "mode")
    size = len(shown.rms)
    seen: NDArray[np.float64] = seen_by(person.number, crowd, shown, chance)
    if person.kind == ONE_SIDED:
        first = 0 if chance.random() < FIRST else size - 1
        seen = np.asarray(-1e6 * np.abs(np.arange(size) - first), np.float64)
    elif person.kind == RANDOM or (person.kind == CARELESS and chance.random() < COIN):
        seen = np.asarray(1e6 * chance.permutation(size), np.float64)
    zone = float(crowd.zone[person.number])
    if mode == "best":
        return int(np.argmax(seen))
    if mode == "pair":
        apart = seen[0] - seen[1]
        return "tie" if abs(apart) < zone else "left" if apart > 0 else "right"
    return places(seen, zone)


def seen_by(number: int, crowd: Crowd, shown: Judgement, chance: np.random.Generator) -> NDArray[np.float64]:
    """[K] quality as one look of a person shows it."""
    parts = np.stack([shown.size, shown.centred, shown.vivid], axis=1)
    quality = parts @ crowd.taste[number] - shown.rms / RMS_UNIT
    return np.asarray(quality + crowd.noise[number] / np.sqrt(2) * chance.standard_normal(len(quality)))


def places(seen: Sequence[float] | NDArray[np.float64], zone: float) -> list[int]:
    """A place for each, 1 the best; one that is less than `zone` below the one before shares its place.

    Example:
        >>> places([0.0, 3.0, 2.9], 0.2)
        [3, 1, 1]
    """
    order = np.argsort(-np.asarray(seen), kind="stable")
    found = [0] * len(order)
    for at, which in enumerate(order):
        close = at > 0 and seen[order[at - 1]] - seen[which] < zone
        found[which] = found[order[at - 1]] if close else at + 1
    return found


def answerers(count: int, *, seed: int) -> dict[str, Callable[[Sequence[Image], str, str], Any]]:
    """Honest simulated people by name, who answer the sets of a study of the lab's pictures.

    What a person answers depends on the seed, the person, and how many sets they had before.

    Raises:
        InputError: (when asked) a prompt or a picture that is not of the lab's world.
    """
    crowd = voters.crowd(seed, voters=count)

    def one(person: Person) -> Callable[[Sequence[Image], str, str], Any]:
        chance = rng.numpy_generator(seed, "people", person.number)

        def answer(pictures: Sequence[Image], prompt: str, mode: str) -> str | int | list[int]:
            shown = judge(np.stack([np.asarray(picture) for picture in pictures]), [prompt] * len(pictures))
            return answer_of(person, crowd, shown, mode, chance)

        return answer

    return {f"person {number + 1} (simulated)": one(Person("", HONEST, number)) for number in range(count)}
