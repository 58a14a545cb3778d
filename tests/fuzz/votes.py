"""Vote files whose true outcome is known, since it was drawn first and written afterwards.

Nothing here reads with the package: `Truth` is what a careful person finds in the file.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fuzz.tables import Saved, cell, save

Draw = random.Random
Counts = dict[str, list[float]]  # model -> weighted wins, losses, ties
PLAIN = ("sd15", "sdxl-base", "pixart", "flux dev", "b2", "model c", "v1.5", "kandinsky")
QUOTED = ('say "hi"', "one, two", "semi;colon", "it's", "a|b", "#1", "modèle", "日本語", "café", "🚀", "O'Brien", "x/y")
SPOKEN = ("left", "tie", "a", "model_b", "1", "0", "true", "2.0")  # names that are outcome words or codes elsewhere
HOSTILE = (
    "=1+1",
    "@SUM(A1)",
    "+1",
    "-1+2",
    "<script>alert(1)</script>",
    "x\x1b[31mred",
    "\u202eevil",
    "a\nb",
    "\x07bell",
    "</style><b>",
    "{{7*7}}",
    "a\u200fb",
    "c\x85d",
    "tab\tbed",
    "\u2028line",
)
MISSING = ("", "nan", "NaN", "None", "null", "N/A", " ")
NO_OUTCOME = ("banana", "7", "skip", "?", "bad data", "-2", "0.7x")


@dataclass(frozen=True)
class Ballot:
    """outcome: 1 left, 0 tie, -1 right. sure: False where a reader may take it or list it, but nothing else."""

    left: str
    right: str
    outcome: int
    prompt: str
    voter: str
    weight: float = 1.0


@dataclass
class Truth:
    """rows of the file; sure, perhaps: what must, and what may be counted; holds: rows without a usable vote.

    refuse: the only right answer. Where `known` is False nothing is known of the numbers. names: False where names may
    be cleaned, so that only the numbers are compared.
    """

    rows: int = 0
    sure: Counts = field(default_factory=dict)
    perhaps: Counts = field(default_factory=dict)
    void: int = 0
    doubtful: int = 0
    refuse: str = ""
    known: bool = True
    names: bool = True
    items: bool = False  # rows are items of rankings, or more votes than one
    options: tuple[str, ...] = ()  # what the person adds so that the file has one reading

    def add(self, vote: Ballot, *, sure: bool = True) -> None:
        """Count a vote."""
        if vote.left == vote.right:
            sure = False
        self.doubtful += not sure
        counts = self.sure if sure else self.perhaps
        for name, at in ((vote.left, {1: 0, -1: 1, 0: 2}), (vote.right, {1: 1, -1: 0, 0: 2})):
            counts.setdefault(name, [0.0, 0.0, 0.0])[at[vote.outcome]] += vote.weight


@dataclass(frozen=True)
class VoteInput:
    """A file of votes, what is true of it, the options that a person would add, and whether nothing is odd in it."""

    saved: Saved
    truth: Truth
    options: tuple[str, ...] = ()
    plain: bool = False
    about: str = ""


def names_of(draw: Draw, count: int, *, plain: bool) -> list[str]:
    """Names of models."""
    pools = (
        (PLAIN,) if plain else draw.choice(((PLAIN,), (PLAIN, QUOTED), (QUOTED,), (PLAIN, SPOKEN), (PLAIN, HOSTILE)))
    )
    return draw.sample([name for pool in pools for name in pool], count)


def ballots(draw: Draw, *, plain: bool, ties: bool = True) -> list[Ballot]:
    """Votes on a few models; at least one is decided."""
    names = names_of(draw, draw.choice((2, 3, 3, 4, 6)), plain=plain)
    prompts = [f"prompt {number}" for number in range(draw.choice((1, 4, 20)))]
    if not plain:
        prompts += ['a cat, with a "hat"', "two\nlines", "é 日本", "5' 10\""]
    found = []
    for number in range(draw.choice((1, 3, 12, 12, 30, 60))):
        left, right = draw.sample(names, 2)
        outcome = draw.choice((1, -1, 1, -1, 0)) if ties and number else draw.choice((1, -1))
        found.append(Ballot(left, right, outcome, draw.choice(prompts), f"v{draw.randrange(5)}"))
    return found


Written = tuple[list[dict[str, Any]], list[str]]
Dialect = Callable[[Draw, list[Ballot], Truth, bool], Written]
SIDES = (
    ("left", "right", "winner"),
    ("model_a", "model_b", "winner"),
    ("model_0", "model_1", "winner"),
    ("model1", "model2", "outcome"),
)
WORDS = (
    ("left", "right", "tie"),
    ("Left", "RIGHT", "Tie"),
    ("a", "b", "draw"),
    ("A", "B", "equal"),
    (" left ", "right ", "tie"),
    ("model_a", "model_b", "tie"),
    ("MODEL_A", "model_b", "both"),
    ("left", "right", "neither"),
)


def _extras(draw: Draw, votes: list[Ballot], rows: list[dict[str, Any]], plain: bool) -> list[str]:
    """Columns beside the vote."""
    names = []
    for name, values in (
        ("prompt", [vote.prompt for vote in votes]),
        (draw.choice(("voter", "user_id", "annotator")), [vote.voter for vote in votes]),
        ("comment", [draw.choice(("fine", 'so, "so"', "", "x\ny", "né", "'")) for _ in votes]),
        ("notes", ["n" * draw.choice((3, 3, 3, 200_000)) for _ in votes]),
    ):
        if draw.random() < (0.5 if name != "notes" else 0.03) and (not plain or name not in ("comment", "notes")):
            names.append(name)
            for row, value in zip(rows, values, strict=True):
                row[name] = value
            if not plain and name not in ("comment", "notes") and draw.random() < 0.3:
                for row in rows:
                    row[name] = draw.choice((row[name], draw.choice(MISSING) if name != "prompt" else None))
    return names


def _words(draw: Draw, votes: list[Ballot], truth: Truth, plain: bool) -> Written:
    left, right, said = draw.choice(SIDES)
    words = draw.choice(WORDS)
    by_name = draw.random() < 0.25 and not {v.left for v in votes} & {*SPOKEN}
    bad = "" if plain or draw.random() < 0.6 else draw.choice(("tie (bothbad)", "both bad", "both_bad", "Both Bad"))
    rows = []
    for vote in votes:
        word = {1: words[0], -1: words[1], 0: words[2]}[vote.outcome]
        if by_name and vote.outcome:
            word = vote.left if vote.outcome > 0 else vote.right
        sure = True
        if bad and vote.outcome == 0:
            word, sure = bad, False
        rows.append({left: vote.left, right: vote.right, said: word})
        truth.add(vote, sure=sure)
    if not plain:
        _spoil(draw, rows, votes, truth, (left, right), said)
    return rows, [left, right, said]


def _spoil(
    draw: Draw, rows: list[dict[str, Any]], votes: list[Ballot], truth: Truth, sides: tuple[str, str], said: str
) -> None:
    """Rows more without a usable vote, and rows whose names are spelt with a difference that nobody sees."""
    way = draw.choice(("", "", "no outcome", "unknown", "no name", "lookalike", "self"))
    for _ in range(draw.choice((1, 2)) if way else 0):
        at, vote = draw.randrange(len(rows) + 1), draw.choice(votes)
        row = {sides[0]: vote.left, sides[1]: vote.right, said: rows[0][said]}
        ballot = None
        if way == "no outcome":
            row[said] = draw.choice((None, *MISSING))
        elif way == "unknown":
            row[said] = draw.choice(NO_OUTCOME)
        elif way == "no name":
            row[draw.choice(sides)] = draw.choice((None, *MISSING))
        elif way == "self":
            row[sides[1]] = row[sides[0]]
            row[said] = {1: "left", -1: "right", 0: "tie"}[vote.outcome]
            ballot = Ballot(vote.left, vote.left, vote.outcome, vote.prompt, vote.voter)
        else:
            other = draw.choice((vote.left + " ", " " + vote.left, unicodedata.normalize("NFD", vote.left)))
            row[sides[0]], ballot = other, vote
            row[said] = {1: "left", -1: "right", 0: "tie"}[vote.outcome]
        rows.insert(at, row)
        votes.insert(at, vote)
        if ballot is None:
            truth.void += 1
        else:
            truth.add(ballot)


def _winner_loser(draw: Draw, votes: list[Ballot], truth: Truth, plain: bool) -> Written:
    first, second = draw.choice(
        (("winner", "loser"), ("chosen_model", "rejected_model"), ("model_chosen", "model_rejected"))
    )
    drawn = "" if plain or draw.random() < 0.5 else draw.choice(("draw", "is_tie", "result"))
    votes[:] = [vote for vote in votes if vote.outcome or drawn]
    rows = []
    for vote in votes:
        pair = (vote.left, vote.right) if vote.outcome >= 0 else (vote.right, vote.left)
        row: dict[str, Any] = {first: pair[0], second: pair[1]}
        if drawn:
            said = {"draw": int(vote.outcome == 0), "is_tie": vote.outcome == 0, "result": "win"}[drawn]
            row[drawn] = "draw" if drawn == "result" and vote.outcome == 0 else said
        rows.append(row)
        truth.add(vote)
    return rows, [first, second] + [drawn] * bool(drawn)


def _one_hot(draw: Draw, votes: list[Ballot], truth: Truth, plain: bool) -> Written:
    names = ["id", "model_a", "model_b", "winner_model_a", "winner_model_b", "winner_tie"]
    rows = []
    for number, vote in enumerate(votes):
        flags = (vote.outcome == 1, vote.outcome == -1, vote.outcome == 0)
        held = flags if draw.random() < 0.2 else tuple(map(int, flags))
        rows.append(dict(zip(names, (number, vote.left, vote.right, *held), strict=True)))
        truth.add(vote)
    return rows, names


CODES = (
    ((0, 1, None), "the place of the winner"),
    ((1, 2, 0), "the number of the winner, 0 a tie"),
    ((1, -1, 0), "a sign"),
    ((2, -2, 0), "a scale"),
    ((1, 0, 0.5), "the left's share"),
    ((True, False, None), "whether the first won"),
    ((1.0, 2.0, 1.5), "halves"),
)


def _coded(draw: Draw, votes: list[Ballot], truth: Truth, plain: bool) -> Written:
    """Codes that mean what the person means; without `--outcome` they may only be refused, or read in that way."""
    sides = draw.choice((*SIDES, ("generator_1", "generator_2", "preference"), ("a", "b", "result")))
    left, right, said = sides
    codes, _ = draw.choice(CODES)
    if codes[2] is None:
        votes[:] = [vote for vote in votes if vote.outcome]
    rows = [{left: v.left, right: v.right, said: {1: codes[0], -1: codes[1], 0: codes[2]}[v.outcome]} for v in votes]
    for vote in votes:
        truth.add(vote)
    if sides not in SIDES or draw.random() < 0.3:
        truth.options += ("--left", left, "--right", right, "--winner", said)
    if draw.random() < 0.4:
        said_as = zip(codes, ("left", "right", "tie"), strict=True)
        truth.options += tuple(
            w for code, word in said_as if code is not None for w in ("--outcome", f"{cell(code)}={word}")
        )
    return rows, [left, right, said]


def _pickapic(draw: Draw, votes: list[Ballot], truth: Truth, plain: bool) -> Written:
    rows = []
    for number, vote in enumerate(votes):
        share = (vote.outcome + 1) / 2
        row = {"model_0": vote.left, "model_1": vote.right, "label_0": share, "label_1": 1 - share}
        rows.append(row | {"ranking_id": number, "image_0_uid": f"u{number}", "image_1_uid": f"w{number}"})
        truth.add(vote)
    return rows, list(rows[0])


def _kwise(draw: Draw, votes: list[Ballot], truth: Truth, plain: bool) -> Written:
    """Long rankings: all pairs of a group; an item without a rank is compared with nobody."""
    names = sorted({name for vote in votes for name in (vote.left, vote.right)})
    rows: list[dict[str, Any]] = []
    truth.items = True
    for number in range(draw.choice((1, 4, 9))):
        items = draw.sample(names, draw.randint(2, len(names)))
        ranks: list[Any] = [draw.randint(1, len(items)) for _ in items]
        ranked = list(zip(items, ranks, strict=True))
        if not plain and len(items) > 2 and draw.random() < 0.2:
            ranks[-1] = draw.choice((-1, None))
            ranked.pop()
            truth.void += 1
        for at, (one, first) in enumerate(ranked):
            for other, second in ranked[at + 1 :]:
                truth.add(Ballot(one, other, (first < second) - (first > second), "", ""))
        held = [{"group": f"g{number}", "model": item, "rank": rank} for item, rank in zip(items, ranks, strict=True)]
        rows += draw.sample(held, len(held))
    return rows, ["group", "model", "rank"]


def _wide(draw: Draw, votes: list[Ballot], truth: Truth, plain: bool) -> Written:
    """Wide rankings; -1 and nothing mean that an item was not ranked. Items, not rows, may stay without a vote."""
    names = sorted({name for vote in votes for name in (vote.left, vote.right)})
    count = draw.randint(2, min(5, len(names)))
    truth.items = True
    rows = []
    for number in range(draw.choice((1, 5, 12))):
        items, row = draw.sample(names, count), {"segmentId": number}
        ranks = [draw.randint(1, count) for _ in items]
        if number and draw.random() < 0.2:
            ranks[draw.randrange(count)] = -1
        row |= {f"system{k + 1}Id": item for k, item in enumerate(items)}
        row |= {f"system{k + 1}rank": rank for k, rank in enumerate(ranks)}
        for at in range(count):
            for other in range(at + 1, count):
                if min(ranks[at], ranks[other]) > 0:
                    outcome = (ranks[at] < ranks[other]) - (ranks[at] > ranks[other])
                    truth.add(Ballot(items[at], items[other], outcome, "", ""))
        rows.append(row)
    return rows, list(rows[0])


def _counted(draw: Draw, votes: list[Ballot], truth: Truth, plain: bool) -> Written:
    """Votes counted per pair of images."""
    truth.items = True
    rows = []
    for number, vote in enumerate(votes):
        first, second = draw.randint(0, 20), draw.randint(1, 20)
        truth.add(Ballot(vote.left, vote.right, 1, "", "", first))
        truth.add(Ballot(vote.left, vote.right, -1, "", "", second))
        rows.append(
            {
                "prompt": vote.prompt,
                "image1": f"{number}a.png",
                "image2": f"{number}b.png",
                "votes_image1": first,
                "votes_image2": second,
                "model1": vote.left,
                "model2": vote.right,
            }
        )
    return rows, list(rows[0])


def _weighted(draw: Draw, votes: list[Ballot], truth: Truth, plain: bool) -> Written:
    left, right, said = draw.choice(SIDES)
    rows = []
    for vote in votes:
        weight = draw.choice((1, 2, 5)) if draw.random() < 0.5 else draw.choice((0.5, 1.25, 3.0))
        word = {1: "left", -1: "right", 0: "tie"}[vote.outcome]
        rows.append({left: vote.left, right: vote.right, said: word, "weight": weight})
        truth.add(Ballot(vote.left, vote.right, vote.outcome, "", "", weight))
    return rows, [left, right, said, "weight"]


def _questions(draw: Draw, votes: list[Ballot], truth: Truth, plain: bool) -> Written:
    """Two questions in one file: without --question their answers may not be mixed."""
    rows = [
        {
            "left": v.left,
            "right": v.right,
            "winner": {1: "left", -1: "right", 0: "tie"}[v.outcome],
            "question": ("Which is prettier?", "Which fits the prompt?")[number % 2],
        }
        for number, v in enumerate(votes)
    ]
    if draw.random() < 0.4:
        truth.options, truth.items = ("--question", "Which is prettier?"), True
        for vote in votes[::2]:
            truth.add(vote)
    else:
        truth.known = False
        truth.refuse = "answers to two questions" if len(votes) > 1 else ""
    return rows, ["left", "right", "winner", "question"]


DIALECTS: Mapping[str, Dialect] = {
    "words": _words,
    "winner_loser": _winner_loser,
    "one_hot": _one_hot,
    "coded": _coded,
    "pickapic": _pickapic,
    "kwise": _kwise,
    "wide": _wide,
    "counted": _counted,
    "weighted": _weighted,
    "questions": _questions,
}
READ_BY_ALL = ("words", "winner_loser", "pickapic", "kwise")


def votes(draw: Draw, *, plain: bool | None = None) -> VoteInput:
    """A file of votes in any dialect and any form, with what is true of it."""
    plain = draw.random() < 0.25 if plain is None else plain
    name = draw.choice(READ_BY_ALL if plain else (*DIALECTS, *READ_BY_ALL, "words", "words"))
    truth, drawn = Truth(), ballots(draw, plain=plain)
    rows, columns = DIALECTS[name](draw, drawn, truth, plain)
    if name in ("words", "winner_loser", "coded", "one_hot", "pickapic", "weighted", "questions"):
        columns = columns + _extras(draw, drawn, rows, plain)
    truth.rows = len(rows)
    spelt = {name for vote in drawn for name in (vote.left, vote.right)}
    truth.names = not spelt & {*HOSTILE}
    if name == "coded" and spelt & {*SPOKEN}:
        truth.known = False  # a code may be the name of a model
    if spelt & {"1", "0", "2.0", "true"}:
        truth.names = False
    if not plain and draw.random() < 0.3:
        columns = draw.sample(columns, len(columns))
    saved = save(draw, rows, columns, plain=plain)
    options = saved.options + truth.options
    if not plain and draw.random() < 0.3:
        options += ("--skip-bad-rows",)
    return VoteInput(saved, truth, options, plain and saved.plain, name)
