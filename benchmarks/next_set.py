"""Sets until the order of simulated models is known, by the rule that chooses the models of a set.

    OMP_NUM_THREADS=1 python benchmarks/next_set.py [--worlds pickapic hpdv3 llmfao] [--modes pair rank]
    python benchmarks/next_set.py --report                   # the tables, from the rows that are there
    python benchmarks/next_set.py --cost                       # CPU of a proposal at 50 models x 1,000 prompts

One JSON file a (world, mode, rule) in benchmarks/results/next-set; what is there is not run again.

Worlds: the ratings of the two boards of the ArenaPO paper (13 and 15 models), and those of `rate` on the 8,931 votes of
llmfao (59). A voter sees performances N(mu, (25/6)^2) and ranks them (K-Sort Arena and ArenaPO, Appendix A): two of
them are a vote with P = Phi(D/5.89). No ties; every set has pictures of its own.

decided: sets until every two neighbours of the true order that differ by at least 0.4 (920 votes on these two decide
it) stand in the right order with 95 % (lead >= 1.645 of its standard deviations). tau: sets until Kendall's tau with
the true order is 0.95, and is so at the next two looks too. Looks and new ratings: every M - 1 pairs, or every 20th
part of the sets so far if that is more. All rules are rated by the same estimator, the batch engine (probit, normal
prior) by Newton's method on counts; Laplace's covariance, for ranks of n wider by (n + 1)/3
(`collect.openorders.row_share`). A run ends after 20,000 pairs or 6,000 rankings (llmfao: 60,000 or 20,000); what is
not there by then is censored: means count it as that many sets, so that they are means of min(T, most), the same for
every rule.

    random    models drawn
    fewest    models with the fewest sets, equals drawn
    ksort     K-Sort Arena: the model with the fewest comparisons, and those with the largest -|S_i - S_q| +
              sqrt(ln N/n_iq), S = mu - 3 sigma, N comparisons in all; pairs that never met first
    asap      ASAP (Mikhailiuk et al. 2020): expected information gain sum_o P(o) KL(posterior given o || posterior) of
              independent normal posteriors by expectation propagation, the pairs of the spanning tree that has most of
              it. llmfao: ASAP-approx, which updates the two models only. Sets of 4: grown from the tree's edges by the
              sum of gains
    swiss     Swiss with information gain (2511.12796): rounds in which the pair with the largest p(1 - p) of models
              that are free yet is taken first; no rematch in a tournament of log2 M rounds (their hundred models need
              no rematch at all). Sets of 4: grown in the same way
    next      ours (`collect.informed_choice`)
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from arena_real import SHARED
from row_files import missing, read_all, run_all
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.special import ndtr

from finepref import rate, read_votes
from finepref.arena.boards import load_board
from finepref.arena.image import Duels, infer
from finepref.arena.nextpairs import certain_from
from finepref.arena.normal import inverse_mills
from finepref.arena.ratings import BETA, MU0, SIGMA0, C
from finepref.collect.informed_choice import InformedChoice
from finepref.collect.openorders import (
    fit_orders,
    informs,
    laplacian,
    pair_share,
    row_share,
    vote_gains,
)
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator
from finepref.formats.answers import Answer, PictureRow, ShownSet
from finepref.formats.collection import CollectionRecord, StudyQuestion

ROWS = Path(__file__).parent / "results" / "next-set"
WORLDS, SIZES = ("pickapic", "hpdv3", "llmfao"), {"pair": 2, "rank": 4}
DECIDED, SURE, TAU, IN_A_ROW = 0.4, 1.645, 0.95, 3
SEEDS, SHARE, REPLICATES = 50, 20, 10_000
MOST = {"pair": 20_000, "rank": 6_000}  # sets; of 59 models:
MOST_OF_MANY = {"pair": 60_000, "rank": 20_000}
MODES = {2: "pair", 4: "rank"}
EXACT_UP_TO = 20  # models for which ASAP updates all posteriors
PRIOR = (C / SIGMA0) ** 2
Array = np.ndarray
Rule = Callable[[Array, Array, Array, int], Array]
"""(active runs [A], their ratings [A, M] and covariances [A, M, M], S) -> [A, S, n] models of the next S sets."""


def world(name: str) -> Array:
    """True ratings."""
    if name == "llmfao":
        return rate(read_votes([SHARED / "llmfao_votes.csv"]).votes).mu
    return np.array(load_board(f"arenapo-{name}").mu)


def limit(name: str, mode: str) -> int:
    """Sets after which a run ends."""
    return (MOST_OF_MANY if name == "llmfao" else MOST)[mode]


def drawn(runs: int, models: int, size: int, rng: np.random.Generator) -> Rule:
    """Models drawn."""

    def propose(active: Array, mu: Array, covariance: Array, number: int) -> Array:
        return np.argsort(rng.random((len(active), number, models)), axis=2)[..., :size]

    return propose


def fewest(runs: int, models: int, size: int, rng: np.random.Generator) -> Rule:
    """Those with the fewest sets, equals drawn."""
    seen = np.zeros((runs, models))

    def propose(active: Array, mu: Array, covariance: Array, number: int) -> Array:
        found = []
        for _ in range(number):
            keys = seen[active] + 0.5 * rng.random((len(active), models))
            found.append(np.argpartition(keys, size - 1, axis=1)[:, :size])
            seen[active[:, None], found[-1]] += 1
        return np.stack(found, axis=1)

    return propose


def ksort(runs: int, models: int, size: int, rng: np.random.Generator) -> Rule:
    """K-Sort Arena's pivot and opponents."""
    met = np.zeros((runs, models, models))
    first, second = np.triu_indices(size, 1)
    centre = np.eye(models) - 1.0 / models

    def propose(active: Array, mu: Array, covariance: Array, number: int) -> Array:
        rows, found = np.arange(len(active)), []
        sigma = np.sqrt(np.einsum("ij,rjk,ik->ri", centre, covariance, centre))
        score = mu - 3.0 * sigma
        for _ in range(number):
            total = met[active].sum(axis=2)
            pivot = np.argmin(total + 0.5 * rng.random(total.shape), axis=1)
            together, games = met[active, pivot], np.maximum(total.sum(axis=1, keepdims=True) / 2.0, 1.0)
            new = 1e9 * (1.0 + rng.random(together.shape))
            bonus = np.where(together > 0, np.sqrt(np.log(games) / np.maximum(together, 1.0)), new)
            bound = bonus - np.abs(score - score[rows, pivot][:, None])
            bound[rows, pivot] = -np.inf
            others = np.argpartition(-bound, size - 2, axis=1)[:, : size - 1]
            found.append(np.concatenate([pivot[:, None], others], axis=1))
            for a, b in zip(first, second, strict=True):
                met[active, found[-1][:, a], found[-1][:, b]] += 1
                met[active, found[-1][:, b], found[-1][:, a]] += 1
        return np.stack(found, axis=1)

    return propose


