"""The processes of a run: started by torchrun, `accelerate launch` or srun, or one alone.

FSDP2: policy, gradients, optimiser state and frozen reference in shards over them, as DTensors. Every process must then
make the same network calls in the same order, because each call gathers blocks from all. Checkpoints and what a run
leaves hold whole tensors, as without sharding.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import DistError, PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor, distribute_tensor

from finepref.core.device import default_device, launched_as, own_device, use_device
from finepref.core.errors import CheckFailed, ConfigError, InputError, first_line
from finepref.core.progress import say
from finepref.models.denoiser import Denoiser
from finepref.train.config import RunConfig
from finepref.train.meeting import Meeting, meet
from finepref.train.method import Method, draws_per_step, inverts

LOST = re.compile(r"gloo|[Cc]onnection (closed|reset|refused)|[Tt]imed out|watchdog", re.I)
"""How a backend says that another process is gone."""
WHERE = (
    "start them with torchrun; or, for srun, export MASTER_PORT=29500 and "
    'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
)
UNITS = ("TransformerBlock", "ResnetBlock2D")  # endings of the class names of what is gathered at once


@dataclass(frozen=True, slots=True)
class World:
    """rank of size processes, and the device of this one.

    meeting: where they wait for each other; None for one process, and where the caller joined them.
    """

    rank: int
    size: int
    device: torch.device
    meeting: Meeting | None = None

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes, however long one of them works."""
        if self.meeting is not None:
            self.meeting.wait()
        elif self.size > 1:
            dist.barrier()

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over the processes, in place; the same tensor for one process."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def highest(self, value: int) -> int:
        """The highest of a number over the processes, of which there are several."""
        held = torch.tensor(value, device=self.device)
        dist.all_reduce(held, op=dist.ReduceOp.MAX)
        return int(held)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter], *, bucket: int = 1 << 26) -> None:
        """Sum gradients over the processes, once per optimiser step, in flat buckets of at most `bucket` elements."""
        if self.size == 1:
            return
        waiting: list[Tensor] = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            waiting.append(parameter.grad)
            if sum(gradient.numel() for gradient in waiting) >= bucket:
                _reduce_flat(waiting)
                waiting = []
        _reduce_flat(waiting)


def _reduce_flat(gradients: list[Tensor]) -> None:
    if not gradients:
        return
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def launched() -> World:
    """This process among those that the launcher started, which need not be joined to share work by hash."""
    size, rank, local = launched_as()
    return World(rank=rank, size=size, device=own_device(local))


@contextmanager
def join_world(timeout_minutes: float) -> Iterator[World]:
    """Join the processes that the launcher started; leave them at the end.

    Args:
        timeout_minutes: how long one waits for another that shows no sign of life.

    Raises:
        CheckFailed: another process ended, or did not answer in time. InputError: nothing says where they meet.
    """
    world, wait = launched(), timedelta(minutes=timeout_minutes)
    use_device(world.device)
    if world.main and world.device.type != default_device():
        say(f"{default_device()} has no float64 here, which training needs: this runs on the CPU")
    try:
        with ExitStack() as joined:
            if world.size > 1 and not dist.is_initialized():
                world = replace(world, meeting=joined.enter_context(_joined(world, wait)))
            yield world
    except (RuntimeError, DistError) as error:  # gloo says it with a RuntimeError
        if world.size == 1 or not (isinstance(error, DistError) or LOST.search(str(error))):
            raise
        what = f"process {world.rank} of {world.size} lost another one, which ended or did not answer in time"
        remedy = "see what that one said; --resume auto goes on from the last checkpoint"
        told = re.sub(r"^\[\S*\] ", "", first_line(error)).split(". This is", 1)[0]  # without gloo's own file and line
        raise CheckFailed(f"{what} ({told})", remedy=remedy) from None


