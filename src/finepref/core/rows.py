"""Rows: every axis is one table of rows by name, ours and those of a user's own module.

    finepref.register(objective=ObjectiveRow(name="mine", ...))        in a file that --plugin names, or in a script

The table of an axis belongs to the module that `AXES` names; it reads, lists and checks rows from anywhere alike. Our
own rooms that are no axis (the lab) register like a user's, and so do installed packages with an entry point of the
group `finepref.rows`; both are imported when a name is unknown or rows are listed. No torch here.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from finepref.core.errors import FineprefError, InputError, nearest

AXES = {
    "objective": "finepref.objectives.table",
    "guard": "finepref.objectives.table",
    "trajectory": "finepref.diffusion.trajectories",
    "signal": "finepref.signals.kinds",
    "gap": "finepref.arena.gap",
    "scorer": "finepref.evaluate.scorers.kinds",
    "dialect": "finepref.formats.dialects",
    "base": "finepref.core.rows",
    "prompts": "finepref.core.rows",
}
OURS: tuple[str, ...] = ()
GROUP = "finepref.rows"
ENVIRONMENT = "FINEPREF_PLUGINS"
"""What --plugin named, separated like PATH, for the processes that a command starts."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Plugin:
    """A module that registers rows. path, sha256: its file and that file's hash, empty where it has none."""

    module: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A row that is only a name for something that is made when it is asked for, e.g. a base model's folder."""

    name: str
    load: Callable[[], Any]
    source: str = ""


def _anything(row: Any) -> None:
    """No further check."""


class Table(Mapping[str, R], Generic[R]):
    """The rows of an axis by name, in order: built-in ones first. An unknown name raises with the nearest one."""

    def __init__(
        self,
        axis: str,
        kind: type[R],
        rows: Iterable[R] = (),
        *,
        what: str = "",
        where: str | None = None,
        error: type[FineprefError] = InputError,
        check: Callable[[R], None] = _anything,
        also: Callable[[], Iterable[R]] = tuple,
    ) -> None:
        """Args:
        axis: as in `AXES`. kind: class of its rows, which have a `name`. what, where, error: how an unknown name is
            refused. check: raises a `FineprefError` for a row that cannot work. also: rows that follow from others.
        """
        self.axis, self.kind, self.what, self.where, self.error = axis, kind, what or axis, where, error
        self._check, self._also = check, also
        self._rows: dict[str, R] = {}
        self.origin: dict[str, Plugin] = {}
        for row in rows:
            self.add(row)
        _TABLES[axis] = self

    def add(self, row: R, origin: Plugin | None = None) -> None:
        """Add a row. origin: who registers it, None for our own.

        Raises:
            InputError: it is not a row of this axis, has no name of its own, or fails the axis' check.
        """
        name, wanted = getattr(row, "name", None), f"{self.kind.__module__}.{self.kind.__qualname__}"
        where = f"{self.axis} {name!r}" + (f" of {origin.path or origin.module}" if origin else "")
        if not isinstance(row, self.kind):
            raise InputError(f"{type(row).__name__} is not a row of this axis", where=where, remedy=f"give a {wanted}")
        if not isinstance(name, str) or not name or name != name.strip():
            raise InputError("the name is not a word", where=where, remedy="give a short name")
        if name in self._rows:
            known = self.origin.get(name)
            raise InputError(
                f"the name is taken by {known.path or known.module if known else 'finepref'}",
                where=where,
                remedy="choose another name",
            )
        try:
            self._check(row)
        except FineprefError as error:
            raise InputError(error.what, where=where, remedy=error.remedy) from None
        self._rows[name] = row
        if origin is not None:
            self.origin[name] = origin

    def _all(self) -> dict[str, R]:
        discover()
        for row in self._also():
            self._rows.setdefault(row.name, row)  # type: ignore[attr-defined]
        return self._rows

    def __getitem__(self, name: str) -> R:
        found = self._rows if name in self._rows else self._all()
        if name not in found:
            raise self.error(f"unknown {self.what} {name!r}", where=self.where, remedy=nearest(name, found))
        return found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows or name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._all()))

    def __len__(self) -> int:
        return len(self._all())


