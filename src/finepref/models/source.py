"""Where a base model lies: a diffusers folder or a hub name, read part by part and checked part by part."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finepref.core.errors import InputError, first_line
from finepref.core.files import read_json
from finepref.core.rows import BASES

INDEX = "model_index.json"


@dataclass(frozen=True, slots=True)
class Source:
    """A pipeline folder on this machine.

    name: what the user wrote. folder: where it is. index: its model_index.json.
    """

    name: str
    folder: Path
    index: Mapping[str, Any]

    def has(self, part: str) -> bool:
        """Whether the pipeline holds this part (absent and [null, null] both mean no)."""
        entry = self.index.get(part)
        return isinstance(entry, list) and len(entry) == 2 and entry[0] is not None

    def absent(self) -> dict[str, None]:
        """The optional parts a pipeline must be told are None, or loading raises or warns."""
        empty = {k: None for k, v in self.index.items() if isinstance(v, list) and v[0] is None}
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
    return Path(name).expanduser().is_dir()


def locate(base: str | Path, *, revision: str | None = None) -> Source:
    """Find a pipeline: a folder with model_index.json, a hub name (downloaded or taken from the hub's own cache), or a
    row of `BASES`.

    Raises:
        InputError: no such folder and no such hub name, or a folder without model_index.json.
    """
    name, base = str(base), resolve_base(str(base))
    if is_folder(base):
        folder = Path(base).expanduser()
        if revision is not None:
            remedy = "drop it"
            raise InputError("a revision belongs to a hub name, not to a folder", where="model.revision", remedy=remedy)
    elif len(name.split("/")) == 2 and not name.startswith((".", "/", "~")):
        folder = _download_pipeline(name, revision)
    else:
        raise InputError("no such model folder", where=name, remedy="give a diffusers folder or a hub name owner/name")
    if not (folder / INDEX).is_file():
        raise InputError(f"the folder has no {INDEX}", where=name, remedy="give a whole diffusers pipeline")
    return Source(name=name, folder=folder, index=read_json(folder / INDEX))


def _download_pipeline(name: str, revision: str | None) -> Path:
    try:
        with quiet():
            from diffusers import DiffusionPipeline

            return Path(DiffusionPipeline.download(name, revision=revision, use_safetensors=True))
    except OSError as error:
        raise _unreachable(name, error) from None


def _unreachable(name: str, error: Exception) -> InputError:
    return InputError(
        f"neither a folder here nor a model the hub hands out ({first_line(error)})",
        where=name,
        remedy="check the spelling, log in with `hf auth login`, or download it and give the folder",
    )


def locate_part(
    name: str | Path, *, patterns: tuple[str, ...], revision: str | None = None, cached: bool = False
) -> Path:
    """Folder of something smaller than a pipeline (a VAE, a trained UNet, a LoRA): a folder, or a hub name.

    patterns: which files of a hub repository are wanted. cached: only from the hub's cache on this machine.
    """
    if is_folder(name):
        return Path(name).expanduser()
    from huggingface_hub import snapshot_download

    try:
        wanted = list(patterns)
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=wanted, local_files_only=cached))
    except (OSError, ValueError) as error:
        raise _unreachable(str(name), error) from None


def load_class(library: str, name: str, *, where: object) -> Any:
    """A class of diffusers or transformers by name; nothing else is ever imported on a model file's word."""
    if library not in ("diffusers", "transformers"):
        raise InputError(f"part of a foreign library {library!r}", where=where, remedy="use a plain diffusers pipeline")
    with quiet():
        found = getattr(importlib.import_module(library), name, None)
    if found is None:
        raise InputError(f"{library} has no class {name!r}", where=where, remedy=f"install a {library} that has it")
    return found


def unmarked(cls: Any) -> dict[str, bool]:
    """What a pipeline class must be told not to write a watermark into its images, which would shift their scores."""
    return {"add_watermarker": False} if "add_watermarker" in inspect.signature(cls.__init__).parameters else {}


def pipeline_class(source: Source) -> Any:
    """The diffusers class that a pipeline's model_index.json names."""
    return load_class("diffusers", str(source.index["_class_name"]), where=source.folder)


def assemble(source: Source, parts: Mapping[str, Any], **options: Any) -> Any:
    """The diffusers pipeline of a folder around parts that are there already; None leaves a part out."""
    cls = pipeline_class(source)
    with quiet():
        return cls.from_pretrained(str(source.folder), **{**source.absent(), **unmarked(cls), **parts, **options})


def empty_part(source: Source, part: str, config: Any = None) -> Any:
    """A diffusers network of the pipeline without its weights, on the meta device. config: None for the folder's."""
    cls = load_class(*source.index[part], where=source.folder)
    with quiet(), torch.device("meta"):
        return cls.from_config(config or read_json(source.folder / part / "config.json"))


def load_module(cls: Any, folder: Path, *, dtype: torch.dtype = torch.float32) -> Any:
    """`cls.from_pretrained` of a folder, safetensors only, refusing a file that leaves weights at random.

    Raises:
        InputError: no weights, or weights that the file does not hold.
    """
    library = cls.__module__.partition(".")[0]
    typed: dict[str, Any] = {"dtype": dtype} if library == "transformers" else {"torch_dtype": dtype}
    try:
        with quiet():
            module, info = cls.from_pretrained(str(folder), output_loading_info=True, use_safetensors=True, **typed)
    except OSError as error:
        remedy = "the folder needs config.json and a .safetensors file"
        raise InputError(f"weights cannot be loaded ({first_line(error)})", where=folder, remedy=remedy) from None
    missing = sorted(info.get("missing_keys") or ())
    if missing:
        what = f"{len(missing)} weights are missing, the first is {missing[0]!r}"
        raise InputError(what, where=folder, remedy="the file is not of this architecture")
    return module.eval().requires_grad_(False)


def load_part(source: Source, part: str, *, dtype: torch.dtype = torch.float32) -> Any:
    """A network of the pipeline (`unet`, `vae`, `text_encoder`...), in evaluation mode, without gradients."""
    if not source.has(part):
        raise InputError(f"the pipeline has no {part}", where=source.folder / INDEX, remedy="use a complete pipeline")
    library, name = source.index[part]
    return load_module(load_class(library, name, where=source.folder / INDEX), source.folder / part, dtype=dtype)


def load_vae(source: Source, override: str | Path | None) -> Any:
    """The pipeline's VAE, or another one: a VAE folder, a pipeline folder, or a hub name of either."""
    if override is None:
        return load_part(source, "vae")
    folder = vae_folder(source, override)
    config = read_json(folder / "config.json")
    name = config.get("_class_name", source.index["vae"][1])
    return load_module(load_class("diffusers", name, where=folder), folder)


def vae_folder(source: Source, override: str | Path | None) -> Path:
    """Where the VAE's config.json lies."""
    if override is None:
        return source.folder / "vae"
    root = locate_part(override, patterns=("*.json", "*.safetensors", "vae/*"))
    return root / "vae" if (root / "vae" / "config.json").is_file() else root