def one_by_one(choose: Callable[[int, Array, Array, int], list[list[int]]]) -> Rule:
    """A rule for all runs from one that is told the run, its ratings and covariance, and how many sets to choose."""

    def propose(active: Array, mu: Array, covariance: Array, number: int) -> Array:
        return np.array([choose(int(r), mu[k], covariance[k], number) for k, r in enumerate(active)])

    return propose


def asap(runs: int, models: int, size: int, rng: np.random.Generator) -> Rule:
    """ASAP's spanning tree, over and over until there are new ratings."""
    counted: Array = np.zeros((runs, models, models))

    def choose(run: int, mu: Array, covariance: Array, number: int) -> list[list[int]]:
        gains = information_gains(counted[run], exact=models <= EXACT_UP_TO)
        gains = gains * (1.0 + 1e-9 * np.triu(rng.random(gains.shape), 1))
        gains = np.triu(gains, 1) + np.triu(gains, 1).T
        tree = minimum_spanning_tree(np.divide(1.0, gains, out=np.zeros_like(gains), where=gains > 0)).tocoo()
        edges = sorted(zip(tree.row.tolist(), tree.col.tolist(), strict=True), key=lambda e: -gains[e])
        found: list[list[int]] = []
        for i, j in edges:
            if not any(i in some and j in some for some in found):
                found.append(grown([i, j], gains, size))
        start = int(rng.integers(len(found)))
        return [found[(start + k) % len(found)] for k in range(number)]

    propose = one_by_one(choose)
    propose.counted = counted  # type: ignore[attr-defined]
    return propose


def grown(some: list[int], gains: Array, size: int, free: Array | None = None) -> list[int]:
    """A pair with the models that have the largest sums of gains with those that are chosen."""
    while len(some) < size:
        total = gains[some].sum(axis=0)
        total[some] = -np.inf
        if free is not None:
            total[~free] = -np.inf
        some = [*some, int(np.argmax(total))]
    return some


