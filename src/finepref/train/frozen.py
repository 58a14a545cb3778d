"""What the frozen reference does with every draw of a run's plan, kept on disk so that no run asks it again.

One cache with two kinds of content, keyed by (pair_id, visit). `errors`: its mean-square errors of winner and loser.
`noise`: where its inversion put them, as the noise tau that explains the point, x_t = a(t) x0 + b(t) tau: of order 1 at
every level, so that half storage costs as little near the data as far from it.

Shards of `SHARD` draws of the seeded global order, each written whole; a record beside them says what they are of.
Shapes: B draws, K levels that share a trajectory, C channels, h w latent size.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from finepref.core.errors import InputError
from finepref.core.outfolders import FolderKind, check_folder, own_folder, recover, replacing
from finepref.core.progress import progress
from finepref.core.tensors import PairBatch
from finepref.data.shards import STORAGE, ShardSet, read_index, write_shard
from finepref.formats.cache import SHARD as NAME
from finepref.formats.folders import REFERENCE, TRAJECTORIES
from finepref.formats.frozenfolder import DRAWS, FrozenRecord, draws_table, places, read_frozen, write_frozen
from finepref.formats.hashcolumns import numbered
from finepref.objectives.core import mean_square
from finepref.train.batches import Draw, of_one_bucket
from finepref.train.placement import place
from finepref.train.step import Calls

if TYPE_CHECKING:
    from finepref.train.state import Run

SHARD = 1024
FILL = "fill it with `finepref cache -c run.yaml --reference`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A kind of content. option: of the config, names the folder. record: the file that says what the shards are of.

    tensor: name of what is kept, with _w and _l. folder: the kind of folder.
    """

    name: str
    option: str
    record: str
    tensor: str
    folder: FolderKind


