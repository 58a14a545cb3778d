"""Rows: every axis is one table of rows by name, ours and those of a user's own module.

    finepref.register(objective=ObjectiveRow(name="mine", ...))        in a file that --plugin names, or in a script

The table of an axis belongs to the module that `AXES` names; it reads, lists and checks rows from anywhere alike. The
lab registers like a user, and so do installed packages with an entry point of the group `finepref.rows`; both are
imported when a name is unknown or rows are listed. No torch here.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar

from finepref.core.errors import FineprefError, InputError, first_line, nearest

AXES = {
    "objective": "finepref.objectives.table",
    "guard": "finepref.objectives.table",
    "trajectory": "finepref.diffusion.trajectories",
    "signal": "finepref.signals.kinds",
    "gap": "finepref.arena.gap",
    "scorer": "finepref.evaluate.scorers.scorer_rows",
    "dialect": "finepref.formats.dialects",
    "base": "finepref.core.rows",
    "prompts": "finepref.core.rows",
}
OURS = "finepref.lab.plugin"
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
    """A row that is a name for something that is made when it is asked for, e.g. a base model's folder."""

    name: str
    load: Callable[[], Any]


class RowTable(Mapping[str, R], Generic[R]):
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
        check: Callable[[R], None] = lambda row: None,
        also: Callable[[], Iterable[R]] = tuple,
    ) -> None:
        """Args:
        axis: as in `AXES`. kind: class of its rows, which have a `name`. what, where, error: how an unknown name is
            refused. check: raises a `FineprefError` for a row that cannot work; ours are checked by the suite.
            also: rows that follow from others.
        """
        self.axis, self.kind, self.what, self.where, self.error = axis, kind, what or axis, where, error
        self.check, self._also = check, also
        self._rows: dict[str, R] = {}
        self.origin: dict[str, Plugin] = {}
        for row in rows:
            self.add(row)
        _TABLES[axis] = self

    def add(self, row: R, origin: Plugin | None = None) -> None:
        """Add a row. origin: who registers it, None for our own.

        Raises:
            InputError: it is not a row of this axis, its name is taken, or it fails the axis' check.
        """
        name = getattr(row, "name", "")
        where = self.place(name, origin)
        if not isinstance(row, self.kind) or not name:
            remedy = f"give a {self.kind.__module__}.{self.kind.__qualname__} with a name"
            raise InputError(f"{type(row).__name__} is not a row of this axis", where=where, remedy=remedy)
        if name in self._rows:
            owner = self.origin[name].path if name in self.origin else "finepref"
            raise InputError(f"the name is taken by {owner}", where=where, remedy="choose another name")
        if origin is not None:
            try:
                self.check(row)
            except FineprefError as error:
                raise InputError(error.what, where=where, remedy=error.remedy) from None
            self.origin[name] = origin
        self._rows[name] = row

    def place(self, name: str, origin: Plugin | None) -> str:
        """How an error names a row: its axis, its name, and the file that registers it."""
        return f"{self.axis} {name!r}" + (f" of {origin.path or origin.module}" if origin else "")

    def _all(self) -> dict[str, R]:
        discover()
        for row in self._also():
            self._rows.setdefault(row.name, row)  # type: ignore[attr-defined]
        return self._rows

    def __getitem__(self, name: str) -> R:
        found = self._rows if name in self._rows else self._all()
        if name not in found:
            own = ", or name its file with --plugin" if self.axis in AXES else ""
            raise self.error(f"unknown {self.what} {name!r}", where=self.where, remedy=nearest(name, found) + own)
        return found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows or name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._all()))

    def __len__(self) -> int:
        return len(self._all())


_TABLES: dict[str, RowTable[Any]] = {}
_ROWS: dict[Plugin, dict[str, list[str]]] = {}
_LOADED: set[str] = set()
_DISCOVERED: list[str] = []

BASES = RowTable("base", Named, what="model")
PROMPTS = RowTable("prompts", Named, what="prompt set", where="prompts")


def table(axis: str) -> RowTable[Any]:
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
    caller = sys._getframe(1).f_globals
    origin = None if caller["__name__"] == OURS else _plugin(caller["__name__"], caller.get("__file__") or "")
    for axis, row in rows.items():
        table(axis).add(row, origin)
        if origin is not None:
            _ROWS.setdefault(origin, {}).setdefault(axis, []).append(row.name)