def information_gains(wins: Array, *, exact: bool) -> Array:
    """[M, M] expected information gain of ASAP, in nats; wins: [M, M] of the row's model.

    Scores N(0, 1/2), noise of variance 1. Here both are halved, which is `arena.image.infer` with rho = 1/2.
    """
    m, (winner, loser) = len(wins), np.nonzero(wins)
    fit = infer(Duels(winner, loser, np.zeros(m), wins[winner, loser]), 0.5, tolerance=1e-6)
    total, shift = 1.0 / fit.variance, fit.mean / fit.variance
    sites = np.zeros((4, m, m))  # of the winner's and the loser's end: precision, precision times mean
    sites[0][winner, loser], sites[1][winner, loser] = fit.sites.precision
    sites[2][winner, loser], sites[3][winner, loser] = fit.sites.shift
    i, j = np.nonzero(~np.eye(m, dtype=bool))
    chance = ndtr((fit.mean[i] - fit.mean[j]) / np.sqrt(fit.variance[i] + fit.variance[j] + 0.5))
    new = np.stack(_site(total[i], shift[i], total[j], shift[j]))
    own, after, moved = np.arange(len(i)), np.tile(total, (len(i), 1)), np.tile(shift, (len(i), 1))
    after[own, i] += new[0]
    after[own, j] += new[1]
    moved[own, i] += new[2]
    moved[own, j] += new[3]
    if exact:
        after, moved = _spread(wins, sites, after, moved, new, i, j)
    mean, variance = moved / after, 1.0 / after
    told = np.log(fit.variance / variance) + (variance + (mean - fit.mean) ** 2) / fit.variance - 1.0
    gains = np.zeros((m, m))
    gains[i, j] = 0.5 * chance * told.sum(axis=1)
    return gains + gains.T


def _site(a: Array, from_a: Array, b: Array, from_b: Array) -> tuple[Array, Array, Array, Array]:
    """Natural parameters that "a beats b" adds to both ends, from those of the cavities."""
    va, vb, ma, mb = 1.0 / a, 1.0 / b, from_a / a, from_b / b
    root = np.sqrt(va + vb + 0.5)
    t = (ma - mb) / root
    mills = inverse_mills(t)
    shrink, pull = mills * (mills + t) / root**2, mills / root
    pa, pb = shrink / (1.0 - va * shrink), shrink / (1.0 - vb * shrink)
    return pa, pb, pa * ma + pull * (1.0 + va * pa), pb * mb - pull * (1.0 + vb * pb)


def _spread(
    wins: Array, sites: Array, after: Array, moved: Array, new: Array, i: Array, j: Array
) -> tuple[Array, Array]:
    """The next sweep of expectation propagation: what touches the two models of the added vote has changed."""
    own, (total, shift) = np.arange(len(i)), (after.copy(), moved.copy())

    def change(rows: Array, winner: Array, loser: Array) -> None:
        """All sites of these cells anew."""
        old, count = sites[:, winner, loser], wins[winner, loser]
        ends = (after[rows, winner] - old[0], moved[rows, winner] - old[2], after[rows, loser] - old[1])
        found = np.stack(_site(*ends, moved[rows, loser] - old[3])) - old
        for target, end, part in ((total, winner, 0), (total, loser, 1), (shift, winner, 2), (shift, loser, 3)):
            np.add.at(target, (rows, end), count * found[part])

    for one, other in ((i, None), (j, i)):
        for turned in (False, True):
            cells = (wins[:, one].T if turned else wins[one]) > 0  # [Q, M] votes of `one` with each model
            if other is not None:
                cells[own, other] = False
            rows, opponent = np.nonzero(cells)
            ends = (one[rows], opponent)
            change(rows, *(ends[::-1] if turned else ends))
    again = np.stack(
        _site(after[own, i] - new[0], moved[own, i] - new[2], after[own, j] - new[1], moved[own, j] - new[3])
    )
    for target, end, part in ((total, i, 0), (total, j, 1), (shift, i, 2), (shift, j, 3)):
        target[own, end] += again[part] - new[part]
    return total, shift


