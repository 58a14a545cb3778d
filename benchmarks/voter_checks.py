"""How many bad voters the checks find, how many honest ones they flag, and whether alpha's interval holds.

    OMP_NUM_THREADS=1 python benchmarks/voter_checks.py --out benchmarks/results/2026-11-30-voter-checks.json

Studies of 20 voters x 100 answers: 12 honest (of the lab's crowd), 4 careless (half of the answers by a coin), 2
one-sided (80 % left whatever is shown), 2 random. A coin also gives ties, as many as the voter would have; nobody is
faster or slower for being bad. 4 to 8 models, 50 to 100 prompts, both drawn; sides at random.

Pictures: `lab` pictures of the lab's makers with their true quality (4 to 6 makers); `pickapic`, `hpdv3` means of
models drawn from these boards, and pictures as far from the mean as rho 0.5 says, a voter's noise being 1. Difference
of two pictures: about 0.7, 1.1 and 1.5 times the noise.
Sets with a known answer (gold): `spoiled_5` one in 5, of a picture and a copy of it that is spoiled by 4 times the
noise; `spoiled_12` one in 12, as `finepref collect` does; `clear_12` one in 12, of the 24 clearest pairs of the
study; `none`. Repeats: one in 25.

Oracle: the same test of agreement by somebody who knows the true quality of every picture: what no server can.
Alpha: pairs of pictures judged by 3 of 12 voters (a third of them careless); the truth is alpha of 400,000 pairs.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

from finepref import Votes
from finepref.arena.agreement import agreement
from finepref.arena.boards import load_board
from finepref.arena.ratings import BETA
from finepref.arena.sides import ERROR_RATE
from finepref.collect.answer_columns import GOLD, PLAIN, REPEAT, UNDECIDED, AnswerColumns
from finepref.collect.attention import NOISE, SHARES, SLIP
from finepref.collect.checks import COIN, STEP, check_answers
from finepref.collect.voter_tests import sum_at_least, whole_weights
from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator
from finepref.lab.crowd import Crowd, crowd, vote
from finepref.lab.world import RMS_UNIT, TASTE, Judgement

MIXED = ("honest",) * 12 + ("careless",) * 4 + ("one-sided",) * 2 + ("random",) * 2
HONEST = ("honest",) * 20
ANSWERS, KNOWN_PAIRS, ZONE = 100, 24, 0.2
SCHEMES = {"spoiled_5": 5, "spoiled_12": 12, "clear_12": 12, "none": 0}
SPOILED = 4.0
BOARDS = {"pickapic": "arenapo-pickapic", "hpdv3": "arenapo-hpdv3"}
MOST_FLAGGED, LEAST_FOUND, BAND = 0.01, 0.9, (0.93, 0.97)
PACE, PACE_OF_VOTERS, PACE_OF_ANSWERS = 2500.0, 0.35, 0.5


@dataclass(frozen=True)
class Pictures:
    """K pictures: [K] parts of their quality, model and prompt; a prompt's pictures lie together."""

    truth: Judgement
    model: np.ndarray
    prompts: int
    models: int


def lab_pictures(prompts: int) -> Judgement:
    """Pictures of all makers for the first prompts of the lab, judged: prompt by prompt."""
    from finepref.lab import makers, model, world

    asked = list(world.prompts("train"))[:prompts]
    pipelines = {name: model.pipeline(name) for name in sorted({maker.variant for maker in makers.MAKERS})}
    images = makers.make_images(pipelines, asked, seed=0)
    flat = np.stack(list(images.values()), axis=1).reshape(-1, world.SIZE, world.SIZE, 3)
    return world.judge(flat, [prompt for prompt in asked for _ in images])


