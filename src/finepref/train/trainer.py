"""A run from Python: the `finepref train` of the same config, with models and data that may be in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finepref.core.device import launched_as
from finepref.core.errors import ConfigError, InputError
from finepref.core.files import atomic_folder
from finepref.core.outfolders import own_folder
from finepref.core.provenance import provenance
from finepref.formats.folders import PIPELINE, RUN
from finepref.formats.layers import shipped_layers, shipped_names
from finepref.formats.preferences import Preferences, read_preferences, write_pairs
from finepref.formats.signals import Signals, write_signals
from finepref.formats.tables import Row, Table
from finepref.models.family import FAMILIES, family
from finepref.models.load import open_pipeline
from finepref.models.source import locate, quiet
from finepref.train.callbacks import Callback
from finepref.train.config import RunConfig, load_config
from finepref.train.run import Resume, check_run, train_run

if TYPE_CHECKING:
    from peft import LoraConfig

PLACE, PAIRS, SIGNALS = "Trainer", "pairs.parquet", "signals.parquet"


class Trainer:
    """One run: `Trainer(model="lab", data="votes.parquet", method="dpo", out="runs/dpo").train()`.

    The config is made and checked at once; files are read and written by `train`. Its numbers are those of `finepref
    train` with the same config, which stands in `config.yaml` of the run folder.
    """

    def __init__(
        self,
        model: Any,
        data: Preferences | str | Path | Iterable[Row | str | Path],
        *,
        method: str | Path | Sequence[str | Path] | Mapping[str, Any] | RunConfig = "dpo",
        out: str | Path,
        signals: Signals | str | Path | None = None,
        lora: LoraConfig | Mapping[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
        **overrides: Any,
    ) -> None:
        """Args:
            model: a diffusers pipeline, which is saved to `out/base`; a folder, hub name, or a shipped base (`sd15`).
            data: files or folders, a shipped data set (`pickapic_v2`), or what `read_preferences` takes or returned;
                rows in memory are written to `out/pairs.parquet`.
            method: a shipped method (`arenapo`), which is laid on the base that fits the model; layers as after -c; or
                a config, of which model, data, signals and overrides replace what they name.
            out: run folder. signals: of the pairs: a file, or what `make_signals` returned (`out/signals.parquet`).
            lora: rank, alpha, targets; None for what the method says, which mostly is full fine-tuning.
            callbacks: see `Callback`. overrides: `train={"max_steps": 100}`, or `**{"train.max_steps": 100}`.

        Raises:
            ConfigError: an unknown name or option, a combination that makes no sense. InputError: no such model.
        """
        self.out, self.callbacks = Path(out), tuple(callbacks)
        self._model = None if isinstance(model, str | Path) else model
        if self._model is not None:
            _refuse_adapters(self._model)
        prefs = data if isinstance(data, Preferences) else read_preferences(data)
        self._prefs = prefs if isinstance(prefs.data, Table) else None
        self._signals = signals if isinstance(signals, Signals) else None
        layers: list[str | Path] = []
        asked: dict[str, Any] = {}
        if isinstance(method, str) and method in shipped_names("method"):
            layers = [*_base_layer(model), *_shipped("data", data), f"method/{method}"]
            asked["cache.folder"] = None
        elif isinstance(method, RunConfig | Mapping):
            asked = _flat(method.as_dict() if isinstance(method, RunConfig) else method)
        else:
            layers = [method] if isinstance(method, str | Path) else [*method]
        if f"base/{model}" not in layers:
            asked["model.base"] = model if self._model is None else self.out / "base"
        if f"data/{data}" not in layers:
            read = prefs if self._prefs is None else Preferences(data=self.out / PAIRS)
            asked |= {"data.paths": read.data} | {
                f"data.{name}": value for name, value in read.reading.config().items()
            }
        if signals is not None:
            asked["signal.file"] = signals if self._signals is None else self.out / SIGNALS
        asked |= _flat({} if lora is None else {"lora": _lora(lora)}) | _flat(overrides)
        words = [f"{key}={json.dumps(value, default=str, ensure_ascii=False)}" for key, value in asked.items()]
        self.config: RunConfig = load_config(layers, words, where=PLACE)
        if self.config.signal.file is not None and self.config.origin("signal", "file") in shipped_layers():
            what = f"{self.config.method} trains on a signal of its pairs, and none is given"
            raise ConfigError(what, where=f"{PLACE}, signals", remedy="give what make_signals returned, or its file")

    def train(self, *, resume: Resume = False, overwrite: bool = False, verify: bool = False) -> Path:
        """Train to the end, or to where a callback stops; a finished run is left as it is.

        Args:
            resume: go on from the last complete checkpoint, also of a finished run of fewer steps; "auto": or start,
                where no run is there. overwrite: remove what is in `out` and start again. verify: read base, caches
                and checkpoints again, and compare every hash that was written down.

        Returns:
            The run folder.

        Raises:
            InputError: files that do not fit, or a folder in use. CheckFailed: steps that could not be applied.
        """
        if not overwrite:
            check_run(self.out, self.config, resume=resume, verify=verify)
        self._write()
        how: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "verify": verify}
        return train_run(self.config, self.out, callbacks=self.callbacks, **how)

    def pipeline(self, *, device: str | None = None) -> Any:
        """The diffusers pipeline of the finished run.

        Raises:
            InputError: the run is not finished.
        """
        return open_pipeline(str(self.out), device=device)

    def _write(self) -> None:
        """The files of what is in memory.

        Raises:
            ConfigError: several processes, each of which would write them.
        """
        held = [each for each in (self._model, self._prefs, self._signals) if each is not None]
        if held and launched_as()[0] > 1:
            raise ConfigError("several processes share files only", where=PLACE, remedy="name files and folders")
        with own_folder(self.out, RUN) if held else nullcontext():
            self._write_held()

    def _write_held(self) -> None:
        if self._model is not None:
            with atomic_folder(self.out / "base", own=PIPELINE) as folder, quiet():
                self._model.save_pretrained(folder)
        if self._prefs is not None:
            write_pairs(self._prefs, self.out / PAIRS)
        if self._signals is not None:
            write_signals(self.out / SIGNALS, self._signals, provenance=provenance())


def _refuse_adapters(pipeline: Any) -> None:
    held = [name for name, part in pipeline.components.items() if getattr(part, "peft_config", None)]
    if held:
        what = f"its {held[0]} carries adapters, which are no part of a base"
        remedy = "call fuse_lora() and unload_lora_weights() first, or name the LoRA as model.init_from"
        raise InputError(what, where=f"{PLACE}, model", remedy=remedy)


def _shipped(kind: str, name: object) -> list[str | Path]:
    """The shipped layer of this kind and name, if there is one."""
    return [f"{kind}/{name}"] if isinstance(name, str) and name in shipped_names(kind) else []


def _base_layer(model: Any) -> list[str | Path]:
    """The shipped base that a method lies on: the named one, or that of the model's family, if there is one."""
    if not _shipped("base", model):
        named = isinstance(model, str | Path)
        pipeline = str(locate(model).index.get("_class_name", "")) if named else type(model).__name__
        model = next((name for name in FAMILIES if pipeline in family(name).pipelines), None)
    return _shipped("base", model)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value; an empty section stays one."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return found