@contextmanager
def _joined(world: World, wait: timedelta) -> Iterator[Meeting]:
    """Meet the others of this attempt, in a space of its own in the launcher's store.

    Raises:
        InputError: nothing says where they meet.
    """
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise InputError(f"{world.size} processes, and nothing says where they meet", where=missing[0], remedy=WHERE)
    store, rank, size = next(iter(rendezvous("env://", world.rank, world.size, timeout=wait)))
    own = PrefixStore(meet(PrefixStore("finepref", store), rank, size, wait), store)
    backend = dist.Backend.default_device_backend_map[world.device.type]
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=wait)
    try:
        with Meeting(PrefixStore("meeting", own), rank, size, wait.total_seconds()).attended() as meeting:
            dist.barrier()
            yield meeting
    finally:
        dist.destroy_process_group()


def check_sharding(config: RunConfig, method: Method, world: World) -> None:
    """Refuse what cannot be sharded.

    Raises:
        ConfigError: one process; a step that the processes cannot share evenly; an option that needs whole weights.
    """
    options = config.train
    if world.size == 1:
        remedy = "start with torchrun --nproc_per_node N, or distributed: ddp"
        raise ConfigError("there is nothing to shard over: one process", where="train.distributed", remedy=remedy)
    draws = draws_per_step(config, method)
    if draws % world.size:
        what = f"{draws} draws cannot be shared evenly by {world.size} processes, which fsdp2 needs"
        remedy = f"use {-(-draws // world.size) * world.size * method.share}"
        raise ConfigError(what, where="train.pairs_per_step", remedy=remedy)
    if inverts(config, method):
        raise ConfigError(
            f"{method.trajectory.name} calls the network as often as a process' own longest pair needs, and fsdp2 "
            "needs equally many calls on every process",
            where="train.distributed",
            remedy="distributed: ddp, which also fills a train.trajectory_cache that fsdp2 can then read",
        )
    if config.lora is not None and config.lora.text_encoder:
        raise ConfigError("fsdp2 shards the denoiser alone", where="lora.text_encoder", remedy="set it to false")
    for name, reason in (
        ("compile", "it takes whole networks, and fsdp2 gathers them block by block"),
        ("channels_last", "fsdp2 cannot shard weights in that layout"),
    ):
        if getattr(options, name):
            raise ConfigError(reason, where=f"train.{name}", remedy="false")
    if options.optimizer != "adamw":
        raise ConfigError(f"{options.optimizer} needs whole weights", where="train.optimizer", remedy="adamw")


def shard(adapter: Denoiser, world: World) -> None:
    """Shard the policy and the frozen reference, in place; both may lie on the CPU before."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    for network in filter(None, (adapter.policy_module(), adapter.reference_module())):
        for module in network.modules():
            if type(module).__name__.endswith(UNITS):
                fully_shard(module, mesh=mesh)
        fully_shard(network, mesh=mesh)


def whole(value: Tensor) -> Tensor:
    """The whole of a sharded tensor, gathered from all processes; any other tensor as it is."""
    value = value.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value


def as_sharded(value: Tensor, like: Tensor) -> Tensor:
    """This process' part of a whole tensor that every process holds, sharded and laid out in memory as `like` is.

    A tensor of another shape (an optimiser's step count, a row mean) is handed back as it is.
    """
    if value.shape != like.shape:
        return value
    if not isinstance(like, DTensor):
        return torch.empty_like(like, dtype=value.dtype).copy_(value)
    on_device = value.to(like.device, like.dtype)
    return distribute_tensor(on_device, like.device_mesh, like.placements, src_data_rank=None)


def whole_tensors(values: Mapping[str, Tensor], *, keep: bool, copy: bool = False) -> dict[str, Tensor]:
    """Whole tensors by name, on the CPU; all processes take part, those with `keep` false get nothing.

    copy: also of what lies on the CPU, so that it can change.
    """
    held = {}
    for name, value in values.items():
        gathered = whole(value)
        if keep:
            held[name] = gathered.to("cpu", copy=copy).contiguous()
    return held