def swiss(runs: int, models: int, size: int, rng: np.random.Generator) -> Rule:
    """Rounds of a Swiss tournament, paired by p(1 - p)."""
    rounds = int(np.ceil(np.log2(models)))
    met = np.zeros((runs, models, models), dtype=bool)
    round_of, planned = np.zeros(runs, dtype=int), [deque[list[int]]() for _ in range(runs)]

    def play(run: int, gains: Array) -> None:
        """Plan a round."""
        if round_of[run] % rounds == 0:
            met[run] = False
        free, i, j = np.ones(models, dtype=bool), *np.triu_indices(models, 1)
        keys = np.where(met[run], gains - 1.0, gains)
        for k in np.argsort(-keys[i, j] * (1.0 + 1e-9 * rng.random(len(i)))):
            if np.count_nonzero(free) < size:
                break
            if free[i[k]] and free[j[k]]:
                some = grown([int(i[k]), int(j[k])], keys, size, free)
                free[some] = False
                met[run][np.ix_(some, some)] = True
                planned[run].append(some)
        round_of[run] += 1

    def choose(run: int, mu: Array, covariance: Array, number: int) -> list[list[int]]:
        chance = ndtr(np.subtract.outer(mu, mu) / C)
        gains, found = chance * (1.0 - chance), []
        while len(planned[run]) < number:
            before = len(planned[run])
            play(run, gains)
            if round_of[run] % rounds == 0:  # the ratings stay, and so do all tournaments to come
                found = [*planned[run]][-(len(planned[run]) - before) * rounds :]
                while len(planned[run]) < number:
                    planned[run].extend(found)
        return [planned[run].popleft() for _ in range(number)]

    return one_by_one(choose)


def ours(runs: int, models: int, size: int, rng: np.random.Generator) -> Rule:
    """What `collect.informed_choice` does with models, of all runs at once."""
    i, j = np.triu_indices(models, 1)
    share, certain, own = pair_share(MODES[size], size), certain_from(models), np.arange(size)

    def propose(active: Array, mu: Array, covariance: Array, number: int) -> Array:
        x, settled, runs_, found = (mu - MU0) / C, covariance / C**2, np.arange(len(active))[:, None], []
        told, now, draw = share * informs(x), settled, 1.0 + 1e-9 * rng.random((len(active), len(i)))
        lead, told_pair = np.abs(x[:, i] - x[:, j]), told[:, i, j]

        def worth(covariance: Array) -> Array:
            diagonal = np.diagonal(covariance, axis1=1, axis2=2)
            variance = diagonal[:, i] + diagonal[:, j] - 2.0 * covariance[:, i, j]
            return vote_gains(lead, variance, told_pair, certain=certain) * draw

        for _ in range(number):
            gains = worth(now)
            if (closed := ~gains.any(axis=1)).any():
                gains[closed] = worth(settled)[closed]
                gains[closed & ~gains.any(axis=1)] = draw[0]  # nothing is open; the truth says otherwise
            first = np.argmax(gains, axis=1)
            some = np.stack([i[first], j[first]], axis=1)
            if size > 2:
                among = np.zeros_like(told)
                among[:, i, j] = among[:, j, i] = gains
            while some.shape[1] < size:
                total = among[runs_, some].sum(axis=1)
                np.put_along_axis(total, some, -1.0, axis=1)
                some = np.append(some, np.argmax(total, axis=1)[:, None], axis=1)
            found.append(some)
            seen = laplacian(told[runs_[:, :, None], some[:, :, None], some[:, None, :]])
            rows = now[runs_, some]
            inner = np.eye(size) + seen @ rows[runs_[:, :, None], own[:, None], some[:, None, :]]
            now = now - rows.transpose(0, 2, 1) @ np.linalg.solve(inner, seen @ rows)
        return np.stack(found, axis=1)

    return propose


RULES: dict[str, Callable[[int, int, int, np.random.Generator], Rule]] = {
    "random": drawn, "fewest": fewest, "ksort": ksort, "asap": asap, "swiss": swiss, "next": ours
}  # fmt: skip