def draw_pictures(spread: str, lab: Judgement | None, rng: np.random.Generator) -> Pictures:
    """The pictures of a study."""
    prompts, models = int(rng.integers(50, 101)), int(rng.integers(4, 7 if spread == "lab" else 9))
    model = np.tile(np.arange(models), prompts)
    if spread == "lab":
        assert lab is not None
        every = np.arange(len(lab.rms)).reshape(-1, 6)
        rows = every[rng.permutation(len(every))[:prompts]][:, rng.permutation(6)[:models]].ravel()
        columns = (lab.quality, lab.rms, lab.size, lab.centred, lab.vivid)
        return Pictures(Judgement(*(column[rows] for column in columns)), model, prompts, models)
    board = np.array(load_board(BOARDS[spread]).mu)
    noise = BETA  # c sqrt(1 - rho) at rho 0.5
    means = (rng.choice(board, models, replace=False) - board.mean()) / noise
    parts = means[model][:, None] / 3.0 + np.sqrt(0.5 / 3.0) * rng.standard_normal((len(model), 3))
    size, centred, vivid = (parts / np.array(list(TASTE.values()))).T
    return Pictures(Judgement(parts.sum(axis=1), np.zeros(len(model)), size, centred, vivid), model, prompts, models)


def spoil(pictures: Pictures, rng: np.random.Generator) -> tuple[Pictures, np.ndarray]:
    """(the pictures and spoiled copies of 24 of them behind them, [24, 2] the pairs of both)."""
    good = rng.choice(len(pictures.model), KNOWN_PAIRS, replace=False)
    truth = pictures.truth
    worse = (truth.quality[good] - SPOILED, truth.rms[good] + SPOILED * RMS_UNIT)
    same = (column[good] for column in (truth.size, truth.centred, truth.vivid))
    whole = (truth.quality, truth.rms, truth.size, truth.centred, truth.vivid)
    columns = (np.concatenate(both) for both in zip(whole, (*worse, *same), strict=True))
    model = np.concatenate([pictures.model, pictures.model[good]])
    bad = len(pictures.model) + np.arange(KNOWN_PAIRS)
    return replace(pictures, truth=Judgement(*columns), model=model), np.stack([good, bad], axis=1)


