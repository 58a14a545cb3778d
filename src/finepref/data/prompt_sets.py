"""The three published prompt sets, read from a file or the hub and checked by hash; their styles and categories."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError, nearest
from finepref.core.progress import say
from finepref.core.rows import PROMPTS
from finepref.formats.prompts import PromptSet, as_prompt_set, read_prompts


def _beside(name: str) -> Any:
    """A JSON file that lies beside this module."""
    return json.loads((resources.files("finepref.data") / name).read_text(encoding="utf-8"))


STYLES = ("anime", "concept-art", "paintings", "photo")


@dataclass(frozen=True, slots=True)
class Published:
    """A published set: rows and hash of its prompts (`PromptSet.sha256`), and where the hub keeps it.

    repository, revision, files: a hub data set; files are joined in this order. unique: keep first occurrences only.
    quoted: row -> hash of the set whose prompt of that row has quotes, which the readers of others drop.
    """

    rows: int
    sha256: str
    repository: str
    revision: str | None
    files: Sequence[str]
    unique: bool = False
    quoted: Mapping[str, str] = field(default_factory=dict)


PUBLISHED = {name: Published(**about) for name, about in _beside("published_prompts.json").items()}


def load_prompt_set(name: str) -> PromptSet:
    """A prompt set by what the command line calls it.

    Args:
        name: a prompt file; a published set (`papv2`, `hpsv2`, `partiprompts`), which the hub is asked for; or
            `NAME=FILE`, a published set from a file; or a row of `PROMPTS` (`lab-train`, `lab-eval`).

    Returns:
        The set; a published one with its hash checked and its tags.

    Raises:
        InputError: no such file or set, or a published set whose prompts are not the published ones.
    """
    head, equals, path = name.partition("=")
    if head in PUBLISHED:
        return _published(head, path if equals else None)
    if name in PROMPTS:
        return as_prompt_set(PROMPTS[name].load(), name)
    if not Path(name).exists() and (equals or not Path(name).suffix):
        known = PUBLISHED if equals else [*PUBLISHED, *PROMPTS]
        raise InputError(f"unknown prompt set '{head}'", where="prompts", remedy=nearest(head, known))
    return read_prompts(name)


def _published(name: str, path: str | None) -> PromptSet:
    about = PUBLISHED[name]
    found = _without_quotes(read_prompts(path, name=name) if path is not None else _from_hub(name, about), about)
    if found.sha256 != about.sha256:
        what = (
            f"these {len(found):,} prompts are not the published {name} ({about.rows:,} prompts, hash "
            f"{about.sha256[:12]}, here {found.sha256[:12]})"
        )
        remedy = "give the published file, or use your file under another name"
        raise InputError(what, where=path or about.repository, remedy=remedy)
    return replace(found, tags=_tags(name))


def _without_quotes(found: PromptSet, about: Published) -> PromptSet:
    """The set as everybody has it, where the file is the same but for quotes that the readers of others drop."""
    for row, sha256 in about.quoted.items():
        if found.sha256 == sha256:
            prompts = [*found.prompts]
            prompts[int(row)] = prompts[int(row)].replace('"', "")
            say(f"{found.name}: prompt {row} is taken without its quotes, as in the published set")
            return replace(found, prompts=tuple(prompts))
    return found


def _from_hub(name: str, about: Published) -> PromptSet:
    from fnmatch import fnmatch

    from huggingface_hub import HfApi, hf_hub_download

    try:
        files = list(about.files)
        if any("*" in file for file in files):
            listed = HfApi().list_repo_files(about.repository, repo_type="dataset", revision=about.revision)
            files = sorted(file for file in listed for wanted in about.files if fnmatch(file, wanted))
        paths = [hf_hub_download(about.repository, f, repo_type="dataset", revision=about.revision) for f in files]
    except Exception as error:  # the hub's client raises many kinds; all mean that there is no file
        what, remedy = f"the hub did not give it ({type(error).__name__})", f"give the file: --prompts {name}=FILE"
        raise InputError(what, where=about.repository, remedy=remedy) from None
    prompts = [prompt for path in paths for prompt in read_prompts(path).prompts]
    return PromptSet(name, tuple(dict.fromkeys(prompts) if about.unique else prompts))


def _tags(name: str) -> dict[str, tuple[str, ...]]:
    if name == "hpsv2":
        return {"style": tuple(style for style in STYLES for _ in range(800))}
    if name == "partiprompts":
        packed = _beside("partiprompts_tags.json")
        tags = {tag: packed[tag] for tag in ("category", "challenge")}
        return {tag: tuple(known["names"][ord(c) - ord("a")] for c in known["rows"]) for tag, known in tags.items()}
    return {}