ERRORS = Content(
    name="reference errors", option="reference_cache", record="reference.json", tensor="error", folder=REFERENCE
)
NOISE = Content(
    name="inversions by the reference", option="trajectory_cache", record="trajectories.json", tensor="tau",
    folder=TRAJECTORIES,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FillSummary:
    """What filling cost: draws of the plan, draws and reference images computed now, seconds of all processes."""

    folder: str
    draws: int
    computed: int
    images: int
    device_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class FrozenCache:
    """row: (pair id, visit) -> row of the shards. device_seconds: what filling it cost."""

    folder: Path
    row: dict[tuple[str, int], int]
    shards: ShardSet
    device_seconds: float
    content: Content

    def read(self, pair_id: Sequence[str], visit: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What is kept of winners and losers of some draws, float32 on the CPU: errors [B], or tau [B,K,C,h,w].

        Raises:
            InputError: a draw that the cache does not hold.
        """
        rows = [self.row.get(key, -1) for key in zip(pair_id, visit, strict=True)]
        if -1 in rows:
            place = rows.index(-1)
            what = f"visit {visit[place]} of pair {pair_id[place]} is not in it"
            raise InputError(what, where=self.folder, remedy=FILL)
        held = self.shards.gather(np.array(rows, dtype=np.int64))
        return held[f"{self.content.tensor}_w"].float(), held[f"{self.content.tensor}_l"].float()


def open_frozen(folder: str | Path, content: Content, *, identity: str, draws: int) -> FrozenCache:
    """Open a filled cache; tensors stay on the disk until they are asked for.

    Args:
        identity: of what the run would compute. draws: how many draws of the plan will be asked for.

    Raises:
        InputError: it is not there, it was filled for something else, or it does not hold them all.
    """
    folder = Path(folder)
    if not (folder / content.record).is_file():
        raise InputError(f"there are no {content.name} in it", where=folder, remedy=FILL)
    spent = _spent(folder, content, identity, remedy=f"{FILL}, or set train.{content.option} to null")
    index = read_index(folder, DRAWS.schema)
    missing = missing_shards(_counts(index), draws)
    if missing:
        raise InputError(f"draws from {missing[0] * SHARD} on are not in it", where=folder, remedy=FILL)
    lines, shards, rows = places(index)
    names = [f"{content.tensor}_{side}" for side in "wl"]
    held = ShardSet(folder, *numbered(shards), np.asarray(rows, np.int64), needs=names)
    return FrozenCache(folder, lines, held, spent, content)


def fill_frozen(run: Run, folder: Path, content: Content, *, identity: str, overwrite: bool) -> FillSummary:
    """Compute what the plan of a run lacks, shard by shard; what was written stays when it is killed.

    Raises:
        InputError: the folder holds something else, or content of another seed, data set, reference or draw plan.
    """
    world, kind = run.world, content.folder

    def is_begun(place: Path) -> bool:
        return any(place.glob("draws-*.parquet"))

    check_folder(folder, kind)
    world.barrier()  # every process has looked
    if world.main:
        recover(folder, kind, begun=is_begun)
    last = shard_name((run.config.train.max_steps * run.draws - 1) // SHARD)
    again = replacing(
        folder, kind, again=overwrite and world.main, begun=is_begun,
        whole=lambda place: (place / f"{last}.parquet").is_file(),
    )  # fmt: skip
    with own_folder(folder, kind, part=str(world.rank), fingerprint=identity), again if world.main else nullcontext():
        return _fill(run, folder, content, identity=identity)


def _fill(run: Run, folder: Path, content: Content, *, identity: str) -> FillSummary:
    world, draws = run.world, run.config.train.max_steps * run.draws
    world.barrier()
    spent, held = 0.0, {}
    if (folder / content.record).is_file():
        spent = _spent(folder, content, identity, remedy="name another folder, or --overwrite")
        held = _counts(read_index(folder, DRAWS.schema))
    missing = missing_shards(held, draws)
    world.barrier()  # nothing is written before every process has looked
    run.adapter.train_mode(True)  # the mode it will be asked in: some kernels depend on it
    began, calls = time.perf_counter(), {"inversion": 0, "reference": 0}
    alone = content is NOISE  # a process makes whole shards; else, as sharded networks need, they share each

    def record() -> float:
        seconds = (time.perf_counter() - began) * world.size
        if world.main and missing:
            write_frozen(folder / content.record, FrozenRecord(identity=identity, device_seconds=spent + seconds))
        return seconds

    own = missing[world.rank :: world.size] if alone else missing
    for number in progress(own, f"{content.name} {folder.name}", unit="shard", hidden=not world.main):
        positions = range(number * SHARD, min(draws, (number + 1) * SHARD))
        order = run.source.order(step=number, per_step=SHARD)[: len(positions)]
        share = (0, 1) if alone else (world.rank, world.size)
        found = _compute(run, content, positions, order, share=share, calls=calls)
        record()
        if world.main or alone:
            index = draws_table([(run.source.table.ids[draw.index], draw.visit) for draw in order])
            dtype = torch.float32 if content is ERRORS else STORAGE[run.config.cache.dtype]
            stored = {
                f"{content.tensor}_{side}": value.to("cpu", dtype) for side, value in zip("wl", found, strict=True)
            }
            write_shard(folder, shard_name(number), stored, index)
    world.barrier()  # before a sum, which would not wait long
    images = int(world.sum(torch.tensor([sum(calls.values())], device=world.device)))
    computed = sum(min(SHARD, draws - number * SHARD) for number in missing)
    return FillSummary(folder=str(folder), draws=draws, computed=computed, images=images, device_seconds=record())


@torch.no_grad()
def _compute(
    run: Run, content: Content, positions: range, order: Sequence[Draw], *, share: tuple[int, int], calls: Calls
) -> tuple[Tensor, Tensor]:
    """The content of some draws of the global order, [B,...] for winners and losers.

    share: this process and how many work on them. Each makes equally many network calls (a shorter share repeats its
    last draw), as sharded networks need.
    """
    (rank, processes), size, per_step = share, run.config.train.place_batch, run.draws
    found: list[Tensor] | None = None
    for step in range(positions.start // per_step, -(-positions.stop // per_step)):  # draws of a step share strata
        inside = [p - positions.start for p in positions if p // per_step == step]
        row_of = [inside[min(k, len(inside) - 1)] for k in range(-(-len(inside) // processes) * processes)]
        own = range(rank, len(row_of), processes)
        for part in of_one_bucket([order[row] for row in row_of], own, run.source.table, size=size):
            rows = [row_of[k] for k in part]
            places = [positions[row] - step * per_step for row in rows]
            sides = _of_reference(run, content, [order[row] for row in rows], step=step, positions=places, calls=calls)
            if found is None:
                found = [torch.zeros((len(order), *side.shape[1:]), device=run.world.device) for side in sides]
            mine = [at for at, k in enumerate(part) if k < len(inside)]
            for whole, side in zip(found, sides, strict=True):
                whole[[rows[at] for at in mine]] = side[mine].to(whole.dtype)
    assert found is not None
    return (found[0], found[1]) if processes == 1 else (run.world.sum(found[0]), run.world.sum(found[1]))


def _of_reference(
    run: Run, content: Content, drawn: Sequence[Draw], *, step: int, positions: Sequence[int], calls: Calls
) -> tuple[Tensor, Tensor]:
    """Errors [B] or noise tau [B,K,C,h,w] of winners and losers."""
    batch, adapter, method = run.source.batch(drawn), run.adapter, run.method
    assert isinstance(batch, PairBatch)
    placed = place(run, batch, run.levels(batch, step=step, positions=positions), calls=calls)
    if content is NOISE:
        sides = ((batch.x0_w, placed.xt_w), (batch.x0_l, placed.xt_l))
        share, path = method.share, adapter.path
        tau = [path.implied_noise(x0.repeat_interleave(share, dim=0), x_t, placed.t) for x0, x_t in sides]
        return tau[0].unflatten(0, (-1, share)), tau[1].unflatten(0, (-1, share))
    x, t = torch.cat([placed.xt_w, placed.xt_l]), torch.cat([placed.t, placed.t])
    cond = {name: torch.cat([batch.cond_w[name], batch.cond_l[name]]) for name in batch.cond_w}
    calls["reference"] += len(x)
    ref_w, ref_l = adapter.reference(x, t, cond).chunk(2)
    return mean_square(ref_w, placed.target_w), mean_square(ref_l, placed.target_l)


def shard_name(number: int) -> str:
    """The name of the shard with draws number * SHARD on."""
    return f"draws-{number:09d}"


def missing_shards(held: Mapping[str, int], draws: int) -> list[int]:
    """Numbers of the shards that a plan of so many draws needs and that are not there, or not with all their draws."""
    numbers = range(-(-draws // SHARD))
    return [number for number in numbers if held.get(shard_name(number), 0) < min(SHARD, draws - number * SHARD)]


def _counts(index: pa.Table) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in index[NAME].value_counts().to_pylist()}


def _spent(folder: Path, content: Content, identity: str, *, remedy: str) -> float:
    """The device seconds that the content cost so far; refuses that of something else."""
    record = read_frozen(folder / content.record)
    if record.identity != identity:
        what = "it was filled for another seed, data set, reference, trajectory or draw plan"
        raise InputError(what, where=folder, remedy=remedy)
    return record.device_seconds