def load_plugin(spec: str | Path) -> None:
    """Import a file `NAME.py`, or a module, once; what it registers is there afterwards.

    Raises:
        InputError: no such file or module, an error in it (with its line), or it registers nothing.
    """
    path, name = Path(spec).expanduser().resolve(), str(spec)
    if unusable := _unusable(path, name):
        remedy = "name a Python file NAME.py, or an installed module without .py"
        raise InputError(unusable, where=spec, remedy=remedy)
    if path.suffix == ".py":
        name = f"finepref_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    discover()  # names of ours are taken first
    if name in _LOADED or any(plugin.module == name for plugin in _ROWS):
        return
    before = sum(len(names) for rows in _ROWS.values() for names in rows.values())
    try:
        _execute(name, path) if path.suffix == ".py" else importlib.import_module(name)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        if isinstance(error, FineprefError):
            raise
        ours = (__file__, importlib.__file__)
        raise _blamed(error, lambda file: not file.startswith("<") and file not in ours, else_at=spec) from error
    if before == sum(len(names) for rows in _ROWS.values() for names in rows.values()):
        raise InputError("it registers no row", where=spec, remedy="call finepref.register(...) in it")
    _LOADED.add(name)


def _unusable(path: Path, name: str) -> str:
    """Why neither a file nor a module can be imported under this name; nothing where one is there."""
    if path.suffix == ".py":
        return "" if path.is_file() else "a folder, not a plugin" if path.is_dir() else "no such file"
    if name in sys.modules:
        return ""
    try:
        named = all(part.isidentifier() for part in name.split("."))
        found = importlib.util.find_spec(name) if named else None
    except ModuleNotFoundError:
        found = None
    except Exception:  # of the package that it lies in, which the import says
        return ""
    if found is not None and (found.origin is not None or not path.is_dir()):
        return ""
    return "a folder, not a plugin" if path.is_dir() else "not a Python file" if path.exists() else "no such module"


def row_fault(error: Exception) -> InputError | None:
    """The sentence for an error that a row of a user's own raised while it was used, on whatever axis; None for others.

    It names the last line of the plugin that the error passed.
    """
    files = {plugin.path for plugin in _ROWS if plugin.path}
    found = _blamed(error, lambda file: str(Path(file).resolve()) in files, last=True)
    return found if found.where is not None else None


def _blamed(
    error: BaseException, own: Callable[[str], bool], *, else_at: object = None, last: bool = False
) -> InputError:
    """An error as a sentence that names the first or last line of a plugin that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{at.filename}:{at.lineno}" for at in frames if own(at.filename)]
    where = lines[-1 if last else 0] if lines else else_at
    return InputError(f"{type(error).__name__}: {first_line(error)}", where=where, remedy="correct the plugin")


def plugins() -> list[dict[str, Any]]:
    """Every module that registered rows: its name, file, hash of the file, and the names of its rows by axis."""
    return [{**asdict(plugin), "rows": rows} for plugin, rows in _ROWS.items()]


def named_plugins() -> list[str]:
    """What --plugin named, in order."""
    return [*filter(None, os.environ.get(ENVIRONMENT, "").split(os.pathsep))]


def hashes(**names: str) -> dict[str, str]:
    """axis -> hash of the file of its named row, for rows that are not ours: code that a result depends on."""
    origins = {axis: table(axis).origin.get(name) for axis, name in names.items()}
    return {axis: origin.sha256 for axis, origin in origins.items() if origin is not None}


def discover() -> None:
    """Import once what registers rows by itself: the lab, installed packages, and what --plugin named.

    Raises:
        InputError: see `load_plugin`.
    """
    if _DISCOVERED:
        return
    _DISCOVERED.append(OURS)
    importlib.import_module(OURS)
    for entry in metadata.entry_points(group=GROUP):
        load_plugin(entry.value)
    for named in named_plugins():
        load_plugin(named)


def _plugin(module: str, file: str) -> Plugin:
    path = Path(file).resolve()
    known = bool(file) and path.is_file()
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if known else ""
    return Plugin(module, str(path) if known else "", digest)


def _execute(name: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
