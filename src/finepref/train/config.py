"""Every option of a run, described beside the field, validated when it is read.

A config is a YAML file plus `section.key=value` overrides. Unknown keys are errors with the nearest name. The options
of a trajectory, an objective or a guard belong to its row in the table of that axis and are validated by the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finepref.core.errors import ConfigError, nearest

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A frozen section that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Axis(BaseModel):
    """A named row of one axis; its other keys are the row's own options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    def options(self) -> dict[str, Any]:
        """The row's own options, as given."""
        declared = set(type(self).model_fields)
        return {key: value for key, value in self.model_dump().items() if key not in declared}


class ModelSection(Section):
    """Which model is trained."""

    base: str = Field(description="diffusers folder or hub name; `lab` is the embedded world")
    revision: str | None = Field(None, description="hub revision")
    family: str = Field("auto", description="auto | sd15 | sdxl | sd3 | flux | ...; auto reads model_index.json")
    vae: str | None = Field(None, description="another VAE (folder or hub name), e.g. the fp16-safe SDXL VAE")
    init_from: str | None = Field(
        None, description="run or unet/transformer folder that policy AND reference start from"
    )
    micro_conditioning: Literal["true", "official"] | None = Field(
        None, description="SDXL: true sizes and crops of each image, or the official [R,R,0,0,R,R]; null = true"
    )


class DataSection(Section):
    """Which preferences are read, and how images become tensors."""

    paths: list[str] = Field(default_factory=list, description="files or folders of preferences")
    format: str = Field(
        "auto", description="auto | pickapic | hpdv2 | hpdv3 | imagereward | chosen_rejected | imagefolder | votes"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="the format's name of a column: the table's, where they differ"
    )
    resolution: Positive = Field(512, description="pixels; short side resized to it, then centre crop")
    flip: bool = Field(
        False, description="horizontal flip with probability 1/2, drawn for winner and loser separately (official)"
    )
    prompt_dropout: Share = Field(
        0.2, description="share of draws with the empty prompt, one draw per pair (official 0.2)"
    )
    desirable_share: Share | None = Field(None, description="KTO: share of desirable images among draws; null = 0.8")


class CacheSection(Section):
    """Where latents and text embeddings are kept, and how they are made."""

    folder: str | None = Field(None, description="cache folder; null = <run folder>/cache")
    online: bool = Field(
        False, description="true = nothing is kept: images and prompts are encoded whenever they are drawn"
    )
    mixed_precision: Literal["no", "bf16"] = Field("no", description="of the VAE and the text encoders")
    posterior: Literal["mode", "mean_std"] = Field(
        "mean_std", description="mode = one latent; mean_std = sampled at every visit (official)"
    )
    dtype: Literal["float16", "float32", "bfloat16"] = Field("float16", description="storage type of the shards")
    shard_size: Positive = Field(4096, description="images a shard")
    batch_size: Positive = Field(32, description="images (or prompts) encoded at once")


class SignalSection(Section):
    """What the offline signal contributes."""

    file: str | None = Field(None, description="signals.parquet; null = the votes alone (winner, weight 1, margin 0)")
    margin_scale: float = Field(1.0, description="lambda: the margin that enters the logit is lambda * gap")


class ObjectiveSection(Axis):
    """How errors become a loss; further keys are the objective's own (`finepref methods` lists them)."""

    name: str = "dpo"
    loss_space: Literal["native", "epsilon", "x0"] = "native"


class TrajectorySection(Axis):
    """Where a pair is looked at."""

    name: str = "forward"


class GuardSection(Axis):
    """What a gradient may not do."""

    name: str = "none"


class LoraSection(Section):
    """Low-rank adapters instead of full fine-tuning; the reference is the model with the adapters off."""

    rank: Positive = 8
    alpha: float | None = Field(None, description="scale is alpha / rank; null = rank")
    targets: list[str] | None = Field(
        None, description="module name endings; null = the family's attention projections"
    )


class TrainSection(Section):
    """The loop."""

    max_steps: Positive = 2000
    pairs_per_step: Positive = Field(2048, description="pairs (or images, KTO) per optimiser step over all processes")
    micro_batch: Positive = Field(8, description="pairs per forward on one process")
    place_batch: Positive = Field(
        64, description="pairs per forward without gradient: trajectories that call the network, reference cache"
    )
    learning_rate: Annotated[float, Field(ge=0.0)] = 1e-8
    scale_lr: bool = Field(False, description="multiply learning_rate by pairs_per_step (the official launchers' rule)")
    lr_scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant_with_warmup"
    lr_warmup_steps: Count = 500
    optimizer: Literal["adamw", "adafactor", "adamw8bit"] = "adamw"
    adam_beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    adam_epsilon: Annotated[float, Field(gt=0.0)] = 1e-8
    adam_weight_decay: Annotated[float, Field(ge=0.0)] = 1e-2
    max_grad_norm: Annotated[float, Field(gt=0.0)] | None = Field(1.0, description="null = no clipping")
    mixed_precision: Literal["no", "bf16"] = Field("no", description="bf16 = autocast; weights and errors stay fp32")
    gradient_checkpointing: bool | Literal["selective"] = Field(
        False, description="true = recompute every block in backward; selective = every second block"
    )
    compile: bool = Field(False, description="torch.compile of the whole network; the first steps take minutes")
    channels_last: bool = Field(False, description="N H W C layout of convolutions (UNets only)")
    distributed: Literal["ddp", "fsdp2"] = Field(
        "ddp", description="fsdp2 shards parameters, gradients and optimiser state"
    )
    ema_decay: Share | None = Field(
        None, description="null = no average of the weights; else the average is what is saved"
    )
    stratified_t: bool = Field(
        False, description="one t per stratum of an optimiser step, so that ranks finish together"
    )
    reference_cache: str | None = Field(
        None, description="folder of reference errors, two scalars a draw; null = compute them"
    )
    trajectory_cache: str | None = Field(
        None, description="folder of every draw's inversion by the frozen reference; null = invert in the step"
    )
    seed: int = 0
    checkpoint_every: Count = Field(500, description="optimiser steps; 0 = only at the end")
    checkpoints_keep: Positive = Field(2, description="older checkpoints are removed")
    max_skipped: Count = Field(10, description="stop after this many steps skipped for non-finite gradients")


