"""FSDP2: policy, gradients, optimiser state and frozen reference in shards over the processes of a run.

Sharded parameters are DTensors. Every process must make the same network calls in the same order, because each call
gathers blocks from all of them. Checkpoints and what a run leaves hold whole tensors, as without sharding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from finepref.core.errors import ConfigError
from finepref.models.protocol import Adapter
from finepref.train.config import RunConfig
from finepref.train.method import Method, draws_per_step, inverts
from finepref.train.processes import World

UNITS = ("TransformerBlock", "ResnetBlock2D")  # endings of the class names of what is gathered at once


def check_sharding(config: RunConfig, method: Method, world: World) -> None:
    """Refuse what cannot be sharded.

    Raises:
        ConfigError: one process; a step that the processes cannot share evenly; an option that needs whole weights.
    """
    options = config.train
    if world.size == 1:
        raise ConfigError(
            "there is nothing to shard over: one process",
            where="train.distributed",
            remedy="start with torchrun --nproc_per_node N, or distributed: ddp",
        )
    draws = draws_per_step(config, method)
    if draws % world.size:
        raise ConfigError(
            f"{draws} draws cannot be shared evenly by {world.size} processes, which fsdp2 needs",
            where="train.pairs_per_step",
            remedy=f"use {-(-draws // world.size) * world.size * method.share}",
        )
    if inverts(config, method):
        raise ConfigError(
            f"{method.trajectory.name} calls the network as often as a process' own longest pair needs, and fsdp2 "
            "needs equally many calls on every process",
            where="train.distributed",
            remedy="distributed: ddp, which also fills a train.trajectory_cache that fsdp2 can then read",
        )
    for name, reason in (
        ("compile", "it takes whole networks, and fsdp2 gathers them block by block"),
        ("channels_last", "fsdp2 cannot shard weights in that layout"),
    ):
        if getattr(options, name):
            raise ConfigError(reason, where=f"train.{name}", remedy="false")
    if options.optimizer != "adamw":
        raise ConfigError(f"{options.optimizer} needs whole weights", where="train.optimizer", remedy="adamw")


def shard(adapter: Adapter, world: World) -> None:
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


def whole_tensors(values: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Whole tensors by name, on the CPU; all processes take part, those with `keep` false get nothing."""
    held = {}
    for name, value in values.items():
        gathered = whole(value)
        if keep:
            held[name] = gathered.cpu().contiguous()
    return held
