"""The section `train` of a run's config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finepref.core.device import Precision
from finepref.core.options import Options, told
from finepref.train.levels import LevelOptions
from finepref.train.moving import ReferenceOptions
from finepref.train.stop_options import StopOptions

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class TrainSection(Options):
    """The loop."""

    max_steps: Positive = told(2000, "optimiser steps of the whole run")
    pairs_per_step: Positive = told(2048, "pairs (or images, KTO) per optimiser step over all processes")
    micro_batch: Positive = told(8, "pairs per forward on one process")
    place_batch: Positive = told(64, "pairs per forward without gradient: inversions, reference cache")
    learning_rate: float = told(1e-8, "after warm-up, before scale_lr", ge=0.0)
    scale_lr: bool = told(False, "multiply learning_rate by pairs_per_step (the official launchers' rule)")
    lr_scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"] = told(
        "constant_with_warmup", "the rate over the run; linear and cosine warm up and then fall to 0"
    )
    lr_warmup_steps: Count = told(500, "steps over which the rate rises to learning_rate")
    lr_warmup_from_zero: bool = told(
        True, "step k (from 0) of W has k/W of the rate, so the first moves nothing (official); false = (k+1)/W"
    )
    optimizer: Literal["adamw", "adafactor", "adamw8bit"] = told("adamw", "adamw8bit needs bitsandbytes")
    adam_beta1: float = told(0.9, "decay of the mean of gradients", ge=0.0, lt=1.0)
    adam_beta2: float = told(0.999, "decay of the mean of their squares", ge=0.0, lt=1.0)
    adam_epsilon: float = told(1e-8, "added to the root of that mean", gt=0.0)
    adam_weight_decay: float = told(1e-2, "decoupled weight decay", ge=0.0)
    max_grad_norm: float | None = told(1.0, "null = no clipping", gt=0.0)
    mixed_precision: Precision = told(
        "no", "autocast; weights and errors stay fp32; fp16, for GPUs without bf16, scales the loss"
    )
    gradient_checkpointing: bool | Literal["selective"] = told(
        False, "true = recompute every block in backward; selective = every second block"
    )
    compile: bool = told(False, "torch.compile of the whole network; the first steps take minutes")
    channels_last: bool = told(False, "N H W C layout of convolutions (UNets only)")
    distributed: Literal["ddp", "fsdp2"] = told("ddp", "fsdp2 shards parameters, gradients and optimiser state")
    timeout_minutes: float = told(30.0, "how long processes wait for one of them before all end", gt=0.0)
    ema_decay: float | None = told(None, "null = no average of the weights; else that is saved", ge=0.0, lt=1.0)
    reference: ReferenceOptions = told(ReferenceOptions(), "whether the reference moves, as {kind: ema, decay: 0.995}")
    levels: LevelOptions = told(LevelOptions(), "a window of the noise path, and weights in it, as {low: 0.5}")
    stratified_t: bool = told(False, "one t per stratum of an optimiser step, so that ranks finish together")
    reference_cache: str | None = told(None, "folder of reference errors, two scalars a draw; null = compute them")
    trajectory_cache: str | None = told(None, "folder of the frozen reference's inversions; null = invert in the step")
    seed: int = told(0, "of every draw: order, t, noise, flips, dropped prompts")
    checkpoint_every: Count = told(500, "optimiser steps; 0 = only at the end")
    checkpoints_keep: Positive = told(2, "older checkpoints are removed")
    stop: StopOptions | None = told(None, "end early by held-out pairs and keep the last sound step, as {patience: 3}")
    max_skipped: Count = told(10, "stop after this many steps skipped for non-finite gradients")