class ValidationSection(Section):
    """Images of a few prompts while the run goes on."""

    prompts: list[str] = Field(default_factory=list)
    seeds: list[int] = Field(default_factory=lambda: [0])
    every: Count = Field(0, description="optimiser steps; 0 = never")
    steps: Positive = 25
    guidance: float = 7.5


class LogSection(Section):
    """What is written while the run goes on."""

    trackers: list[str] = Field(
        default_factory=list, description="tensorboard | wandb | trackio; metrics.jsonl is always written"
    )
    t_buckets: Positive = Field(4, description="how many ranges of t the statistics are split into")


class RunConfig(Section):
    """One run. `load_config` reads it from YAML."""

    model: ModelSection
    data: DataSection = DataSection()
    cache: CacheSection = CacheSection()
    signal: SignalSection = SignalSection()
    trajectory: TrajectorySection = TrajectorySection()
    objective: ObjectiveSection = ObjectiveSection()
    guard: GuardSection = GuardSection()
    lora: LoraSection | None = None
    train: TrainSection = TrainSection()
    validation: ValidationSection = ValidationSection()
    log: LogSection = LogSection()

    def as_dict(self) -> dict[str, Any]:
        """The resolved config as plain data, for config.yaml and its hash."""
        return self.model_dump(mode="json")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML run config and apply `section.key=value` overrides (values are YAML).

    Raises:
        ConfigError: no such file, not a mapping, an unknown key, a wrong value, an override without `=`.
    """
    path = find_config(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "no such config file", where=path, remedy=nearest(path.as_posix(), shipped_configs())
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"not valid YAML ({' '.join(str(error).split())})", where=path) from None
    if not isinstance(data, dict):
        raise ConfigError("the config is not a mapping of sections", where=path, remedy="start with `model:`")
    for override in overrides:
        _apply(data, override)
    return parse_config(data, where=path)


SHIPPED = Path(__file__).resolve().parent.parent / "configs"


def find_config(name: str | Path) -> Path:
    """A config file by path, or a shipped one by its name: `lab/arenapo`."""
    path = Path(name)
    shipped = SHIPPED / path.with_suffix(".yaml")
    return shipped if not path.exists() and not path.is_absolute() and shipped.is_file() else path


def shipped_configs() -> list[str]:
    """The names of the configs that ship with the package."""
    return sorted(p.relative_to(SHIPPED).with_suffix("").as_posix() for p in SHIPPED.rglob("*.yaml"))


def parse_config(data: Mapping[str, Any], *, where: object = "config") -> RunConfig:
    """Validate plain data as a run config; every error names its key."""
    try:
        return RunConfig.model_validate(dict(data))
    except ValidationError as error:
        raise _sentence(error, where) from None


def validate_options(options: type[BaseModel], given: Mapping[str, Any], *, where: str) -> BaseModel:
    """Validate a row's own options against its model; every error names its key."""
    try:
        return options.model_validate(dict(given))
    except ValidationError as error:
        raise _sentence(error, where, options) from None


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"{override!r} is not of the form section.key=value",
            where="command line",
            remedy="write for example train.learning_rate=1e-5",
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(
            f"the value of {key} is not valid YAML", where="command line", remedy="quote it for YAML and the shell"
        ) from None
    *sections, leaf = key.split(".")
    target = data
    for section in sections:
        inner = target.get(section)
        if inner is None:
            inner = target[section] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"{section} in {key} is not a section", where="command line")
        target = inner
    target[leaf] = value


def _known(model: type[BaseModel], place: Sequence[Any]) -> list[str]:
    fields = model.model_fields
    for part in place:
        annotation = fields[part].annotation if part in fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        inner = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not inner:
            return []
        fields = inner[0].model_fields
    return list(fields)


def _sentence(error: ValidationError, where: object, model: type[BaseModel] = RunConfig) -> ConfigError:
    first = error.errors()[0]
    place = [part for part in first["loc"] if isinstance(part, str)]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known(model, place[:-1])
        if not known:
            return ConfigError(f"unknown key {key!r}", where=where, remedy="it takes no options")
        return ConfigError(f"unknown key {key!r}", where=where, remedy=nearest(place[-1], known))
    if first["type"] == "missing":
        return ConfigError(f"{key} is missing", where=where, remedy="add it")
    field = _field(model, first["loc"])  # without the names of a union's members
    reasons = [each["msg"] for each in error.errors() if _field(model, each["loc"]) == field]
    key = ".".join(str(part) for part in field)
    return ConfigError(f"{key} = {first['input']!r} is not possible", where=where, remedy=" or ".join(reasons))


def _field(model: type[BaseModel], place: Sequence[Any]) -> list[Any]:
    kept: list[Any] = []
    for part in place:
        if isinstance(part, str) and part not in _known(model, kept):
            break
        kept.append(part)
    return kept
