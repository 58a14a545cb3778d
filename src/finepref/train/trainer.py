"""A run from Python: the `finepref train` of the same config, with models and data that may be in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finepref.core.errors import ConfigError
from finepref.core.files import atomic_folder
from finepref.core.provenance import provenance
from finepref.formats.layers import shipped_names
from finepref.formats.preferences import Preference, Preferences, write_pairs
from finepref.formats.signals import Signals, write_signals
from finepref.formats.tables import Table
from finepref.models.family import FAMILIES, family
from finepref.models.load import open_pipeline
from finepref.models.source import locate, quiet
from finepref.train.callbacks import Callback
from finepref.train.config import RunConfig, load_config
from finepref.train.run import train_run

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
        data: Iterable[Preference] | str | Path | Sequence[str | Path],
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
            data: files or folders; what `read_preferences` returned, or preferences, which are written to
                `out/pairs.parquet` where they are in memory.
            method: a shipped method (`arenapo`), layers as after -c, or a whole config.
            out: run folder. signals: of the pairs: a file, or what `make_signals` returned (`out/signals.parquet`).
            lora: rank, alpha, targets; None for what the method says, which mostly is full fine-tuning.
            callbacks: see `Callback`. overrides: `train={"max_steps": 100}`, or `**{"train.max_steps": 100}`.

        Raises:
            ConfigError: an unknown name or option, a combination that makes no sense. InputError: no such model.
        """
        self.out, self.callbacks = Path(out), tuple(callbacks)
        self._model = None if isinstance(model, str | Path) else model
        self._prefs: Any = None if _named(data) or (isinstance(data, Preferences) and not _in_memory(data)) else data
        self._signals = signals if isinstance(signals, Signals) else None
        layers: list[str | Path] = []
        asked: dict[str, Any] = {}
        if isinstance(method, RunConfig):
            asked = method.as_dict()
        elif isinstance(method, Mapping):
            asked = dict(method)
        elif isinstance(method, str) and method in shipped_names("method"):
            layers = [*_base_layer(model), *_shipped("data", data), f"method/{method}"]
        else:
            layers = [method] if isinstance(method, str | Path) else [*method]
        asked = {**_flat(asked), "cache.folder": None, **self._data(data, layers)}
        if _shipped("base", model) != layers[:1] or not layers:
            asked["model.base"] = str(self.out / "base" if self._model is not None else model)
        if signals is not None:
            asked["signal.file"] = str(self.out / SIGNALS if isinstance(signals, Signals) else signals)
        if lora is not None:
            asked |= _flat({"lora": _lora(lora)})
        asked |= _flat(overrides)
        words = [f"{key}={json.dumps(value, default=str, ensure_ascii=False)}" for key, value in asked.items()]
        self.config: RunConfig = load_config(layers, words, where=PLACE)

    def train(self, *, resume: bool = False, overwrite: bool = False) -> Path:
        """Train to the end, or to where a callback stops; a finished run is left as it is.

        Args:
            resume: go on from the last complete checkpoint. overwrite: remove what is in `out` and start again.

        Returns:
            The run folder.

        Raises:
            InputError: files that do not fit, or a folder in use. CheckFailed: steps that could not be applied.
        """
        self._write()
        return train_run(self.config, self.out, resume=resume, overwrite=overwrite, callbacks=self.callbacks)

    def pipeline(self, *, device: str | None = None) -> Any:
        """The diffusers pipeline of the finished run.

        Raises:
            InputError: the run is not finished.
        """
        return open_pipeline(str(self.out), device=device)

    def _data(self, data: Any, layers: Sequence[str | Path]) -> dict[str, Any]:
        """The keys that the data set."""
        if self._prefs is not None:
            return {"data.paths": [str(self.out / PAIRS)], "data.format": "auto", "data.columns": {}}
        if isinstance(data, Preferences):
            columns = dict(data.columns or {})
            return {"data.paths": _paths(data.data), "data.format": data.format, "data.columns": columns}
        return {} if set(_shipped("data", data)) & {*layers} else {"data.paths": _paths(data)}

    def _write(self) -> None:
        """The files of what is in memory.

        Raises:
            ConfigError: several processes, each of which would write them.
        """
        held = [each for each in (self._model, self._prefs, self._signals) if each is not None]
        if held and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError("several processes share files only", where=PLACE, remedy="name files and folders")
        if self._model is not None:
            with atomic_folder(self.out / "base") as folder, quiet():
                self._model.save_pretrained(folder)
        if self._prefs is not None:
            write_pairs(self._prefs, self.out / PAIRS)
        if self._signals is not None:
            write_signals(self.out / SIGNALS, self._signals, provenance=provenance())


def _named(data: Any) -> bool:
    """Whether data are names of files."""
    return isinstance(data, str | Path) or (isinstance(data, Sequence) and all(isinstance(x, str | Path) for x in data))


def _in_memory(prefs: Preferences) -> bool:
    return isinstance(prefs.data, Table)


def _paths(data: Any) -> list[str]:
    return [str(each) for each in ([data] if isinstance(data, str | Path) else data)]


def _shipped(kind: str, name: object) -> list[str | Path]:
    """The shipped layer of this kind and name, if there is one."""
    return [f"{kind}/{name}"] if isinstance(name, str) and name in shipped_names(kind) else []


def _base_layer(model: Any) -> list[str | Path]:
    """The shipped base that a method lies on: the named one, or that of the model's family, if there is one."""
    if _shipped("base", model):
        return _shipped("base", model)
    named = isinstance(model, str | Path)
    pipeline = str(locate(model).index.get("_class_name", "")) if named else type(model).__name__
    families = (name for name in FAMILIES if pipeline in family(name).pipelines)
    return _shipped("base", next(families, None))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value; an empty section stays one."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inside = _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
        found |= inside
    return found


def _lora(given: LoraConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The section `lora` of a peft config, which may say nothing else.

    Raises:
        ConfigError: it does.
    """
    if isinstance(given, Mapping):
        return dict(given)
    from peft import LoraConfig

    drawn, targets = given.init_lora_weights, given.target_modules
    plain = LoraConfig(r=given.r, lora_alpha=given.lora_alpha, target_modules=targets)
    plain.init_lora_weights = drawn if drawn in (True, "gaussian") else True
    odd = {key: value for key, value in given.to_dict().items() if value != plain.to_dict()[key]}
    if odd or isinstance(targets, str):
        key, value = next(iter((odd or {"target_modules": targets}).items()))
        remedy = "leave it out; a run has r, lora_alpha, a list of target_modules, and the gaussian start"
        raise ConfigError(f"{key} = {value!r} has no effect", where=f"{PLACE}, lora", remedy=remedy)
    return {"rank": given.r, "alpha": given.lora_alpha, "targets": None if targets is None else sorted(targets)}
