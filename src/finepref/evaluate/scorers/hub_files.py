"""Where published weights and vocabularies come from: hub files at a pinned revision, and one file by URL and hash."""

from __future__ import annotations

import functools
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finepref.core.device import cache_home
from finepref.core.errors import InputError, first_line
from finepref.core.files import atomic_file
from finepref.core.provenance import sha256_file
from finepref.formats.records import read_yaml

TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a hub repository at a fixed revision. names: the first that exists is used."""

    repo: str
    revision: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UrlFile:
    """One file behind a URL, known by its hash."""

    url: str
    sha256: str
    name: str


PublishedFile = HubFile | UrlFile


@functools.cache
def published() -> dict[str, Any]:
    """What was published of the scorers: `published.yaml`."""
    return read_yaml(Path(__file__).with_name("published.yaml"), remedy="install finepref again")


def hub_file(repository: str, *names: str) -> HubFile:
    """A file of a repository of `published.yaml`; without names the weights in transformers' layout."""
    repo, revision = published()["repositories"][repository]
    return HubFile(repo, revision, names or ("model.safetensors", "pytorch_model.bin"))


def fetch(source: PublishedFile, *, scorer: str) -> Path:
    """The local path of a published file, downloaded once.

    Args:
        source: where it is.
        scorer: the scorer's name, for the remedy of the error.

    Raises:
        InputError: it is not cached and cannot be downloaded, or has another hash than the published one.
    """
    return _hub(source, scorer) if isinstance(source, HubFile) else _url(source, scorer)


def _hub(source: HubFile, scorer: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    reasons = []
    for name in source.names:
        try:
            return Path(huggingface_hub.hf_hub_download(source.repo, name, revision=source.revision))
        except (EntryNotFoundError, OSError) as error:  # hub and connection errors are OSErrors
            reasons.append(first_line(error))
    raise InputError(
        f"{' or '.join(source.names)} cannot be had from the hub ({reasons[0]})",
        where=f"{source.repo}@{source.revision[:7]}",
        remedy=f"check the network, or give local files: '{scorer}@PATH'",
    )


def _url(source: UrlFile, scorer: str) -> Path:
    path = cache_home() / source.name
    if not path.is_file():
        try:
            with urllib.request.urlopen(source.url, timeout=TIMEOUT) as response, atomic_file(path) as temporary:
                temporary.write_bytes(response.read())
        except OSError as error:  # URLError and TimeoutError are
            remedy = f"check the network, or give a local file: '{scorer}@PATH'"
            raise InputError(f"cannot be downloaded ({error})", where=source.url, remedy=remedy) from None
    found = sha256_file(path)
    if found != source.sha256:
        what = f"has SHA-256 {found[:12]} and should have {source.sha256[:12]}"
        raise InputError(what, where=path, remedy="delete it")
    return path
