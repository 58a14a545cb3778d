"""What all runs of a seed share: votes, latent cache, rewards; and the signals that arms take from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finepref.arena.engines import rate
from finepref.core.files import read_json, read_parquet, write_json, write_parquet
from finepref.core.images import open_rgb
from finepref.core.provenance import hash_config
from finepref.core.rng import numpy_generator
from finepref.evaluate.scored_pairs import score_preferences
from finepref.evaluate.scorers.scorer_rows import make
from finepref.formats.preferences import ImageRef, read_preferences
from finepref.formats.rewards import Rewards, read_rewards
from finepref.formats.signals import Signals, write_signals
from finepref.formats.votes import Votes
from finepref.lab import crowd as voters
from finepref.lab import model, world
from finepref.lab.ballots import make_votes
from finepref.signals.control import controlled
from finepref.signals.kinds import SIGNALS
from finepref.signals.make import combine, signals_of, vote_table
from finepref.signals.parts import Part, SignalVotes
from finepref.study.design import TRUTH, Arm, Data
from finepref.train.config import load_config
from finepref.train.opened import make_cache
from finepref.train.processes import launched

Floats = npt.NDArray[np.float64]
ONLINE = frozenset({"paper"})
"""Kinds whose ratings are K-Sort Arena's, vote by vote, as ArenaPO has them; the others use the batch engine."""


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """Votes of a seed as arrays: M votes on N images. left, right: [M] image numbers; prompts: [N]."""

    table: SignalVotes
    images: npt.NDArray[np.uint8]
    prompts: tuple[str, ...]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]


def make_ground(folder: Path, *, seed: int, data: Data) -> None:
    """Votes, cache and rewards of a seed, in `folder`; nothing is done where they are there.

    The folder belongs to this function: what was made with other weights or settings is made again.
    """
    wanted = {"seed": seed, "votes": data.votes, "prompts": data.prompts, "weights": lab_fingerprint()}
    record = folder / "ground.json"
    if record.is_file() and read_json(record) == wanted:
        return
    votes = folder / "votes.parquet"
    make_votes(votes, seed=seed, votes=data.votes, prompts=world.prompts("train")[: data.prompts])
    config = load_config("lab/dpo", [f"data.paths=[{votes}]"])
    make_cache(config, folder / "cache", world=launched(), overwrite=True)
    rewards = folder / "rewards.parquet"
    score_preferences(read_preferences([votes]), [make("lab-reward")], rewards, inputs=[votes], overwrite=True)
    for old in [*(folder / "signals").glob("*.parquet"), *(folder / "rewards").glob("*.parquet")]:
        old.unlink()
    write_json(record, wanted)


@lru_cache(maxsize=1)
def lab_fingerprint() -> str:
    """Hash of everything that the lab ships: both models, reward, world."""
    names = [(scorer.name, scorer.fingerprint) for scorer in map(make, ("lab-reward", "lab-true"))]
    return hash_config({"models": [model.fingerprint(variant) for variant in model.VARIANTS], "scorers": names})[:16]


@lru_cache(maxsize=2)
def read_ground(folder: Path) -> Ground:
    """The votes of `make_ground` with their images."""
    prefs = read_preferences([folder / "votes.parquet"])
    votes, table = list(prefs), vote_table(prefs, named_images=False)
    shown = [(vote.image_0, vote.prompt) for vote in votes] + [(vote.image_1, vote.prompt) for vote in votes]
    content: dict[str | None, tuple[ImageRef, str]] = {}
    for image, prompt in shown:
        content.setdefault(image.uid, (image, prompt))
    number = {uid: i for i, uid in enumerate(content)}
    pixels = [np.asarray(open_rgb(image.read())) for image, _ in content.values()]
    return Ground(
        table=table,
        images=np.stack(pixels),
        prompts=tuple(prompt for _, prompt in content.values()),
        left=np.array([number[uid] for uid in table.image_0]),
        right=np.array([number[uid] for uid in table.image_1]),
    )


def labels(ground: Ground, *, seed: int, noise: float) -> Floats:
    """The votes had the voters' noise been `noise` times what it is: same pairs, voters, tastes, draws; [M]."""
    crowd = voters.crowd(seed)
    crowd = replace(crowd, noise=noise * crowd.noise)
    return voters.vote(crowd, world.judge(ground.images, ground.prompts), ground.left, ground.right, seed=seed)[1]


