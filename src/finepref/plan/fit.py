"""The mildest options that make a planned run fit a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import yaml

from finepref.plan.cards import Gpu
from finepref.plan.needs import Counts, memory_of, needed_gb
from finepref.train.config import RunConfig, parse_config
from finepref.train.method import Method, inverts

Count = Callable[[RunConfig], Counts]
Change = Mapping[str, object]
BF16: Change = {"train.mixed_precision": "bf16"}
HALF: Change = {**BF16, "train.gradient_checkpointing": "selective"}
FULL: Change = {**BF16, "train.gradient_checkpointing": True}
ERRORS: Change = {**FULL, "train.reference_cache": "reference"}
FACTORED: Change = {"train.optimizer": "adafactor"}
LORA: Change = {"lora": {"rank": 8}}
INT8: Change = {"model.quantize": "int8"}
NF4: Change = {"model.quantize": "nf4"}
# From mild to strong. Those that say nothing new about a config are passed over.
LADDER: tuple[Change, ...] = (
    {},
    BF16,
    HALF,
    FULL,
    ERRORS,
    {**FULL, **FACTORED},
    {**ERRORS, **FACTORED},
    {**BF16, **LORA},
    {**HALF, **LORA},
    {**FULL, **LORA},
    {**FULL, **LORA, **INT8},
    {**FULL, **LORA, **NF4},
)
SHARDS = (2, 4, 8, 16, 32, 64)


def remedies(gpu: Gpu, config: RunConfig, method: Method, count: Count, *, processes: int) -> tuple[str, ...]:
    """The mildest overrides on the same processes, and the fewest processes that share the states (fsdp2)."""
    found = []
    ladder = [_keeping_half(config, change) for change in LADDER]
    for change in (change for change in ladder if _applies(config, method, change)):
        words = _fitting(gpu, changed(config, change), method, count, processes=processes)
        if words is not None:
            new = {key: value for key, value in change.items() if changed(config, {key: value}) != config}
            found.append(" ".join([*_spelled(new), *words]))
            break
    if not inverts(config, method) and config.lora is None and config.train.optimizer == "adamw":
        sharded = changed(config, {"train.distributed": "fsdp2", "train.compile": False, "train.channels_last": False})
        for shards in (shards for shards in SHARDS if shards >= processes):
            words = _fitting(gpu, sharded, method, count, processes=shards)
            if words is not None:
                found.append(" ".join([f"train.distributed=fsdp2 on {shards} GPUs", *words]))
                break
    return tuple(found)


def changed(config: RunConfig, change: Change) -> RunConfig:
    """A config with some keys, dotted, set to other values."""
    data = config.as_dict()
    for key, value in change.items():
        if key == "lora" and data["lora"] is not None:
            continue  # it has one of its own
        section, _, leaf = key.rpartition(".")
        (data[section] if section else data)[leaf] = value
    return parse_config(data)


def _keeping_half(config: RunConfig, change: Change) -> Change:
    """A rung without bf16 where the config is in fp16, which takes as much: its GPU may have no bf16."""
    half = config.train.mixed_precision != "no"
    return {key: value for key, value in change.items() if not (half and key == "train.mixed_precision")}


def _applies(config: RunConfig, method: Method, change: Change) -> bool:
    """Whether a rung changes something and makes sense: every key of it is new to the config, and allowed."""
    options, needs = config.train, method.objective.needs
    if "train.reference_cache" in change:
        usable = needs.paired and method.reference == "errors" and not inverts(config, method) and method.share == 1
        taken = options.reference_cache is not None or options.reference.moves
        if not usable or config.lora is not None or taken:
            return False
    if "train.optimizer" in change and (options.optimizer != "adamw" or options.distributed == "fsdp2"):
        return False
    if "model.quantize" in change and (config.model.quantize is not None or options.distributed == "fsdp2"):
        return False
    if "lora" in change and config.lora is not None:
        return "model.quantize" in change and not config.lora.dora
    if change.get("train.gradient_checkpointing") == "selective":
        return options.gradient_checkpointing is False
    return not change or changed(config, change) != config


def _fitting(gpu: Gpu, config: RunConfig, method: Method, count: Count, *, processes: int) -> list[str] | None:
    """The batch sizes, largest first, with which a config fits, as overrides; None where none do."""
    counts, options = count(config), config.train
    own = {"train.micro_batch": options.micro_batch, "train.place_batch": options.place_batch}
    for size in halvings(options.micro_batch):
        for place in halvings(options.place_batch) if inverts(config, method) else (options.place_batch,):
            batch = {"train.micro_batch": size, "train.place_batch": place}
            if needed_gb(memory_of(changed(config, batch), method, counts, processes=processes), gpu) <= gpu.memory_gb:
                return _spelled({key: value for key, value in batch.items() if value != own[key]})
    return None


def halvings(size: int) -> list[int]:
    """A batch size and its halves down to one."""
    return [size >> n for n in range(size.bit_length())]


def _spelled(change: Change) -> list[str]:
    """As overrides of the command line, none of which has a space that a shell would split it at."""
    change = {
        key if leaf is None else f"{key}.{leaf}": held
        for key, value in change.items()
        for leaf, held in (value.items() if isinstance(value, Mapping) else [(None, value)])
    }
    dumped = {key: yaml.safe_dump(value, default_flow_style=True) for key, value in change.items()}
    return [f"{key}={text.removesuffix(chr(10)).removesuffix('...').strip()}" for key, text in dumped.items()]