def simulate(name: str, mode: str, rule: str, seeds: int) -> dict[str, Any]:
    """Sets until the order is decided, and until tau is reached, of `seeds` runs side by side; 0: not after `MOST`."""
    began, mu, size = time.process_time(), world(name), SIZES[mode]
    m, share, most = len(mu), row_share(mode, size), limit(name, mode)
    rng = numpy_generator(0, "next set", name, mode, rule)
    truth = np.stack([mu[numpy_generator(seed, "truth", name).permutation(m)] for seed in range(seeds)])
    wins, x, active = np.zeros((seeds, m, m)), np.zeros((seeds, m)), np.arange(seeds)
    propose = RULES[rule](seeds, m, size, rng)
    now = (np.full((seeds, m), MU0), np.tile(SIGMA0**2 * np.eye(m), (seeds, 1, 1)))
    decided, reached, since, held = (np.zeros(seeds, dtype=int) for _ in range(4))
    sets = 0
    while len(active) and sets < most:
        number = max(-(-2 * (m - 1) // (size * (size - 1))), sets // SHARE)
        if hasattr(propose, "counted"):
            propose.counted[active] = wins[active]
        shown = propose(active, *now, number)
        wins[active] += answers(truth[active], shown, rng)
        sets += number
        x[active], precision = fit_orders(wins[active], x[active], share=share)
        now = (MU0 + C * x[active], C * C * np.linalg.inv(precision))
        sure = certain(truth[active], *now)
        decided[active] = np.where((decided[active] == 0) & sure, sets, decided[active])
        good = kendall(truth[active], now[0]) >= TAU - 1e-9
        since[active] = np.where(good & (held[active] == 0), sets, since[active])
        held[active] = np.where(good, held[active] + 1, 0)
        reached[active] = np.where((reached[active] == 0) & (held[active] >= IN_A_ROW), since[active], reached[active])
        going = (decided[active] == 0) | (reached[active] == 0)
        active, now = active[going], (now[0][going], now[1][going])
    return {
        "world": name, "mode": mode, "rule": rule, "seeds": seeds, "decided": decided.tolist(),
        "tau": reached.tolist(), "cpu_seconds": round(time.process_time() - began, 1), "versions": versions(),
    }  # fmt: skip


def answers(truth: Array, shown: Array, rng: np.random.Generator) -> Array:
    """[A, M, M] wins of the row's model in sets [A, S, n]."""
    runs, m = truth.shape
    rows = np.arange(runs)[:, None, None]
    performance = truth[rows, shown] + BETA * rng.standard_normal(shown.shape)
    first, second = np.triu_indices(shown.shape[2], 1)
    a, b = shown[..., first], shown[..., second]
    won = performance[..., first] > performance[..., second]
    keys = (rows * m + np.where(won, a, b)) * m + np.where(won, b, a)
    return np.bincount(keys.ravel(), minlength=runs * m * m).reshape(runs, m, m)


def certain(truth: Array, mu: Array, covariance: Array) -> Array:
    """[A] whether all neighbours that are decided in truth stand in the right order with 95 %."""
    order, rows = np.argsort(-truth, axis=1), np.arange(len(truth))[:, None]
    a, b = order[:, :-1], order[:, 1:]
    asked = truth[rows, a] - truth[rows, b] >= DECIDED - 1e-9
    variance = covariance[rows, a, a] + covariance[rows, b, b] - 2.0 * covariance[rows, a, b]
    lead = mu[rows, a] - mu[rows, b]
    return np.asarray(((lead >= SURE * np.sqrt(variance)) | ~asked).all(axis=1))


def kendall(truth: Array, mu: Array) -> Array:
    """[A] Kendall's tau; no ties."""
    i, j = np.triu_indices(truth.shape[1], 1)
    return np.asarray(np.mean(np.sign(truth[:, i] - truth[:, j]) * np.sign(mu[:, i] - mu[:, j]), axis=1))


def run(job: tuple[str, str, str, int], work: Path) -> dict[str, Any]:
    """One row."""
    return simulate(*job)


def report(rows: list[dict[str, Any]]) -> str:
    """Tables, and where ours is behind a peer beyond doubt; of two rows of a rule the one with more seeds counts."""
    lines, behind = [], []
    for name in WORLDS:
        for mode, size in SIZES.items():
            there = [row for row in rows if (row["world"], row["mode"]) == (name, mode)]
            own = {row["rule"]: row for row in sorted(there, key=lambda row: row["seeds"])}
            if not own:
                continue
            seeds = max(row["seeds"] for row in own.values())
            pairs = size * (size - 1) // 2
            told = "" if pairs == 1 else f"; a set is {pairs} comparisons"
            lines += [
                f"\n### {name}, sets of {size}{told} ({seeds} seeds)\n",
                "| rule | sets until decided | times fewer than random | not decided | sets until tau 0.95 | "
                "times fewer than random | not reached | CPU-s |",
                "|" + "---|" * 8,
            ]
            draws = {rule: {what: means(row, what) for what in ("decided", "tau")} for rule, row in own.items()}
            for rule in RULES:
                if rule not in own:
                    continue
                cells = []
                for what in ("decided", "tau"):
                    values, low, high = shown(draws[rule][what])
                    ratio = ""
                    if "random" in own and rule != "random":
                        ratio = "{:.2f} [{:.2f}, {:.2f}]".format(*shown(draws["random"][what] / draws[rule][what]))
                    censored = f"{own[rule][what].count(0)} of {own[rule]['seeds']}"
                    cells += [f"{values:,.0f} [{low:,.0f}, {high:,.0f}] | {ratio} | {censored}"]
                    if rule != "next" and "next" in own:
                        less = np.quantile(draws["next"][what] - draws[rule][what], (0.025, 0.975))
                        if less[0] > 0:
                            behind.append(f"{name}, sets of {size}, {what}: next is behind {rule}")
                lines.append(f"| {rule} | {' | '.join(cells)} | {own[rule]['cpu_seconds']:.0f} |")
    return "\n".join([*lines, "", *(behind or ["next is behind no rule beyond its interval"])])


def means(row: dict[str, Any], what: str) -> Array:
    """[1 + replicates] the mean over seeds, and its bootstrap; runs that were not done count as `MOST` sets."""
    most = limit(row["world"], row["mode"])
    values = np.where(np.array(row[what]) == 0, most, np.minimum(row[what], most)).astype(float)
    rng = numpy_generator(0, "next set bootstrap", row["world"], row["mode"], row["rule"], what)
    again = values[rng.integers(0, len(values), (REPLICATES, len(values)))].mean(axis=1)
    return np.append(values.mean(), again)


def shown(draws: Array) -> tuple[float, float, float]:
    """A figure and its 95 % interval."""
    low, high = np.quantile(draws[1:], (0.025, 0.975))
    return float(draws[0]), float(low), float(high)


def cost() -> str:
    """CPU of a proposal and the answer to it at 50 models x 1,000 prompts and 20 voters, after some thousand sets."""
    models, prompts, voters, number = 50, 1000, 20, 400
    rng = numpy_generator(0, "next set cost")
    mu = rng.normal(0.0, 2.0, models)
    pictures = [PictureRow(k, k // prompts, k % prompts, "", "", 8, 8) for k in range(models * prompts)]
    lines = ["| purpose | pictures | sets before | mean ms | 95 % | largest |", "|---|---|---|---|---|---|"]
    for purpose, (mode, size), before in itertools.product(("order", "training"), SIZES.items(), (0, 20_000)):
        about = CollectionRecord(
            mode=mode, images=size, questions=(StudyQuestion("overall", "Which?"),), sources=(), purpose=purpose,
            models=tuple(map(str, range(models))), prompts=tuple(map(str, range(prompts))),
        )  # fmt: skip
        chooser, spent = InformedChoice(pictures, about), []
        for k in range(before + number):
            chosen = None
            began = time.process_time()
            if k >= before:
                chosen = chooser.choose(k % voters)
                spent.append(1e3 * (time.process_time() - began))
            drawn_now = rng.permutation(models)[:size] * prompts + rng.integers(prompts)
            held = ShownSet(str(k), k % voters, chosen or tuple(drawn_now.tolist()), "plain", "", 0.0, k)
            if chosen is None:
                chooser.out(held)
            seen = mu[[picture // prompts for picture in held.pictures]] + BETA * rng.standard_normal(size)
            ranks = (1 + np.argsort(np.argsort(-seen))).tolist()
            word = ranks if size > 2 else "left" if ranks[0] == 1 else "right"
            chooser.answered(Answer(k, held.id, 0, json.dumps(word), 0, 0.0, 0, 0, "", ""), held)
        most = f"{np.mean(spent):.2f} | {np.quantile(spent, 0.95):.2f} | {np.max(spent):.2f}"
        lines.append(f"| {purpose} | {size} | {before:,} | {most} |")
    return "\n".join(lines)


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", default=WORLDS, choices=WORLDS)
    parser.add_argument("--modes", nargs="+", default=[*SIZES], choices=[*SIZES])
    parser.add_argument("--rules", nargs="+", default=[*RULES], choices=[*RULES])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--cost", action="store_true")
    asked = parser.parse_args()
    if asked.report:
        print(report(read_all(ROWS)))
    elif asked.cost:
        print(cost())
    else:
        jobs = {
            f"{name}-{mode}-{rule}": (name, mode, rule, asked.seeds)
            for name in asked.worlds for mode in asked.modes for rule in asked.rules
        }  # fmt: skip
        for name, row in run_all(ROWS, missing(ROWS, jobs), run, ROWS, workers=1):
            values = ", ".join(f"{what} {shown(means(row, what))[0]:,.0f}" for what in ("decided", "tau"))
            print(f"{name}: {values}, {row['cpu_seconds']:.0f} CPU-s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