def agreement(ground: Ground, label: Floats) -> float:
    """Share of decided votes that agree with the true quality."""
    truth = world.judge(ground.images, ground.prompts).quality
    difference = truth[ground.left] - truth[ground.right]
    decided = (label != 0.5) & (difference != 0)
    return float(((difference > 0) == (label == 1.0))[decided].mean())


def signal_file(folder: Path, arm: Arm, *, seed: int, reward_steps: int) -> Path:
    """The sidecar of an arm, made where it is missing; arms of equal signal share it."""
    options = arm.signal_options()
    settings = {"kinds": arm.kinds, "options": options, "noise": arm.noise, "reward": [arm.reward, reward_steps]}
    settings |= {"control": arm.control} if arm.control else {}
    out = folder / "signals" / f"{'-'.join(arm.kinds)}-{hash_config(settings)[:12]}.parquet"
    if out.is_file():
        return out
    ground = read_ground(folder)
    table = ground.table
    if arm.noise != 1.0:
        table = replace(table, label=labels(ground, seed=seed, noise=arm.noise))
    if TRUTH in arm.kinds:
        made = _truth(ground, table)
    else:
        needs = {need for kind in arm.kinds for need in (*SIGNALS[kind].needs, *SIGNALS[kind].takes)}
        rewards = _rewards(folder, ground, table, arm, seed=seed, steps=reward_steps) if "rewards" in needs else None
        ratings = _ratings(table, arm.kinds) if "ratings" in needs else None
        made = signals_of(table, arm.kinds, options=options, ratings=ratings, rewards=rewards)
    made = made if arm.control is None else controlled(made, arm.control, seed=seed)
    write_signals(out, made, provenance={"settings": settings, "agreement": agreement(ground, table.label)})
    return out


def _truth(ground: Ground, table: SignalVotes) -> Signals:
    """max(0, q_w - q_l) as the margin, with the mean of the paper's gaps."""
    quality = world.judge(ground.images, ground.prompts).quality
    lead = quality[ground.left] - quality[ground.right]
    paper = signals_of(table, ["paper"], ratings=_ratings(table, ["paper"]))
    plain = combine(
        table.pair_id, table.label, {TRUTH: Part(margin_0=np.maximum(lead, 0), margin_1=np.maximum(-lead, 0))}
    )
    scale = np.float32(paper.margin.mean() / plain.margin.mean())
    return replace(plain, margin_0=scale * plain.margin_0, margin_1=scale * plain.margin_1)


def _ratings(table: SignalVotes, kinds: Sequence[str]) -> Any:
    votes = Votes.from_columns(
        left=list(table.model_0), right=list(table.model_1), outcome=table.label,
        left_image=list(table.image_0), right_image=list(table.image_1),
    )  # fmt: skip
    return rate(votes, engine="online" if set(kinds) & ONLINE else "batch")


def _rewards(folder: Path, ground: Ground, table: SignalVotes, arm: Arm, *, seed: int, steps: int) -> Rewards:
    """The shipped reward's scores, or those of a reward that learned from the arm's own votes alone."""
    if arm.reward != "own":
        shipped = read_rewards(folder / "rewards.parquet", table.pair_id)
        return shipped if arm.reward == "shipped" else _dealt(shipped, ground, seed=seed)
    file = folder / "rewards" / f"noise-{arm.noise:g}-{steps}.parquet"
    if not file.is_file():
        from finepref.lab.reward import scoring_function, train_reward

        net = train_reward(
            ground.images, ground.prompts, ground.left, ground.right, table.label, seed=seed, steps=steps
        )
        scores = scoring_function(net.state_dict())(ground.images, ground.prompts)
        write_parquet(file, pa.table({"score": scores}))
    scores = read_parquet(file)["score"].to_numpy()
    return Rewards(scores[ground.left], scores[ground.right], f"own reward, noise {arm.noise:g}", str(steps))


def _dealt(rewards: Rewards, ground: Ground, *, seed: int) -> Rewards:
    """Every image has the score of another one."""
    score = np.full(len(ground.prompts), np.nan)
    score[ground.left], score[ground.right] = rewards.score_0, rewards.score_1
    score = score[numpy_generator(seed, "wrong reward").permutation(len(score))]
    return replace(rewards, score_0=score[ground.left], score_1=score[ground.right], scorer="wrong reward")
