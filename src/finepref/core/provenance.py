"""Where a result comes from: hashes of inputs, versions, device, seed."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from finepref.core.files import reading
from finepref.core.known import file_sha256
from finepref.core.rows import plugins
from finepref.core.text import visible

LIBRARIES = (
    *("finepref", "torch", "diffusers", "transformers", "peft"),
    *("accelerate", "numpy", "scipy", "pyarrow", "pillow"),
)


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's content; of a large one from what `core.known` knows of it."""
    with reading(path, "a readable file"):
        return file_sha256(Path(path))


def sha256_folder(path: str | Path, suffixes: Iterable[str] = (".safetensors", ".json", ".bin")) -> str:
    """Hex SHA-256 over the relative names and contents of a folder's files with these suffixes, sorted by name."""
    digest = hashlib.sha256()
    wanted = tuple(suffixes)
    for entry in sorted(p for p in Path(path).rglob("*") if p.is_file() and p.suffix in wanted):
        line = f"{entry.relative_to(path).as_posix()}\0{sha256_file(entry)}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def hash_config(config: Mapping[str, Any]) -> str:
    """Hex SHA-256 of a config as sorted JSON: equal for equal settings in any order.

    An iterator among its values is hashed as the list of what it gives, of which only a piece is held at once.
    """
    digest = hashlib.sha256()
    for piece in _json_of(config):
        digest.update(piece.encode())
    return digest.hexdigest()


def _json_of(config: Mapping[str, Any]) -> Iterator[str]:
    if not any(isinstance(value, Iterator) for value in config.values()):
        yield _json(config)
        return
    before = "{"
    for key in sorted(config):
        yield f"{before}{_json(key)}: "
        yield from _json_list(config[key]) if isinstance(config[key], Iterator) else [_json(config[key])]
        before = ", "
    yield "}"


def _json_list(values: Iterator[Any]) -> Iterator[str]:
    before = "["
    while piece := [*itertools.islice(values, 1 << 14)]:
        yield before + _json(piece)[1:-1]
        before = ", "
    yield "[]" if before == "[" else "]"


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def version_of(library: str) -> str | None:
    """The version of a library that is installed, else None; nothing is imported."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that are installed."""
    found = {name: version for name in LIBRARIES if (version := version_of(name)) is not None}
    return {"python": platform.python_version(), "platform": platform.platform(), **found}


def provenance(
    *,
    inputs: Iterable[str | Path] = (),
    config: Mapping[str, Any] | None = None,
    seed: int | None = None,
    identities: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A record to save beside a result: time (UTC), command, versions, seed, config hash, hash of every input file.

    identities: of inputs that are no files of this disk, what tells their content from another.

    `plugins`, where there are some: modules that registered rows, with their rows and hashes, which count as config.
    """
    record: dict[str, Any] = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": visible(" ".join([_program(), *sys.argv[1:]])),
        "versions": versions(),
        "inputs": {visible(str(p)): sha256_file(p) for p in inputs if Path(p).is_file()},
    }
    record["inputs"] |= {visible(name): told for name, told in (identities or {}).items()}
    if seed is not None:
        record["seed"] = seed
    if loaded := plugins():
        record["plugins"] = loaded
    if config is not None:
        code = {"plugins": [plugin["sha256"] for plugin in loaded]} if loaded else {}
        record["config_hash"] = hash_config({**config, **code})
    return record


def fingerprint_of(record: Mapping[str, Any]) -> str:
    """The fingerprint in a record of `fingerprinted`, empty where it has none."""
    return str(record.get("fingerprint", ""))


def fingerprinted(
    *, inputs: Iterable[str | Path], config: Mapping[str, Any], identities: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """`provenance` with the fingerprint of all that matters to the result: settings and input hashes."""
    record = provenance(inputs=inputs, config=config, identities=identities)
    matters = record["config_hash"] + json.dumps(sorted(record["inputs"].values()))
    return {**record, "fingerprint": sha256_bytes(matters.encode())}


def _program() -> str:
    """What was called: finepref, also as `python -m finepref`, or another script."""
    file = Path(sys.argv[0])
    return file.parent.name if file.name == "__main__.py" else file.name