def shown(
    pictures: Pictures, known: np.ndarray | None, gold_every: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """([100, 2] pictures, [100] kind, [100] which earlier set is repeated) of one voter.

    known: [24, 2] pairs with a known answer; None: the clearest.
    """
    inner = np.array(list(itertools.combinations(range(pictures.models), 2)))
    every = (inner[None] + pictures.models * np.arange(pictures.prompts)[:, None, None]).reshape(-1, 2)
    quality = pictures.truth.quality
    clear = np.argsort(-np.abs(quality[every[:, 0]] - quality[every[:, 1]]))[:KNOWN_PAIRS]
    clear, known = (clear, every[clear]) if known is None else (clear[:0], known)
    number = np.arange(ANSWERS)
    kind = np.full(ANSWERS, PLAIN)
    kind[number % 25 == 24] = REPEAT
    if gold_every:
        kind[number % gold_every == gold_every - 1] = GOLD
    pairs = every[rng.choice(np.delete(np.arange(len(every)), clear), ANSWERS, replace=False)]
    gold = np.flatnonzero(kind == GOLD)
    pairs[gold] = known[rng.choice(len(known), len(gold), replace=False)]
    earlier = np.full(ANSWERS, -1)
    for at in np.flatnonzero(kind == REPEAT):
        earlier[at] = rng.choice(np.flatnonzero(kind[: at - 3] == PLAIN))
        pairs[at] = pairs[earlier[at]]
    return rng.permuted(pairs, axis=1), kind, earlier


def answered(who: str, honest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[n] positions that a voter of a kind chooses; honest: what one who looks would."""
    n, tied = len(honest), float(np.mean(honest == UNDECIDED))
    coin = np.where(rng.random(n) < tied, UNDECIDED, rng.integers(0, 2, n))
    if who == "careless":
        return np.where(rng.random(n) < 0.5, honest, coin)
    if who == "one-sided":
        return np.where(rng.random(n) < 0.8, 0, 1)
    return coin if who == "random" else honest


def study(spread: str, lab: Judgement | None, mix: tuple[str, ...], scheme: str, seed: int) -> tuple[Any, Any]:
    """(the answers of a study, [n] true lead of the left picture)."""
    rng = numpy_generator(seed, "voter checks", spread, scheme, len(set(mix)))
    pictures, known_pairs = draw_pictures(spread, lab, rng), None
    if scheme.startswith("spoiled"):
        pictures, known_pairs = spoil(pictures, rng)
    people = crowd(int(rng.integers(2**31)), voters=len(mix))
    parts: list[list[np.ndarray]] = []
    for voter, who in enumerate(mix):
        pairs, kind, earlier = shown(pictures, known_pairs, SCHEMES[scheme], rng)
        one = slice(voter, voter + 1)
        alone = Crowd(people.taste[one], people.noise[one], people.zone[one])
        _, share = vote(alone, pictures.truth, pairs[:, 0], pairs[:, 1], seed=int(rng.integers(2**31)))
        position = answered(who, np.where(share == 0.5, UNDECIDED, (share < 0.5).astype(int)), rng)
        lead = pictures.truth.quality[pairs[:, 0]] - pictures.truth.quality[pairs[:, 1]]
        chosen = np.where(position < 0, UNDECIDED, pairs[np.arange(ANSWERS), np.maximum(position, 0)])[earlier]
        before = np.where(chosen < 0, UNDECIDED, (chosen != pairs[:, 0]).astype(int))
        known = np.where(kind == GOLD, (lead < 0).astype(int), np.where(kind == REPEAT, before, UNDECIDED))
        pace = PACE * np.exp(PACE_OF_VOTERS * rng.standard_normal())
        times = pace * np.exp(PACE_OF_ANSWERS * rng.standard_normal(ANSWERS))
        parts.append([
            np.full(ANSWERS, voter), kind, position, known, np.full(ANSWERS, 2), *pictures.model[pairs].T, *pairs.T,
            times, 0.1 * times, np.ones(ANSWERS, dtype=bool), np.arange(ANSWERS), lead,
        ])  # fmt: skip
    *columns, lead = (np.concatenate(column) for column in zip(*parts, strict=True))
    return AnswerColumns(*columns), lead


def by_oracle(answers: AnswerColumns, lead: np.ndarray, voter: int) -> float:
    """p of agreement for one who knows the true lead [n]; gold and plain sets."""
    rows = np.flatnonzero((answers.voter == voter) & (answers.position >= 0) & (answers.kind != REPEAT))
    far = np.abs(lead[rows])
    won, lost = (ndtr((sign * far - ZONE) / NOISE[:, None]) for sign in (1, -1))
    chance = (1.0 - SLIP) * lost / (won + lost) + 0.5 * SLIP
    q, against = SHARES @ chance, (answers.position[rows] == 0) != (lead[rows] > 0)
    weight = np.log1p(-COIN + 0.5 * COIN / q) - np.log1p(-COIN + 0.5 * COIN / (1.0 - q))
    whole = whole_weights(np.maximum(weight, 0.0), against, STEP)
    return sum_at_least(chance, whole, int(whole[against].sum()), SHARES)


def found(spread: str, lab: Judgement | None, mix: tuple[str, ...], scheme: str, studies: int) -> dict[str, Any]:
    """Shares of the voters that each check flags, by kind of voter."""
    rows: dict[str, list[dict[str, float]]] = {who: [] for who in dict.fromkeys(mix)}
    for seed in range(studies):
        answers, lead = study(spread, lab, mix, scheme, seed)
        for who, result in zip(mix, check_answers(answers), strict=True):
            flags = {each.check: float(each.flagged) for each in result.results}
            oracle = float(by_oracle(answers, lead, result.voter) < ERROR_RATE)
            rows[who].append({"any": float(bool(result.flagged)), **flags, "oracle": oracle})
    shares = {
        who: {name: float(np.mean([row[name] for row in each])) for name in each[0]} for who, each in rows.items()
    }
    return {
        "pictures": spread, "gold": scheme, "mix": "mixed" if mix is MIXED else "honest only", "studies": studies,
        "voters": {who: len(each) for who, each in rows.items()}, "flagged": shares,
    }  # fmt: skip


def judgements(units: int, rng: np.random.Generator, *, voters: int = 12, judges: int = 3) -> Votes:
    """Pairs of pictures, each judged by 3 of 12 voters, of whom every third answers half by a coin."""
    lead = 1.1 * rng.standard_normal(units)
    who = np.argsort(rng.random((units, voters)), axis=1)[:, :judges]
    seen = lead[:, None] + rng.standard_normal(who.shape)
    coin = (who % 3 == 0) & (rng.random(who.shape) < 0.5)
    said = np.where(np.abs(seen) < ZONE, 0, np.where(coin, rng.choice([-1, 1], who.shape), np.sign(seen)))
    turned = rng.random(who.shape) < 0.5
    unit = np.repeat(np.arange(units), judges)
    left, right = 2 * unit + turned.ravel(), 2 * unit + 1 - turned.ravel()
    outcome = np.where(turned, -said, said).ravel().astype(np.int8)
    return Votes(
        ("a", "b"), left % 2, right % 2, outcome, left_image=left, right_image=right, voter=who.ravel(),
        voters=tuple(str(k) for k in range(voters)),
    )  # fmt: skip


def alpha_coverage(units: int, simulations: int, truth: float) -> dict[str, Any]:
    """How often the interval of alpha holds the truth."""
    held, width, mean = 0, 0.0, 0.0
    for seed in range(simulations):
        result = agreement(judgements(units, numpy_generator(seed, "alpha", units)), seed=seed)
        assert result is not None
        assert result.interval is not None
        low, high = result.interval
        held, width, mean = held + (low <= truth <= high), width + high - low, mean + result.alpha
    share = simulations
    return {"units": units, "coverage": held / share, "width": width / share, "mean": mean / share, "truth": truth}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=50)
    parser.add_argument("--honest", type=int, default=2000, help="in mixed studies with the first kind of known sets")
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--lab-prompts", type=int, default=126)
    parser.add_argument("--pictures", nargs="*", default=["lab", *BOARDS])
    parser.add_argument("--gold", nargs="+", default=list(SCHEMES), choices=list(SCHEMES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    started, records, alphas = time.process_time(), [], []
    lab = lab_pictures(options.lab_prompts) if "lab" in options.pictures else None
    enough = -(-options.honest // MIXED.count("honest"))
    for spread, gold in itertools.product(options.pictures, options.gold):
        studies = max(options.studies, enough) if gold == options.gold[0] else options.studies
        records.append(found(spread, lab, MIXED, gold, studies))
        print(records[-1], flush=True)
    for spread, gold in itertools.product(options.pictures, {options.gold[0]: 0, options.gold[-1]: 0}):
        records.append(found(spread, lab, HONEST, gold, options.studies))
        print(records[-1], flush=True)
    if options.simulations:
        sampled = agreement(judgements(400_000, numpy_generator(0, "alpha truth")))
        assert sampled is not None
        alphas = [alpha_coverage(units, options.simulations, sampled.alpha) for units in (30, 100, 300)]
        print(alphas)
    if options.out is not None:
        about = {
            "command": " ".join(["python benchmarks/voter_checks.py", *sys.argv[1:]]), "versions": versions(),
            "mix": {who: MIXED.count(who) for who in dict.fromkeys(MIXED)}, "answers": ANSWERS, "spoiled_by": SPOILED,
            "seeds": "0 to studies - 1", "level_of_a_check": ERROR_RATE, "alpha_simulations": options.simulations,
            "cpu_seconds": round(time.process_time() - started, 1),
        }  # fmt: skip
        write_json(options.out, {"about": about, "records": records, "alpha": alphas})
    decided = [each for each in records if each["gold"] == options.gold[0] and each["mix"] == "mixed"]
    return int(not all(map(held, decided)) or any(not BAND[0] <= each["coverage"] <= BAND[1] for each in alphas))


def held(record: dict[str, Any]) -> bool:
    """Whether others are found, and no check flags more honest voters than it may."""
    honest = {name: share for name, share in record["flagged"]["honest"].items() if name not in ("any", "oracle")}
    others = [each["any"] for who, each in record["flagged"].items() if who != "honest"]
    return all(share <= MOST_FLAGGED for share in honest.values()) and all(share >= LEAST_FOUND for share in others)


if __name__ == "__main__":
    sys.exit(main())