def _lora(given: LoraConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The section `lora` of a peft config, which may say nothing else.

    Raises:
        ConfigError: it does.
    """
    if isinstance(given, Mapping):
        return dict(given)
    from peft import LoraConfig

    targets = given.target_modules
    read: dict[str, Any] = {"r": given.r, "lora_alpha": given.lora_alpha, "use_rslora": given.use_rslora}
    read |= {"use_dora": given.use_dora, "lora_dropout": given.lora_dropout}
    plain = LoraConfig(**read, target_modules=targets, init_lora_weights="gaussian")
    odd = {key for key, value in given.to_dict().items() if value != plain.to_dict()[key]}
    odd -= {"init_lora_weights"} if given.init_lora_weights is True else set()
    if odd or isinstance(targets, str):
        what = ", ".join(sorted(odd)) or "a pattern of target_modules"
        remedy = "give r, lora_alpha and a list of target_modules; A starts from a normal draw"
        raise ConfigError(f"{what} has no effect", where=f"{PLACE}, lora", remedy=remedy)
    named = None if targets is None else sorted(targets)
    kinds = {"rslora": given.use_rslora, "dora": given.use_dora, "dropout": given.lora_dropout}
    return {"rank": given.r, "alpha": given.lora_alpha, "targets": named, **kinds}
