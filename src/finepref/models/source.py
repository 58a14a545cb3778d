"""Where a base model lies: a diffusers folder or a hub name, read part by part and checked part by part."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch

from finepref.core.errors import InputError, first_line
from finepref.core.files import read_object, reading
from finepref.core.outfolders import refuse_changed
from finepref.core.rows import BASES
from finepref.models.classes import check_folder, load_class
from finepref.models.header import COUNTED, DAMAGED, part_header, saved_type
from finepref.models.precision import cast_layers, widen
from finepref.models.quantized import config_of, is_plain

INDEX = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"
HALVES = {"F16": torch.float16, "BF16": torch.bfloat16}
WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


class BaseOptions(TypedDict, total=False):
    """What a config says of a base beside its name, as its `model` section has it."""

    revision: str | None
    variant: str | None
    config: str | None
    prediction_type: str | None


@dataclass(frozen=True, slots=True)
class Source:
    """A pipeline folder on this machine.

    name: what the user wrote. folder: where it is. index: its model_index.json. variant: of its weight files.
    """

    name: str
    folder: Path
    index: Mapping[str, Any]
    variant: str | None = None

    def has(self, part: str) -> bool:
        """Whether the pipeline holds this part (absent and [null, null] both mean no)."""
        entry = self.index.get(part)
        return isinstance(entry, list) and len(entry) == 2 and entry[0] is not None

    def absent(self) -> dict[str, None]:
        """The optional parts a pipeline must be told are None, or loading raises or warns."""
        empty = {k: None for k, v in self.index.items() if isinstance(v, list) and v[:1] == [None]}
        extras = {k: None for k in ("safety_checker", "feature_extractor", "image_encoder") if k in self.index}
        return empty | extras


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the loaders of diffusers and transformers (missing weights are checked by us and raise)."""
    from diffusers.utils import logging as diffusers_log
    from transformers.utils import logging as transformers_log

    logs = (diffusers_log, transformers_log)
    before = [log.get_verbosity() for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.set_verbosity(level)


def resolve_base(name: str) -> str:
    """A model name as a folder or hub name that diffusers can load: a row of `BASES` becomes its folder.

    Raises:
        InputError: `NAME:VARIANT` of a row, and no such variant.
    """
    return str(BASES[name].load()) if name in BASES or name.partition(":")[0] in BASES else name


def is_folder(name: str | Path) -> bool:
    """Whether `name` is a folder here; if not, it is taken for a hub name `owner/name`."""
    return os.path.isdir(os.path.expanduser(name))  # which is False, too, for what no file can be called, and for ""


def is_file(name: str | Path) -> bool:
    """Whether `name` is a file here, or by its ending is meant to be one."""
    path = Path(name).expanduser()
    return os.path.isfile(path) or (path.suffix in WEIGHTS and not os.path.isdir(path))


def locate(base: str | Path, **said: Unpack[BaseOptions]) -> Source:
    """Find a pipeline: a folder with model_index.json, a single-file checkpoint, a hub name (downloaded or taken from
    the hub's own cache), or a row of `BASES`.

    Raises:
        InputError: no such folder, file or hub name, a folder without model_index.json, an option without effect, or
            what we wrote and has changed since.
    """
    name, base = str(base) or "''", resolve_base(str(base))
    variant = said.get("variant")
    if is_file(base):
        _refuse(said, ("revision", "variant"), "a single file")
        from finepref.models.unpacked import unpacked

        return unpacked(Path(base).expanduser(), config=said.get("config"), prediction_type=said.get("prediction_type"))
    if is_folder(base):
        folder = Path(base).expanduser()
        _refuse(said, ("config", "prediction_type"), "a diffusers folder")
        _refuse(said, ("revision",), "a folder")
    elif _on_hub(name):
        _refuse(said, ("config", "prediction_type"), "a hub name")
        folder = _download_pipeline(name, said.get("revision"), variant)
    else:
        beside = next((f"{name}{end}" for end in WEIGHTS if os.path.isfile(os.path.expanduser(f"{name}{end}"))), None)
        remedy = (
            f"give a diffusers folder, a .safetensors checkpoint, a hub name owner/name, or one of {', '.join(BASES)}"
        )
        remedy = f"did you mean {beside}?" if beside else remedy
        raise InputError("no such model folder", where=name, remedy=remedy)
    refuse_changed(folder, remedy=DAMAGED)
    if not (folder / INDEX).is_file():
        raise InputError(f"the folder has no {INDEX}", where=name, remedy="give a whole diffusers pipeline")
    return Source(name=name, folder=folder, index=read_object(folder / INDEX), variant=variant)


def _on_hub(name: str) -> bool:
    """Whether a name is one that the hub may know: owner/name, and no path."""
    return len(name.split("/")) == 2 and not name.startswith((".", "/", "~"))


def applicable(base: str | Path) -> tuple[str, ...]:
    """The options that say how such a base is read."""
    base = resolve_base(str(base))
    return (
        ("config", "prediction_type") if is_file(base) else ("variant",) if is_folder(base) else ("revision", "variant")
    )


_BELONGS = {"revision": "a hub name", "variant": "a diffusers folder or a hub name"}


def _refuse(said: BaseOptions, options: Iterable[str], base: str) -> None:
    """Refuse an option that has no effect on such a base."""
    for option in options:
        if said.get(option) is not None:
            what = f"a {option} belongs to {_BELONGS.get(option, 'a single file')}, not to {base}"
            raise InputError(what, where=f"model.{option}", remedy="drop it")


def _download_pipeline(name: str, revision: str | None, variant: str | None) -> Path:
    try:
        with quiet():
            from diffusers import DiffusionPipeline

            plain: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
            return Path(DiffusionPipeline.download(name, revision=revision, variant=variant, **plain))
    except (OSError, ValueError) as error:
        raise unreachable(name, error) from None


def unreachable(name: str, error: Exception) -> InputError:
    """The sentence for a name that is no folder and that the hub does not hand out."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    if not _on_hub(name) or os.path.splitext(name)[1] in WEIGHTS:
        return InputError("no such file or folder", where=name, remedy="check the path, or give a hub name owner/name")
    said, remedy = first_line(error), "check the spelling, log in with `hf auth login`, or download it"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        said, remedy = "which is out of reach, and its cache here lacks it", "check the spelling, or download it"
    what = f"neither a folder here nor a model the hub hands out ({said})"
    return InputError(what, where=name, remedy=f"{remedy} and give the folder")


def locate_part(
    name: str | Path, *, patterns: tuple[str, ...], revision: str | None = None, cached: bool = False
) -> Path:
    """Folder of something smaller than a pipeline (a VAE, a trained UNet, a LoRA): a folder, or a hub name.

    patterns: which files of a hub repository are wanted. cached: only from the hub's cache on this machine.

    Raises:
        InputError: no such folder and no such hub name, or a folder of ours in which a file has changed.
    """
    if is_folder(name):
        refuse_changed(folder := Path(name).expanduser(), remedy=DAMAGED)
        return folder
    from huggingface_hub import snapshot_download

    try:
        wanted = list(patterns)
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=wanted, local_files_only=cached))
    except (OSError, ValueError) as error:
        raise unreachable(str(name), error) from None


def unmarked(cls: Any) -> dict[str, bool]:
    """What a pipeline class must be told not to write a watermark into its images, which would shift their scores."""
    return {"add_watermarker": False} if "add_watermarker" in inspect.signature(cls.__init__).parameters else {}


def pipeline_class(source: Source) -> Any:
    """The diffusers class that a pipeline's model_index.json names."""
    return load_class("diffusers", source.index.get("_class_name"), part="pipeline", where=source.folder / INDEX)


def assemble(source: Source, parts: Mapping[str, Any], *, cls: Any = None, **options: Any) -> Any:
    """The diffusers pipeline of a folder around parts that are there already; None leaves a part out.

    Networks that are not there are read by `load_module`.

    cls: None for the class that the folder names.
    """
    cls, given = cls or pipeline_class(source), {**source.absent(), **parts}
    for part in source.index:
        if source.has(part) and part not in given and issubclass(part_class(source, part), torch.nn.Module):
            given[part] = load_part(source, part, dtype=options.get("torch_dtype", torch.float32))
    plain = {"use_safetensors": True, "trust_remote_code": False, "variant": source.variant, **unmarked(cls)}
    with quiet(), reading(source.folder, "a whole pipeline of safetensors files", remedy="fetch it again"):
        return cls.from_pretrained(str(source.folder), **{**plain, **given, **options})


def empty_part(source: Source, part: str, config: Any = None) -> Any:
    """A network of the pipeline without its weights, on the meta device. config: None for the folder's."""
    cls, file = part_class(source, part), source.folder / part / "config.json"
    with quiet(), torch.device("meta"), reading(file, f"a config of {cls.__name__}", remedy="fetch it again"):
        held = config or read_object(file)
        return cls(cls.config_class.from_dict(held)) if hasattr(cls, "config_class") else cls.from_config(held)


def load_module(
    cls: Any,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    quantize: str | None = None,
    as_saved: bool = False,
) -> Any:
    """`cls.from_pretrained` of a folder, safetensors only, each tensor of which is used.

    Weights of the file's own type stay where the system reads them from (mmap): processes of a machine share them.

    variant: of the weight files, as `fp16` in `model.fp16.safetensors`. quantize: int8 or nf4, see `models.quantized`.
    as_saved: what autocast casts at each call stays in half where the file has all of it so; the rest is float32.

    Raises:
        InputError: no weights, weights that the file does not hold, tensors in it that the network does not have, one
            that is there twice or is no float, or numbers that are not finite.
    """
    check_folder(folder, cls)
    library = cls.__module__.partition(".")[0]
    half = HALVES.get(saved_type(folder, cls, variant) or "") if as_saved and quantize is None else None
    ours: dict[str, Any] = {"dtype": half or dtype, "trust_remote_code": False}
    typed = ours if library == "transformers" else {"torch_dtype": half or dtype}
    of = "" if variant is None else f" of variant {variant}"
    remedy = f"the folder needs config.json and a .safetensors file{of}"
    options = {"output_loading_info": True, "use_safetensors": True, "variant": variant}
    options |= {"ignore_mismatched_sizes": True} if library == "transformers" else {}  # else it does not name them
    options |= {} if quantize is None else {"quantization_config": config_of(quantize, dtype)}
    with quiet(), reading(folder, f"a whole {cls.__name__}{of}", remedy=remedy):
        module, info = cls.from_pretrained(str(folder), **options, **typed)
    part_header(folder, cls, variant)
    other = [f"{name} as {list(held)} for {list(own)}" for name, held, own in sorted(info.get("mismatched_keys") or ())]
    missing = sorted(info.get("missing_keys") or ())
    strange = sorted(name for name in info.get("unexpected_keys") or () if not name.endswith(COUNTED))
    for names, what in (
        (other, "weights have other shapes than its config.json wants"),
        (missing, "weights are missing"),
        (strange, "tensors have no place in it"),
        (_not_finite(module), "weights hold numbers that are not finite"),
    ):
        if names:
            remedy = f"fetch it again, or use a file of this architecture ({cls.__name__})"
            raise InputError(f"{len(names)} {what}, the first is {names[0]!r}", where=folder, remedy=remedy)
    if half is not None:
        widen(module, but=cast_layers(module))
    return module.eval().requires_grad_(False)


def _not_finite(module: torch.nn.Module) -> list[str]:
    """Names of the tensors that hold nan or infinity; a sum tells in one reading, unless it is too large itself."""
    held = [(name, value) for name, value in module.state_dict().items() if value.is_floating_point()]
    held = [(name, value) for name, value in held if is_plain(value)]
    doubted = [
        (name, value) for name, value in held if not value.is_meta and not value.sum(dtype=torch.float32).isfinite()
    ]
    return [name for name, value in doubted if not bool(value.isfinite().all())]


def load_part(source: Source, part: str, **how: Any) -> Any:
    """A network of the pipeline (`unet`, `vae`, ...), in evaluation mode, without gradients; `how` of `load_module`."""
    return load_module(part_class(source, part), source.folder / part, variant=source.variant, **how)


def part_class(source: Source, part: str) -> Any:
    """The class of a part of the pipeline, whose config files name no code.

    Raises:
        InputError: it has none, or one that no family needs; see `models.classes`.
    """
    if not source.has(part):
        raise InputError(f"the pipeline has no {part}", where=source.folder / INDEX, remedy="use a complete pipeline")
    library, name = source.index[part]
    cls, folder = load_class(library, name, part=part, where=source.folder / INDEX), source.folder / part
    check_folder(folder, cls if (folder / "config.json").is_file() and hasattr(cls, "named_parameters") else None)
    return cls


def load_vae(source: Source, override: str | Path | None) -> Any:
    """The pipeline's VAE, or another one: a VAE folder, a VAE file, a pipeline folder, or a hub name of a folder."""
    if override is None:
        return load_part(source, "vae")
    folder = vae_folder(source, override)
    return load_module(vae_class(source, folder), folder)


def vae_class(source: Source, folder: Path) -> Any:
    """The class of a VAE that its config.json names, else that of the pipeline's own."""
    file = folder / "config.json"
    name = read_object(file).get("_class_name")
    return part_class(source, "vae") if name is None else load_class("diffusers", name, part="vae", where=file)


def vae_folder(source: Source, override: str | Path | None) -> Path:
    """Where the VAE's config.json lies."""
    if override is None:
        return source.folder / "vae"
    if is_file(override):
        from finepref.models.unpacked import unpacked_part

        return unpacked_part(Path(override).expanduser(), source, "vae", option="model.vae")
    root = locate_part(override, patterns=("*.json", "*.safetensors", "vae/*"))
    return root / "vae" if (root / "vae" / "config.json").is_file() else root
