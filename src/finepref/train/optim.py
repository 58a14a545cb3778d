"""Optimisers, the loss scaler, and the learning rate as a function of the step alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from finepref.core.errors import ConfigError
from finepref.train.train_section import TrainSection


def warms_up(options: TrainSection) -> bool:
    """Whether the rate of the first steps rises."""
    return options.lr_scheduler != "constant" and options.lr_warmup_steps > 0


def learning_rate(options: TrainSection, step: int) -> float:
    """The learning rate of optimiser step `step` (from 0).

    Warm-up is linear over the W = `lr_warmup_steps` first steps for every scheduler but `constant`: k/W at step k, or
    (k+1)/W where it does not begin from zero; `linear` and `cosine` then fall to 0 at `max_steps`. With `scale_lr` the
    base rate is multiplied by the pairs of a step (official: accumulation x local batch x processes).

    References: diffusers optimization.get_scheduler, which the official launchers use, with `lr_warmup_from_zero`.
    """
    base = options.learning_rate * (options.pairs_per_step if options.scale_lr else 1)
    if options.lr_scheduler == "constant":
        return base
    warmup = options.lr_warmup_steps
    if step < warmup:
        return base * (step if options.lr_warmup_from_zero else step + 1) / warmup
    if options.lr_scheduler == "constant_with_warmup":
        return base
    done = (step - warmup) / max(1, options.max_steps - warmup)
    return base * (1.0 - done if options.lr_scheduler == "linear" else 0.5 * (1.0 + math.cos(math.pi * done)))


def make_optimizer(options: TrainSection, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser over `parameters`. AdamW runs as one kernel over all of them, on CPU and GPU alike.

    Adafactor as the official SDXL launchers use it: no relative step, no parameter scaling, clip threshold 1.

    Raises:
        ConfigError: adamw8bit without bitsandbytes.
    """
    betas = (options.adam_beta1, options.adam_beta2)
    rate = learning_rate(options, 0)
    if options.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(
            list(parameters),
            lr=rate,
            weight_decay=options.adam_weight_decay,
            clip_threshold=1.0,
            scale_parameter=False,
            relative_step=False,
        )
    settings = {"lr": rate, "betas": betas, "eps": options.adam_epsilon, "weight_decay": options.adam_weight_decay}
    if options.optimizer == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **settings)  # type: ignore[arg-type]
    try:
        import bitsandbytes
    except ImportError:
        remedy = "pip install 'finepref[bnb]' or use adamw"
        raise ConfigError("adamw8bit needs bitsandbytes", where="train.optimizer", remedy=remedy) from None
    return bitsandbytes.optim.AdamW8bit(parameters, **settings)


def check_state(optimizer: torch.optim.Optimizer, held: Mapping[str, Any], shape: torch.Size) -> None:
    """Refuse what an optimiser cannot hold of a parameter of this shape.

    Raises:
        ValueError: another name, shape or type, or a number that is not finite or, of a square, negative.
    """
    rows, columns = {"exp_avg_sq_row": shape[:-1]}, {"exp_avg_sq_col": shape[:-2] + shape[-1:]}
    wanted: dict[str, dict[str, Any]] = {
        "AdamW": {"step": (), "exp_avg": shape, "exp_avg_sq": shape},
        "Adafactor": {"step": None, "RMS": None, **(rows | columns if len(shape) > 1 else {"exp_avg_sq": shape})},
    }
    names = wanted.get(type(optimizer).__name__)  # of adamw8bit, whose blocks have shapes of their own, numbers alone
    if names is not None and {*names} != {*held}:
        raise ValueError(f"its names are {', '.join(sorted(held))}")
    for name, value in held.items():
        of = names.get(name) if names is not None else None
        tensor = value if isinstance(value, torch.Tensor) else torch.tensor(float(value))
        if (names is not None and not tensor.is_floating_point()) or (of is not None and tensor.shape != of):
            raise ValueError(f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}")
        if not bool(tensor.isfinite().all()) or ("_sq" in name and bool((tensor < 0).any())):
            raise ValueError(f"{name} holds numbers that it cannot hold")


def make_scaler(options: TrainSection, device: torch.device) -> torch.amp.GradScaler:
    """torch's loss scaler at its defaults: float16 gradients below 6e-8 would be 0. It does nothing but with fp16."""
    return torch.amp.GradScaler(device.type, enabled=options.mixed_precision == "fp16")
