"""When rounds end, and which round's model is the result. The rules look at files alone."""

from __future__ import annotations

from collections.abc import Sequence

from finepref.formats.rounds import PlayedRound, unseen

PATIENCE = 2
"""Rounds in a row without a certain gain, after which there is no further one."""


def why_ended(rounds: Sequence[PlayedRound], *, most: int) -> str:
    """Why no further round is played; empty where one is.

    - a reward that was learned from has certainly gained over the round before, while a judge that was not learned from
      fell: the reward is being exploited.
    - no judge that was not learned from has certainly gained in the last two rounds (lower end of the interval not
      above 0).
    - as many rounds as were asked for.
    """
    if not rounds:
        return ""
    last = rounds[-1]
    fallen = [gain for gain in unseen(last.gains) if gain.last < 0]
    risen = [gain for gain in last.gains if gain.trained and gain.last_low > 0]
    if fallen and risen:
        return (
            f"round {last.number}: {risen[0].metric}, which it learned from, rose by {risen[0].last:.3g}, and "
            f"{fallen[0].metric}, which it did not, fell by {-fallen[0].last:.3g}"
        )
    recent = rounds[-PATIENCE:]
    if len(recent) == PATIENCE and not any(_gained(each) for each in recent):
        return f"rounds {recent[0].number} to {last.number} gained nothing that is certain"
    asked = "1 round was" if most == 1 else f"{most} rounds were"
    return f"{asked} asked for" if len(rounds) >= most else ""


def best_of(rounds: Sequence[PlayedRound]) -> int:
    """The number of the round whose model is the result: of those that gained over the base by the first judge that was
    not learned from, the one that gained most; 0, the base, where none did.
    """
    scored = [(unseen(each.gains)[0].base, -each.number) for each in rounds if unseen(each.gains)]
    value, number = max(scored, default=(0.0, 0))
    return -number if value > 0 else 0


def _gained(played: PlayedRound) -> bool:
    return any(gain.last_low > 0 for gain in unseen(played.gains))
