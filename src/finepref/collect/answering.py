"""Programs that answer a study's sets in place of people: a scorer, a vision language model, simulated voters.

Their answers are votes like any other, so that ratings, signals and the checks on voters treat them as those of people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from PIL.Image import Image
from scipy.stats import rankdata

from finepref.collect.desk import Desk
from finepref.collect.refusal import Refused
from finepref.collect.seats import ACTIVE, Seat
from finepref.core.errors import InputError
from finepref.core.images import open_rgb_file
from finepref.core.progress import progress
from finepref.evaluate.scorers.scorer import Scorer
from finepref.formats.answers import ShownSet

Answerer = Callable[[Sequence[Image], str, str], Any]
"""Pictures in the order shown, their prompt, and the mode of the study -> an answer as the page would give it."""
MEASURED = {"milliseconds": 0, "loaded": 0, "device": "program", "input": "program"}
TURNED = ", other order"
"""Behind the name of a voter who sees every set of another one in the other order."""


def answer_sets(desk: Desk, voters: Mapping[str, Answerer], *, sets: int, turned: bool = False) -> int:
    """Let voters answer in turn until so many sets of the study have an answer; how many there are then.

    Nothing is kept before the last answer: a call that was ended begins again and gives the same answers.

    Args:
        voters: pseudonym -> who answers; a new voter is made of each name that is not there.
        sets: in the whole study; those of both orders count twice.
        turned: every set is shown again in the other order, to a voter of that name: a preference for a side takes
            itself back, and the checks on voters show it.

    Raises:
        InputError: the study gives no more sets, or it is paused or closed.
    """
    try:
        return _answer_all(desk, voters, sets, turned=turned)
    except Refused as refused:
        raise InputError(refused.error, where=desk.folder, remedy=refused.remedy or "call it again") from None


def _answer_all(desk: Desk, voters: Mapping[str, Answerer], sets: int, *, turned: bool) -> int:
    seats = {name: _seat(desk, name) for name in voters}
    if turned:
        seats |= {name + TURNED: _seat(desk, name + TURNED) for name in voters}
    done, idle = sum(seat.done for seat in desk.seats.values()), 0
    with progress([], "sets", total=sets, unit="set", done=done) as bar:
        for name in cycle(voters):
            if done >= sets:
                break
            found = desk.sets(seats[name], 1) if seats[name].voter.state == ACTIVE else []
            idle = 0 if found else idle + 1
            if idle == len(voters):
                raise _ended(desk, seats.values(), done, sets)
            for shown in found:
                shows = [(name, shown)]
                if turned and shown.kind == "plain":  # known and repeated ones are no votes
                    shows.append((name + TURNED, desk.show(seats[name + TURNED], shown.pictures[::-1])))
                for who, each in shows:
                    _answer(desk, seats[who], each, voters[name])
                done += len(shows)
                bar.update(len(shows))
    desk.commit()
    return done


def _ended(desk: Desk, seats: Iterable[Seat], done: int, sets: int) -> InputError:
    """Why no voter is given a further set."""
    out = [seat.voter.called for seat in seats if seat.voter.state != ACTIVE]
    state = desk.state(next(iter(seats)))
    if out:
        return InputError(f"{out[0]} is excluded from it", where=desk.folder, remedy="take them back as its owner")
    if state in ("paused", "closed"):
        return InputError(f"the study is {state}", where=desk.folder, remedy="open it on its owner's page")
    why = "every voter has as many as the study asks for" if state == "done" else "nothing is left to ask"
    remedy = "ask for fewer, let more answer, or make a study with more pictures"
    return InputError(f"{why} after {done} of {sets} sets", where=desk.folder, remedy=remedy)


def _seat(desk: Desk, name: str) -> Seat:
    there = next((seat for seat in desk.seats.values() if seat.voter.name == name), None)
    return there or desk.seats[desk.invite(name)[0].id]


def _answer(desk: Desk, seat: Seat, shown: ShownSet, answerer: Answerer) -> None:
    about = desk.about
    pictures = [open_rgb_file(desk.picture(seat, shown.id, place)) for place in range(len(shown.pictures))]
    prompt = about.prompts[desk.pictures[shown.pictures[0]].prompt]
    said = {question.name: answerer(pictures, prompt, about.mode) for question in about.questions}
    desk.store(seat, shown.id, desk.revision(shown.id), said, MEASURED)


def scored(scorer: Scorer) -> Answerer:
    """Whoever gets the better score is better; equal scores are ties. A set with a picture without a score is skipped.

    Each picture is scored once.
    """
    held: dict[tuple[bytes, str], float] = {}

    def value(picture: Image, prompt: str) -> float:
        key = (picture.tobytes(), prompt)
        if key not in held:
            held[key] = float(np.asarray(scorer.score([picture], [prompt]))[0])
        return held[key] if scorer.higher_is_better else -held[key]

    def answer(pictures: Sequence[Image], prompt: str, mode: str) -> Any:
        return by_value([value(picture, prompt) for picture in pictures], mode)

    return answer


def by_value(values: Sequence[float], mode: str) -> Any:
    """What somebody answers who sees these qualities exactly.

    Example:
        >>> by_value([1.0, 2.0], "pair"), by_value([1.0, 2.0, 2.0], "rank"), by_value([1.0, 2.0], "best")
        ('right', [3, 1, 1], 1)
    """
    if not all(np.isfinite(values)):
        return "skip"
    if mode == "pair":
        return "tie" if values[0] == values[1] else "left" if values[0] > values[1] else "right"
    if mode == "best":
        return int(np.argmax(values))
    return [int(place) for place in rankdata(-np.asarray(values), method="min")]
