"""Makers and voters -> `votes.parquet` in exactly the Pick-a-Pic v2 schema."""

from __future__ import annotations

import io
import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from finepref.core import provenance, rng
from finepref.core.errors import InputError
from finepref.core.files import write_parquet
from finepref.core.progress import say
from finepref.formats.pickapic import pickapic_table, shown_images, tie_share
from finepref.lab import crowd as voters
from finepref.lab import makers, model, world

EPOCH = np.datetime64("2026-01-01T00:00:00", "ns")


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def pairs(prompts: int, per_prompt: int, votes: int, *, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which images meet: left and right numbers [votes]; image number = prompt * per_prompt + maker.

    Every pair of images of a prompt comes up equally often (up to one), sides and order are random.
    """
    draws = rng.numpy_generator(seed, "lab pairs")
    inner = np.array(list(itertools.combinations(range(per_prompt), 2)))
    every = (inner[None] + per_prompt * np.arange(prompts)[:, None, None]).reshape(-1, 2)
    rounds = -(-votes // len(every))
    chosen = np.concatenate([draws.permutation(every) for _ in range(rounds)])[:votes]
    chosen = draws.permutation(draws.permuted(chosen, axis=1))
    return chosen[:, 0], chosen[:, 1]


@dataclass(frozen=True, slots=True)
class Ballots:
    """Votes on images: N = n prompts x makers images [N,32,32,3], M votes.

    left, right: [M] image numbers. voter: [M]. share: [M] 1 left won, 0 right won, 0.5 tie.
    """

    images: NDArray[np.uint8]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    voter: NDArray[np.int64]
    share: NDArray[np.float64]


def cast(images: Mapping[str, NDArray[np.uint8]], prompts: Sequence[str], *, seed: int, votes: int) -> Ballots:
    """Let the voters vote on images that are there.

    Args:
        images: maker -> [n,32,32,3], one image a prompt.
        prompts: the n prompts.
        seed: decides pairs, voters and their noise.
        votes: number of votes.
    """
    flat = np.stack(list(images.values()), axis=1).reshape(-1, world.SIZE, world.SIZE, 3)
    asked = [prompt for prompt in prompts for _ in images]
    left, right = pairs(len(prompts), len(images), votes, seed=seed)
    voter, share = voters.vote(voters.crowd(seed), world.judge(flat, asked), left, right, seed=seed)
    return Ballots(flat, left, right, voter, share)


def vote_table(images: Mapping[str, NDArray[np.uint8]], prompts: Sequence[str], *, seed: int, votes: int) -> pa.Table:
    """The votes of `cast` as a table in `pickapic.SCHEMA`; arguments as there."""
    return ballot_table(cast(images, prompts, seed=seed, votes=votes), list(images), prompts, seed=seed)


def ballot_table(ballots: Ballots, names: Sequence[str], prompts: Sequence[str], *, seed: int) -> pa.Table:
    """Votes as a table in `pickapic.SCHEMA`. names: of the makers, one image of each a prompt. seed: names images."""
    flat, left, right = ballots.images, ballots.left, ballots.right
    asked = [prompt for prompt in prompts for _ in names]
    data = [_png(image) for image in flat]
    uid = [str(uuid.UUID(int=rng.key(seed, "lab image", i))) for i in range(len(flat))]
    per_prompt = np.bincount(left // len(names), minlength=len(prompts))

    def sides(of_image: Callable[[int], str | bytes]) -> tuple[list[Any], list[Any]]:
        """What the two images of every vote are."""
        return [of_image(i) for i in left], [of_image(i) for i in right]

    return pickapic_table(
        share=ballots.share, caption=[asked[a] for a in left], user_id=1 + ballots.voter,
        created_at=EPOCH + np.arange(len(left)) * np.timedelta64(37, "s"), per_prompt=per_prompt[left // len(names)],
        uid=sides(lambda i: uid[i]), url=sides(lambda i: f"lab:{uid[i]}"), jpg=sides(lambda i: data[i]),
        model=sides(lambda i: names[i % len(names)]),
    )  # fmt: skip


def make_votes(
    out: str | Path,
    *,
    seed: int = 0,
    votes: int = 4_200,
    prompts: Sequence[str] | None = None,
    makers_used: Sequence[makers.Maker] = makers.MAKERS,
) -> pa.Table:
    """Make images with every maker, let the voters vote, and write the votes.

    Args:
        out: the parquet file, in the Pick-a-Pic v2 schema.
        seed: decides every draw; the same seed gives the same file content.
        votes: number of votes.
        prompts: prompts of the world; the training prompts when not given.
        makers_used: at least two.

    Returns:
        The table as written.

    Raises:
        InputError: fewer than two makers, no prompt, or less than one vote.
    """
    asked = list(world.prompts("train") if prompts is None else prompts)
    if len(makers_used) < 2 or not asked or votes < 1:
        raise InputError(f"{len(makers_used)} makers, {len(asked)} prompts, {votes} votes are too few to vote on")
    variants = sorted({maker.variant for maker in makers_used})
    pipelines = {variant: model.pipeline(variant) for variant in variants}
    images = makers.make_images(pipelines, asked, seed=seed, makers=makers_used)
    table = vote_table(images, asked, seed=seed, votes=votes)
    meta = {
        "what": voters.VOTES,
        "seed": seed,
        "votes": votes,
        "prompts": len(asked),
        "makers": [[m.name, m.variant, m.guidance, m.steps] for m in makers_used],
        "weights": {variant: model.fingerprint(variant) for variant in variants},
        "versions": provenance.versions(),
    }
    write_parquet(out, table, meta)
    shown, made, ties = shown_images(table), len(asked) * len(makers_used), tie_share(table)
    say(f"{votes} votes on {shown} of {made} images of {len(makers_used)} makers, {ties:.0%} ties")
    return table