_TABLES: dict[str, Table[Any]] = {}
_LOADED: dict[str, Plugin] = {}
_LOADING: list[Plugin | None] = []
_ROWS: dict[Plugin, dict[str, list[str]]] = {}
_DISCOVERED: list[bool] = []

BASES = Table("base", Named, what="model")
PROMPTS = Table("prompts", Named, what="prompt set", where="--prompts")


def table(axis: str) -> Table[Any]:
    """The table of an axis; its module is imported.

    Raises:
        InputError: no such axis.
    """
    if axis not in AXES:
        raise InputError(f"unknown axis {axis!r}", where="register", remedy=nearest(axis, AXES))
    importlib.import_module(AXES[axis])
    return _TABLES[axis]


def register(**rows: Any) -> None:
    """Add rows of your own: `register(objective=row, guard=row)`, one an axis and call.

    Example:
        >>> register(gap=GapRow(name="flat", table=lambda ratings: np.ones((len(ratings), len(ratings)))))

    Raises:
        InputError: an unknown axis, a row of another class, a name that is taken, a row that fails its axis' check.
    """
    if _LOADING:
        origin = _LOADING[-1]
    else:
        caller = sys._getframe(1).f_globals
        origin = _plugin(str(caller.get("__name__")), caller.get("__file__"))
    for axis, row in rows.items():
        table(axis).add(row, origin)
        if origin is not None:
            _ROWS.setdefault(origin, {}).setdefault(axis, []).append(row.name)


def load_plugin(spec: str | Path) -> None:
    """Import a file `NAME.py`, or a module, once; what it registers is there afterwards.

    Raises:
        InputError: no such file or module, an error in it (with its line), or it registers nothing.
    """
    path = Path(spec).expanduser().resolve()
    if path.suffix != ".py":
        _import(str(spec), lambda: importlib.import_module(str(spec)))
        return
    if not path.is_file():
        raise InputError("no such file", where=spec, remedy="name a Python file, or an installed module without .py")
    name = f"finepref_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    _import(name, lambda: _execute(name, path), path)


def plugins() -> list[dict[str, Any]]:
    """Every module that registered rows: its name, file, hash of the file, and the names of its rows by axis."""
    return [
        {"module": plugin.module, "path": plugin.path, "sha256": plugin.sha256, "rows": rows}
        for plugin, rows in _ROWS.items()
    ]


def _plugin(module: str, path: str | Path | None) -> Plugin:
    found = path is not None and Path(path).is_file()
    digest = hashlib.sha256(Path(str(path)).read_bytes()).hexdigest() if found else ""
    return Plugin(module, str(Path(str(path)).resolve()) if found else "", digest)


def _execute(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _import(name: str, load: Callable[[], ModuleType], path: Path | None = None) -> None:
    if name in _LOADED:
        return
    discover()  # names of ours are taken first
    if path is None:
        spec = _find(name)
        path = Path(spec.origin) if spec.origin else None
    plugin = _LOADED[name] = _plugin(name, path)
    _LOADING.append(plugin)
    try:
        load()
    except Exception as error:
        del _LOADED[name]
        if isinstance(error, FineprefError):
            raise
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == plugin.path]
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else (lines or [None])[-1]
        where = f"{plugin.path or name}" + (f":{line}" if line else "")
        what = " ".join(str(error).split())
        raise InputError(f"{type(error).__name__}: {what}", where=where, remedy="correct the plugin") from error
    finally:
        _LOADING.pop()
    if not any(known.module == name for known in _ROWS):
        raise InputError("it registers no row", where=plugin.path or name, remedy="call finepref.register(...) in it")


def _find(name: str) -> Any:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise InputError("no such module", where=name, remedy="install it, or name its file NAME.py")
    return spec


def discover() -> None:
    """Import once what registers rows by itself: our own rooms, installed packages, and what --plugin named.

    Raises:
        InputError: see `load_plugin`.
    """
    if _DISCOVERED:
        return
    _DISCOVERED.append(True)
    _LOADING.append(None)
    try:
        for name in OURS:
            importlib.import_module(name)
    finally:
        _LOADING.pop()
    for entry in metadata.entry_points(group=GROUP):
        load_plugin(entry.value)
    for named in filter(None, os.environ.get(ENVIRONMENT, "").split(os.pathsep)):
        load_plugin(named)
