"""Held-out pairs: which they are, and what the network of a step says of them at fixed levels and noise.

Shapes: P pairs, D draws of a level and a noise for each, B pairs of a batch, C channels, H W latent size.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from finepref.core import rng
from finepref.core.errors import ConfigError, InputError
from finepref.core.interval import Interval
from finepref.core.progress import say
from finepref.data.latents import Latents
from finepref.diffusion.forward import noised
from finepref.diffusion.path import Path as NoisePath
from finepref.evaluate.stats import bootstrap_means, cluster_codes, win_rate
from finepref.formats.cachetables import CachedPair, Pairs
from finepref.formats.heldout import Agreement, Floats, HeldOutBucket, HeldOutMetrics
from finepref.formats.preferences import read_pair_ids, winner_of
from finepref.objectives.core import mean_square, wide
from finepref.train.batches import Draw, Drawing, PairSource, of_one_bucket
from finepref.train.config import RunConfig
from finepref.train.data import PairTable, voted_table, votes_of
from finepref.train.levels import windowed

if TYPE_CHECKING:
    from finepref.train.state import Run, State


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class HeldOutPairs:
    """ids: of all pairs that are held out. table: those of them that were decided. agreement: of voters on all data.

    winners: of every decided pair of the data, the image that was voted for; empty where the votes are the signal.
    """

    ids: frozenset[str]
    table: PairTable
    agreement: Agreement
    winners: Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class UnseenPairs:
    """The held-out pairs of a run as draws: how often each is looked at, and how far voters agree on the data.

    signal: share of the pairs that are trained on whose winner is the voters', where a file says who wins.
    """

    source: PairSource
    draws: int
    agreement: Agreement
    signal: Interval | None


def hold_out(config: RunConfig, cache: Latents) -> HeldOutPairs | None:
    """The pairs of the data that a run does not train on; None where it trains on all.

    Raises:
        ConfigError, InputError: as `held_out_ids`; not one of them was decided, or early stopping cannot go by them.
    """
    ids, stop = held_out_ids(config, cache.pairs), config.train.stop
    if stop is not None and not (ids and config.validation.every):
        what = "it goes by held-out pairs, which are looked at while the run goes on"
        remedy = "set validation.every, and data.validation_share or validation.pairs"
        raise ConfigError(what, where="train.stop", remedy=remedy)
    if not ids:
        return None
    named, labels = votes_of(cache, [*config.data.paths, *config.validation.pairs], config.data.reading())
    table = voted_table(cache.pairs, ids, named=named, labels=labels, swap=config.signal.swap)
    return HeldOutPairs(
        ids=ids,
        table=table,
        agreement=voters_agree(cache.pairs, named, labels),
        winners=dict(_decided(cache.pairs, named, labels)) if config.signal.file is not None else {},
    )


def _decided(pairs: Pairs, named: Sequence[str], labels: Floats) -> Iterator[tuple[str, str]]:
    """(id, image that was voted for) of every vote on a cached pair that decided it."""
    for pair_id, label in zip(named, labels, strict=True):
        winner = winner_of(label)
        if winner is not None and pair_id in pairs:
            yield pair_id, (pairs[pair_id].image_0, pairs[pair_id].image_1)[winner]


def unseen_pairs(held: HeldOutPairs | None, config: RunConfig, drawing: Drawing, table: object) -> UnseenPairs | None:
    """The held-out pairs, drawn without flips, and always with their prompts; table: what is trained on."""
    if held is None:
        return None
    source = PairSource(drawing=replace(drawing, prompt_dropout=0.0, flip=False), table=held.table, guidance=False)
    agrees = None
    if config.signal.file is not None and isinstance(table, PairTable):
        agrees = signal_agrees(table, held.winners, swap=config.signal.swap)
    return UnseenPairs(source=source, draws=config.validation.draws, agreement=held.agreement, signal=agrees)


def signal_agrees(table: PairTable, winners: Mapping[str, str], *, swap: bool) -> Interval | None:
    """Share of pairs whose winner by the signal is the one that was voted for, with an interval over prompts.

    winners: of every decided pair the image that was voted for. swap: the table has losers as winners. None where
    nobody decided one of its pairs.
    """
    rows = [row for row, pair_id in enumerate(table.pair_id) if pair_id in winners]
    if not rows:
        return None
    voted = table.loser if swap else table.winner
    same = [1.0 if voted[row] == winners[table.pair_id[row]] else -1.0 for row in rows]
    return win_rate(same, cluster_codes([table.prompt[row] for row in rows]))


def held_out_ids(config: RunConfig, pairs: Pairs) -> frozenset[str]:
    """The pairs that are not trained on: those of `validation.pairs`, or of whole prompts (`data.validation_share`).

    Prompts are taken in an order that is a function of each alone. Of the same two images everything is held out.

    Raises:
        ConfigError: both are asked for, or a share of pairs that all have one prompt.
        InputError: no usable pair is in the files.
    """
    share, files = config.data.validation_share, config.validation.pairs
    if files and share:
        raise ConfigError("validation.pairs says which pairs", where="data.validation_share", remedy="0, or no pairs")
    if files:
        return _of_files(pairs, read_pair_ids(*files, reading=config.data.reading())[0], where=", ".join(files))
    if not share:
        return frozenset()
    count = Counter(pair.prompt for _, pair in pairs.rows())
    if len(count) < 2:
        what = "all pairs have one prompt, and pairs are held out by prompt"
        raise ConfigError(what, where="data.validation_share", remedy="0, or name validation.pairs")
    ordered = sorted(count, key=lambda prompt: (rng.uniform(0, "held out", prompt), prompt))
    held, prompts = 0, set[str]()
    for prompt in ordered[:-1]:
        if held >= share * len(pairs):
            break
        held += count[prompt]
        prompts.add(prompt)
    return frozenset(each for each, pair in pairs.rows() if pair.prompt in prompts)


def _of_files(pairs: Pairs, named: Sequence[str], *, where: str) -> frozenset[str]:
    """The cached pairs that show the same two images as one of the named ones."""
    shown = {_content(pairs[each]) for each in named if each in pairs}
    if not shown:
        raise InputError("not one of its pairs could be used", where=where, remedy="see `finepref data validate`")
    found = frozenset(each for each, pair in pairs.rows() if _content(pair) in shown)
    prompts = {pairs[each].prompt for each in found}
    both = {pair.prompt for each, pair in pairs.rows() if each not in found} & prompts
    if both:
        say(f"{len(both)} of {len(prompts)} held-out prompts are trained on too, with other pictures")
    return found


def _content(pair: CachedPair) -> tuple[str, ...]:
    return (pair.prompt, *sorted((pair.image_0, pair.image_1)))


def voters_agree(pairs: Pairs, named: Sequence[str], labels: Floats) -> Agreement:
    """How often two voters who decided the same pair of images said the same."""
    said: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
    for pair_id, image in _decided(pairs, named, labels):
        content = _content(pairs[pair_id])
        said[content][int(image == content[2])] += 1
    several = [counts for counts in said.values() if sum(counts) > 1]
    agree = sum(k * (k - 1) for counts in several for k in counts)
    both = sum(sum(counts) * (sum(counts) - 1) for counts in several)
    return Agreement(pairs=len(several), share=agree / both if both else float("nan"))


def evaluate(run: Run, state: State) -> Floats:
    """[P,D,4]: errors of winner and loser, and mean squares of the predictions, at the fixed draws; on all processes.

    Level d of a pair lies in the d-th of D equal parts of what training draws from.
    """
    held, world = run.heldout, run.world
    assert held is not None
    draws = [Draw(row, visit) for row in range(len(held.source.table.pair_id)) for visit in range(held.draws)]
    mine = range(len(draws)) if run.sharded else range(world.rank, len(draws), world.size)
    found = torch.zeros(len(draws), 4, dtype=torch.float64, device=world.device)
    size = run.config.train.micro_batch  # whose predictions with gradients fit, so these do
    run.adapter.train_mode(False)
    with torch.no_grad(), as_left(state):
        for rows in of_one_bucket(draws, mine, held.source.table, size=size):
            found[torch.tensor(rows, device=world.device)] = _said(run, held, [draws[row] for row in rows])
    run.adapter.train_mode(True)
    together = found if run.sharded else world.sum(found)
    return together.cpu().numpy().reshape(-1, held.draws, 4)


def _said(run: Run, held: UnseenPairs, drawn: list[Draw]) -> Tensor:
    """[B,4] of some draws."""
    seed, adapter, path = run.config.train.seed, run.adapter, run.adapter.path
    batch = held.source.batch(drawn)
    t = _levels(run, batch.pair_id, batch.visit, held.draws, path).to(batch.x0_w.device)
    noise = rng.normals(seed, "noise", batch.pair_id, batch.visit, batch.x0_w.shape[1:]).to(batch.x0_w.device)
    placed = noised(batch.x0_w, batch.x0_l, t, noise, noise, path=path)
    cond = {name: torch.cat([batch.cond_w[name], batch.cond_l[name]]) for name in batch.cond_w}
    both = wide(adapter.policy(torch.cat([placed.xt_w, placed.xt_l]), torch.cat([t, t]), cond))
    of_w, of_l = both.split(len(drawn))
    nothing = torch.zeros_like(of_w)
    targets = ((of_w, placed.target_w), (of_l, placed.target_l), (of_w, nothing), (of_l, nothing))
    return torch.stack([mean_square(*each) for each in targets], dim=1).double()


def _levels(run: Run, ids: tuple[str, ...], visits: tuple[int, ...], draws: int, path: NoisePath) -> Tensor:
    share = torch.from_numpy((np.array(visits) + rng.uniforms(run.config.train.seed, "t", ids, visits)) / draws)
    if run.method.levels is not None:
        share = windowed(share, run.method.levels, path)
    return path.draw_t(share)


@contextmanager
def as_left(state: State) -> Iterator[None]:
    """The network with the weights that a run would leave now: their average, where it keeps one."""
    if state.average is None:
        yield
        return
    own = {name: parameter.detach().clone() for name, parameter in state.named}
    _put(state, state.average)
    try:
        yield
    finally:
        _put(state, own)


def _put(state: State, values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in state.named:
            parameter.copy_(values[name])


def summarise(run: Run, said: Floats, start: Floats, *, step: int) -> HeldOutMetrics:
    """The line of heldout.jsonl of an evaluation; intervals are over prompts.

    start: [P,D,4], what `evaluate` gave before the first step.
    """
    held = run.heldout
    assert held is not None
    table = held.source.table
    prompts = cluster_codes(table.prompt)
    gains = start[..., :2] - said[..., :2]  # [P,D,2]
    lead = gains[..., 0] - gains[..., 1]
    columns = np.stack([lead.mean(1), *gains.mean(1).T], axis=1)
    if np.isfinite(columns).all():
        means = list(bootstrap_means(columns, prompts))
        accuracy = win_rate(lead.mean(1), prompts)
    else:  # a prediction overflowed: nothing can be said of the pairs together
        accuracy, *means = [Interval(math.nan, math.nan, math.nan)] * 4
    parts = np.array_split(np.arange(held.draws), min(run.config.log.t_buckets, held.draws))
    beta = run.method.options.get("beta")
    with np.errstate(invalid="ignore", over="ignore"):
        return HeldOutMetrics(
            step=step,
            pairs=len(table.pair_id),
            prompts=len({*table.prompt}),
            accuracy=accuracy,
            lead=means[0],
            gain_w=means[1],
            gain_l=means[2],
            gain_far=float(gains[:, held.draws // 2 :, 0].mean()),
            fit=None if beta is None else float(np.logaddexp(0, -beta / 2 * lead).mean()),
            length=float(np.sqrt(said[..., 2:].mean() / start[..., 2:].mean())),
            by_t=tuple(
                HeldOutBucket(
                    accuracy=float((np.sign(lead[:, part].mean(1)) / 2 + 0.5).mean()),
                    gain_w=float(gains[:, part, 0].mean()),
                    gain_l=float(gains[:, part, 1].mean()),
                )
                for part in parts
            ),
        )
